"""JSON of a caller or an operator, or an error with its place and what to change."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

VALUE_MISSING: Final = "A value is missing after the colon."
_HINTS: Final = (
    (r".*\n.\n[\u201c\u201d\u201e\u201f\u2018\u2019\u00ab\u00bb]", 'Replace the curly quotes by straight ones (").'),
    (r".*\n.\n'", 'Replace the single quotes by double ones (").'),
    (r".*\n.\n[/#]", "Remove the comment: JSON has none."),
    (r".*\n.\n(True|False|None)\b", "Write true, false and null, not True, False and None."),
    ("Illegal trailing comma", "Remove the comma before the closing bracket."),
    ("Invalid control character", r"Write a line break inside a text as \n, and a tab as \t."),
    (r"Invalid \\", r"Write a backslash inside a text as \\."),
    ("Unterminated string", 'Close this text with a straight quote (").'),
    (r".*\n.\n$", "The end is missing. Close every text, { and [."),
    (r".*\n:\n[},\]]", VALUE_MISSING),
    ("Expecting property name", 'Put each field name in double quotes (").'),
    ("Extra data", "Write one JSON value, and nothing after it."),
    (r"Expecting ',' delimiter\n\"", r"Write a quote inside a text as \", and put a comma between two fields."),
    ("", "Check the quotes, commas and brackets there."),
)
"""By the problem in the words of ``json.loads``, the character before the place, and the text from there."""


class JsonTextError(ValueError):
    """The text is not valid JSON."""

    def __init__(self, hint: str, text: str = "", position: int | None = None) -> None:
        super().__init__(hint)
        self.hint = hint
        """What to change. Quotes nothing."""
        self.position = position
        """Index of the place in the text; None for an error of the whole."""
        before = text[:position]
        self.line = before.count("\n") + 1
        self.column = len(before) - before.rfind("\n")


class NumberTooLargeError(ValueError):
    """A number that JSON allows, but that no float holds."""

    def __init__(self, number: str) -> None:
        super().__init__("The number is too large.")
        self.number = number


class RepeatedKeysError(ValueError):
    """An object has a key twice."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__("A key occurs twice in one object.")
        self.keys = keys
        """The repeated ones, in order."""


def parse_strict_json(text: str) -> Any:
    """The value of a text.

    Raises
    ------
    JsonTextError, NumberTooLargeError, RepeatedKeysError
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # an environment variable may have bytes that are not UTF-8
        raise JsonTextError("Remove the character that is not valid Unicode.", text, error.start) from None
    try:
        # Safe for hostile input: it limits the depth, and refuses NaN and half a surrogate pair.
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _error(text, str(error)) from None
    # Both parsers are needed. from_json keeps the last value of a repeated key, and makes an infinity of 1e999, without
    # an error. json.loads accepts half a surrogate pair, and has no limit for the depth.
    json.loads(text, object_pairs_hook=_refuse_repeated_keys, parse_int=str, parse_float=_refuse_infinity)
    return value


def _refuse_infinity(number: str) -> None:
    if math.isinf(float(number)):
        raise NumberTooLargeError(number)


def _refuse_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    repeated = {key: None for key, _ in pairs if key in seen or seen.add(key)}
    if repeated:
        raise RepeatedKeysError([*repeated])


def _error(text: str, reason: str) -> JsonTextError:
    """What to correct, and where.

    Parameters
    ----------
    reason
        The words of from_json, which refused the text.
    """
    if "recursion limit" in reason:
        return JsonTextError("It has too many levels of { or [.")
    if error := _python_error(text):
        place = "\n".join((error.msg, text[: error.pos].rstrip()[-1:], text[error.pos :].strip()))
        return JsonTextError(next(hint for pattern, hint in _HINTS if re.match(pattern, place)), text, error.pos)
    surrogate = "hex escape" in reason or "surrogate" in reason
    half = "Write both halves of the \\u escape."
    hint = half if surrogate else "Use a number that JSON has: no NaN, no Infinity, not thousands of digits."
    return JsonTextError(hint, text, _position(text, reason))


def _python_error(text: str) -> json.JSONDecodeError | None:
    """The error of json.loads. None: it accepts more than JSON, and may even go on into nesting that is too deep."""
    try:
        json.loads(text, parse_int=str)
    except json.JSONDecodeError as error:
        return error
    except RecursionError:
        pass
    return None


def _position(text: str, reason: str) -> int:
    """The index of the place that from_json names. Its columns count bytes."""
    found = re.search(r"line (\d+) column (\d+)", reason)
    line, column = (int(found[1]), int(found[2])) if found else (1, 1)
    lines = text.split("\n")
    in_line = lines[line - 1].encode("utf-8", "surrogatepass")[: max(0, column - 1)].decode("utf-8", "ignore")
    return sum(len(one) + 1 for one in lines[: line - 1]) + len(in_line)
