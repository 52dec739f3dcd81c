"""The reason in the body of an error, in any of the forms that services and gateways use."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html import unescape
from typing import Final, cast

from pydantic_core import from_json

from imagegen.charsets import codec_of

_MOST_BYTES: Final = 1 << 16
"""Bytes of a page or a text that are read."""
_MOST_PARTS: Final = 10
_DEEPEST: Final = 6
_CHARSET: Final = re.compile(r"charset=[\"']?([\w.-]{1,40})", re.IGNORECASE | re.ASCII)
_TAG_NAME: Final = re.compile(r"[A-Za-z]+")
_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "svg"})
_LONG_REFERENCE: Final = re.compile(r"&#(?:[0-9]{8,}|x[0-9a-f]{8,});?", re.IGNORECASE | re.ASCII)
"""No character has so many digits, and `unescape` raises ValueError for more than 4,300."""
_NOT_TEXT: Final = re.compile(r"[\x00-\x08\x0e-\x1f\ufffd]")

_FIELDS: Final = (
    "error",  # OpenAI, Azure; a text in many small gateways
    "title",  # RFC 9457
    "fault",  # Apigee
    "faultstring",
    "error_description",  # OAuth
    "message",  # API Management, and the inside of most others
    "msg",
    "detail",  # RFC 9457, FastAPI
    "errors",  # ASP.NET, JSON:API
    "reason",
)
"""Names of fields with a text for a reader, in the order in which the texts make sense."""


def parse_json(body: bytes) -> object:
    """The JSON of a body.

    Raises
    ------
    ValueError
        When it is not JSON.
    """
    # json.loads would accept lone surrogates and very deep nesting, and the record could not be written.
    return from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)


def reason_in(body: bytes, content_type: str) -> str:
    """The reason as one line of text, without markup; empty without a reason."""
    try:
        return reason_of(parse_json(body))
    except ValueError:
        pass
    text = _decoded(body[:_MOST_BYTES], content_type)
    if is_markup(body, content_type):
        text = _text_of_markup(text)
    return _line(text) if any(letter.isalpha() for letter in text) and not _NOT_TEXT.search(text) else ""


def is_markup(body: bytes, content_type: str) -> bool:
    """Whether the body is a page for people, or XML."""
    return "html" in content_type.lower() or body.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"


def reason_of(value: object) -> str:
    """The reason in JSON, as one line; empty without a reason."""
    return "; ".join(dict.fromkeys(_texts(value, _DEEPEST)))


def _texts(value: object, depth: int) -> Iterator[str]:
    """One text for each problem that the JSON states."""
    if isinstance(value, str):
        if text := _line(value):
            yield text
    elif isinstance(value, list) and depth:
        for part in cast("list[object]", value)[:_MOST_PARTS]:
            yield from _texts(part, depth - 1)
    elif isinstance(value, dict) and depth:
        yield from _texts_of_object(cast("dict[str, object]", value), depth - 1)


def _texts_of_object(fields: dict[str, object], depth: int) -> Iterator[str]:
    by_name = {name.lower(): value for name, value in fields.items()}
    found: list[str] = []
    for name in _FIELDS:
        texts = _texts(by_name.get(name), depth)
        if name == "errors" and isinstance(stated := by_name.get(name), dict):
            texts = _texts_by_field(cast("dict[str, object]", stated), depth)
        if (text := "; ".join(dict.fromkeys(texts))) and text not in found:
            found.append(text)
    if found:
        # A title may end with a dot: "One or more validation errors occurred.".
        yield ": ".join(part for part in (_place(by_name.get("loc")), *found) if part).replace(".: ", ": ")


def _texts_by_field(problems: dict[str, object], depth: int) -> Iterator[str]:
    """The texts of ASP.NET, which groups them by the field of the request."""
    for field, stated in list(problems.items())[:_MOST_PARTS]:
        yield from (f"{field}: {text}" for text in _texts(stated, depth))


def _place(location: object) -> str:
    """The field that FastAPI names: ``["body", "size"]`` is ``size``."""
    parts = cast("list[object]", location) if isinstance(location, list) else []
    return ".".join(str(part) for part in parts[:_MOST_PARTS] if part != "body" and isinstance(part, str | int))


def _line(text: str) -> str:
    return " ".join(text.split())


def _decoded(body: bytes, content_type: str) -> str:
    stated = _CHARSET.search(content_type)
    codec = codec_of(stated[1]) if stated else None
    return body.decode(codec or "utf-8", errors="replace").removeprefix("\ufeff")


def _text_of_markup(page: str) -> str:
    """The text of a page, without tags, comments, scripts and styles."""
    # Not html.parser: it takes quadratic time for some broken pages, and a gateway's page may be hostile.
    parts: list[str] = []
    skipped_to = ""
    for chunk in f">{_LONG_REFERENCE.sub('', page)}".split("<"):
        tag, _, text = chunk.partition(">")
        if skipped_to == "-->" or tag.startswith("!--"):
            text = chunk.partition("-->")[2]
            skipped_to = "" if "-->" in chunk else "-->"
        elif skipped_to:
            skipped_to = "" if tag.lower().startswith(skipped_to) else skipped_to
        elif (name := _TAG_NAME.match(tag)) and name[0].lower() in _HIDDEN and not tag.endswith("/"):
            skipped_to = f"/{name[0].lower()}"
        if not skipped_to and (line := _line(unescape(text))):
            parts.append(line)
    return " ".join(dict.fromkeys(parts))  # the title is often the heading, too
