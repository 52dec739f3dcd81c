"""The words for a wrong field: field, value, what it accepts. The validation library's words reach no caller."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sized
from typing import Any, Final

from imagegen.errors import FieldProblem

_LONGEST_NAME: Final = 100
_LONGEST_VALUE: Final = 40

_OTHER: Final = "{value}; use {accepts}."
SENTENCES: Final = {
    "missing": "is missing. Send {accepts}.",
    "extra_forbidden": "is not a field of this API. {guess}Use only {fields}.",
    "blank": "contains only white space. Send {accepts}.",
    "nul": "contains the character U+0000 (NUL), which no image service accepts. Remove it.",
    "string_type": "{value} is {kind}; use {accepts}.",
    "string_too_short": _OTHER,
    "string_too_long": "has {length} characters; use {accepts}.",
    "string_pattern_mismatch": _OTHER,
    "literal_error": _OTHER,
    "int_type": "{value} is {kind}; use a whole number, {accepts}.",
    "int_from_float": "{value}; use a whole number, {accepts}.",
    "finite_number": "the number is too large; use {accepts}.",
    "greater_than_equal": _OTHER,
    "less_than_equal": _OTHER,
    "dict_type": "{value} is {kind}; use {accepts}.",
    "too_long": "has {length} entries; use {accepts}.",
}
"""By the type of a pydantic error. A test walks the request models and finds each type that they can raise."""
_NUMBER_AS_TEXT: Final = "{value} is text. Send the number {number} without quotes."


def field_problem(found: Mapping[str, Any], schema: Mapping[str, Any]) -> FieldProblem:
    """One problem of a request.

    Parameters
    ----------
    found
        An error of pydantic, with its input.
    schema
        The JSON schema of the request model.
    """
    path = [str(part) for part in found["loc"]]
    name = shown_name(".".join(part for part in path if part != "[key]"))
    value = found["input"]
    fields = list(schema["properties"])
    sentence = SENTENCES.get(found["type"], _OTHER)
    if value is None and found["type"].endswith("_type"):
        sentence = _OTHER
    elif found["type"] == "int_type" and isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value):
        sentence = _NUMBER_AS_TEXT
    elif found["type"] == "string_pattern_mismatch" and name == "size":
        sentence = _size_sentence(str(value))
    message = sentence.format(
        value=shown(value),
        number=shown(value).strip('" '),
        kind=kind_of(value),
        length=f"{len(value):,}" if isinstance(value, Sized) else "",
        accepts=_accepts(_schema_at(schema, path)),
        fields=", ".join(fields),
        guess=_guess(name, fields),
    )
    return FieldProblem(name, f"the key {message}" if path[-1:] == ["[key]"] else message)


def _size_sentence(size: str) -> str:
    """What is wrong with a size, where it is nearly right."""
    text = size.strip()
    if text.lower() == "auto":
        return "{value}; write auto in lower case."
    if re.fullmatch(r"[0-9]+x[0-9]+", text) and text == size:
        return "{value}; use {accepts}, with 10 to 99,999 pixels a side, and no zero in front."
    if re.fullmatch(r"[0-9]+\s*[xX*\u00d7]\s*[0-9]+", text):
        return "{value}; use {accepts}. Write a lower-case x, without blanks."
    return _OTHER


def shown(value: object) -> str:
    """The value as JSON, shortened."""
    # No list and no object: its parts may be long.
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    text = json.dumps(value[: _LONGEST_VALUE + 1] if isinstance(value, str) else value, ensure_ascii=False)
    return one_line(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…")


def shown_name(name: str) -> str:
    """The name of a field, shortened."""
    return one_line(name[:_LONGEST_NAME])[:_LONGEST_NAME]


def one_line(text: str) -> str:
    """The text with its control characters visible, so that it stays on one line."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def kind_of(value: object) -> str:
    """What JSON calls this value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def _guess(name: str, fields: list[str]) -> str:
    """The field that the caller may have meant."""
    from difflib import get_close_matches  # for a wrong request only: it costs a cold start 2 ms

    by_letters = {field.replace("_", "").lower(): field for field in fields}
    close = get_close_matches(name.replace("_", "").lower(), by_letters, n=1, cutoff=0.75)
    return f"Did you mean {by_letters[close[0]]}? " if close else ""


def _schema_at(schema: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    """The schema of the field, or of the key or the value in an object."""
    for part in path:
        inner = next((one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"), schema)
        if part == "[key]":
            # The path repeats the key before it, so this is the value's schema; its siblings hold the key's.
            return schema.get("keys", {})
        properties = inner.get("properties", {})
        values = inner.get("additionalProperties")
        if part in properties:
            schema = properties[part]
        elif isinstance(values, dict):
            schema = {**values, "keys": inner.get("propertyNames", {})}
        else:
            return {}
    return schema


def _accepts(schema: Mapping[str, Any]) -> str:
    """What a field accepts, in words."""
    if "description" in schema:
        return schema["description"]
    inner = next((one for one in schema.get("anyOf", []) if one.get("type") != "null"), schema)
    match inner:
        case {"enum": [*values, last]}:
            return f"{', '.join(values)} or {last}"
        case {"type": "integer", "minimum": least, "maximum": most}:
            return f"{least:,} to {most:,}"
        case {"type": "object", "maxProperties": most}:
            return f'an object with at most {most} texts, such as {{"order": "4711"}}'
        case {"maxLength": most}:
            least = inner.get("minLength", 0)
            return f"text of {least:,} to {most:,} characters" if least else f"text of at most {most:,} characters"
        case _:
            return "what GET /openapi.json describes"
