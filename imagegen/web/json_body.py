"""The bytes of a request as JSON, or an error in plain words: empty, wrong encoding, no JSON, a key twice."""

from __future__ import annotations

import json
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any, Final

from imagegen.charsets import codec_of
from imagegen.errors import FieldProblem, RequestError
from imagegen.json_text import VALUE_MISSING, JsonTextError, NumberTooLargeError, RepeatedKeysError, parse_strict_json
from imagegen.web.field_problems import one_line, shown_name
from imagegen.web.http import HttpError, Request

EXAMPLE: Final = '{"prompt": "a lighthouse in fog"}'
"""A valid body of both APIs."""
_AROUND: Final = 10
"""Characters before and after the place of an error."""


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
        return parse_strict_json(text)
    except RepeatedKeysError as error:
        twice = "occurs twice in one object. Send it once."
        raise RequestError.for_fields([FieldProblem(shown_name(key), twice) for key in error.keys[:20]]) from None
    except NumberTooLargeError as error:
        message = f"The number {error.number[:40]} is too large for JSON. Send a smaller one, or text in quotes."
        raise RequestError("invalidJson", message) from None
    except JsonTextError as error:
        raise RequestError("invalidJson", _syntax_problem(text, error)) from None


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
    return codec, one_line(charset[:40])


def _wrong_charset(found: str | None, charset: str | None) -> str:
    says = f"says charset={charset}" if charset else "names no charset"
    if found is None:
        return f"The Content-Type {says}, but the body has another encoding. Send UTF-8, with charset=utf-8 or none."
    return (
        f"The body looks like {found}, but the Content-Type {says}. Send UTF-8, or write charset={found.lower()} in "
        "the Content-Type."
    )


def _syntax_problem(text: str, error: JsonTextError) -> str:
    """What to correct, and where."""
    if error.position is None:
        return "The body has too many levels of { or [. Send a flat JSON object."
    hint = error.hint
    if hint == VALUE_MISSING:
        hint = f"{hint} Is the dynamic content empty? Send null, or leave the field out."
    if not text.lstrip().startswith("{"):
        hint = f"Send a JSON object such as {EXAMPLE}."
    around = one_line(text[max(0, error.position - _AROUND) : error.position + _AROUND])
    return f"The body is not valid JSON at line {error.line}, column {error.column}, near `{around}`. {hint}"
