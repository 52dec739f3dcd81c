"""The bytes of a request as JSON, or an error in plain words: empty, wrong encoding, no JSON, a key twice."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any, Final

from pydantic_core import from_json

from imagegen.charsets import codec_of
from imagegen.errors import FieldProblem, RequestError
from imagegen.web.field_problems import one_line, shown_name
from imagegen.web.http import HttpError, Request

EXAMPLE: Final = '{"prompt": "a lighthouse in fog"}'
"""A valid body of both APIs."""
_AROUND: Final = 10
"""Characters before and after the place of an error."""
_HINTS: Final = (
    (r".*\n.\n[\u201c\u201d\u201e\u201f\u2018\u2019\u00ab\u00bb]", 'Replace the curly quotes by straight ones (").'),
    (r".*\n.\n'", 'Replace the single quotes by double ones (").'),
    (r".*\n.\n[/#]", "Remove the comment: JSON has none."),
    (r".*\n.\n(True|False|None)\b", "Write true, false and null, not True, False and None."),
    ("Illegal trailing comma", "Remove the comma before the closing bracket."),
    ("Invalid control character", r"Write a line break inside a text as \n, and a tab as \t."),
    (r"Invalid \\", r"Write a backslash inside a text as \\."),
    ("Unterminated string", 'Close this text with a straight quote (").'),
    (r".*\n.\n$", "The end of the body is missing. Close every text, { and [."),
    ("Expecting property name", 'Put each field name in double quotes (").'),
    ("Extra data", "Send one JSON object, and nothing after it."),
    (r"Expecting ',' delimiter\n\"", r"Write a quote inside a text as \", and put a comma between two fields."),
    ("", "Check the quotes, commas and brackets there."),
)
"""By the problem in the words of ``json.loads``, the character before the place, and the text from there."""


def read_json(request: Request) -> Any:
    """The parsed body.

    Raises
    ------
    RequestError
        400; 415 for an unknown charset.
    """
    text = _decoded(request) if request.body.strip() else ""
    if not text.strip():
        raise RequestError("invalidJson", f"The body is empty. Send a JSON object such as {EXAMPLE}.")
    try:
        # Safe for hostile input: it limits the depth, and refuses NaN and half a surrogate pair.
        body = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError("invalidJson", _syntax_problem(text, str(error))) from None
    # Both parsers are needed. from_json keeps the last value of a repeated key, and makes an infinity of 1e999, without
    # an error. json.loads accepts half a surrogate pair, and has no limit for the depth.
    json.loads(text, object_pairs_hook=_refuse_repeated_keys, parse_int=str, parse_float=_refuse_infinity)
    return body


def _refuse_infinity(number: str) -> None:
    if math.isinf(float(number)):
        message = f"The number {number[:40]} is too large for JSON. Send a smaller one, or text in quotes."
        raise RequestError("invalidJson", message)


def _refuse_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    repeated = {key: None for key, _ in pairs if key in seen or seen.add(key)}
    if repeated:
        problems = [
            FieldProblem(shown_name(key), "occurs twice in one object. Send it once.") for key in [*repeated][:20]
        ]
        raise RequestError.for_fields(problems)


def _decoded(request: Request) -> str:
    """The body as text, without a byte order mark."""
    codec, charset = _declared(request)
    found = json.detect_encoding(request.body)
    is_wide = not found.startswith("utf-8")
    if is_wide != codec.startswith(("utf-16", "utf-32")) or (is_wide and found[:6] != codec[:6]):
        raise RequestError("invalidJson", _wrong_charset(found[:6].upper() if is_wide else None, charset))
    if is_wide or found == "utf-8-sig":
        # The bytes show their order, which `charset=utf-16` does not tell: .NET sends little-endian, others big-endian.
        codec = found
    try:
        return request.body.decode(codec)
    except UnicodeDecodeError as error:
        near = one_line(request.body[max(0, error.start - _AROUND) : error.start].decode(codec, "replace"))
        place = f"byte {error.start + 1}, after `{near}`" if near else "byte 1"
        name = codec.upper().removesuffix("-SIG")
        hint = (
            "Correct the bytes there, or the charset in the Content-Type."
            if charset
            else "Send UTF-8, or name the encoding in the Content-Type, such as charset=windows-1252."
        )
        raise RequestError("invalidJson", f"The body is not valid {name} at {place}. {hint}") from None


def _declared(request: Request) -> tuple[str, str | None]:
    """The codec, and the charset as the caller wrote it."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "application/json")
    charset = collapse_rfc2231_value(header.get_param("charset") or "").strip().lower()
    if not charset:
        return "utf-8", None
    codec = codec_of(charset)
    if codec is None:
        message = f"The charset '{one_line(charset[:40])}' is not supported. Send UTF-8, with charset=utf-8 or none."
        raise HttpError(415, "unsupportedMediaType", message)
    return codec, charset


def _wrong_charset(found: str | None, charset: str | None) -> str:
    says = f"says charset={charset}" if charset else "names no charset"
    if found is None:
        return f"The Content-Type {says}, but the body has another encoding. Send UTF-8, with charset=utf-8 or none."
    return (
        f"The body looks like {found}, but the Content-Type {says}. Send UTF-8, or write charset={found.lower()} in "
        "the Content-Type."
    )


def _syntax_problem(text: str, reason: str) -> str:
    """What to correct, and where.

    Parameters
    ----------
    reason
        The words of from_json, which refused the text.
    """
    if "recursion limit" in reason:
        return "The body has too many levels of { or [. Send a flat JSON object."
    if error := _python_error(text):
        position, hint = error.pos, _hint(error.msg, text, error.pos)
    else:
        position = _position(text, reason)
        surrogate = "hex escape" in reason or "surrogate" in reason
        half = "Write both halves of the \\u escape."
        hint = half if surrogate else "Use a number that JSON has: no NaN, no Infinity, not thousands of digits."
    before = text[:position]
    line, column = before.count("\n") + 1, position - before.rfind("\n")
    around = one_line(text[max(0, position - _AROUND) : position + _AROUND])
    return f"The body is not valid JSON at line {line}, column {column}, near `{around}`. {hint}"


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


def _hint(problem: str, text: str, position: int) -> str:
    """What to change.

    Parameters
    ----------
    problem
        The words of ``json.loads``.
    """
    if not text.lstrip().startswith("{"):
        return f"Send a JSON object such as {EXAMPLE}."
    place = "\n".join((problem, text[:position].rstrip()[-1:], text[position:].strip()))
    return next(hint for pattern, hint in _HINTS if re.match(pattern, place))
