"""The fields of a JSON body, each read and checked, with the API's own words for what is wrong."""

import json
from collections.abc import Sequence
from typing import Any, Self, cast

from starlette.requests import Request

from local.emulator.spelling import Spelling


class Fields:
    """One body. ``null`` is the same as left out, as in OpenAI's schema."""

    def __init__(self, body: dict[str, Any], spelling: Spelling) -> None:
        self._body = body
        self._spelling = spelling

    @classmethod
    async def of(cls, request: Request, spelling: Spelling) -> Self:
        """The body of a request."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise spelling.invalid("invalid_content_type", "The Content-Type must be application/json.", None)
        return cls.parse(await request.body(), spelling)

    @classmethod
    def parse(cls, text: bytes, spelling: Spelling) -> Self:
        """Read a body."""
        try:
            body: Any = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):
            raise spelling.invalid("invalid_json", "We could not parse the JSON body of your request.", None) from None
        if not isinstance(body, dict):
            raise spelling.invalid("invalid_json", "The JSON body of your request must be an object.", None)
        return cls(cast("dict[str, Any]", body), spelling)

    def only(self, *names: str) -> None:
        """Refuse every other field, whatever its value."""
        for name in self._body:
            if name not in names:
                raise self._spelling.unknown(name)

    def given(self, name: str) -> bool:
        """Whether the field is there."""
        return self._body.get(name) is not None

    def text(self, name: str, *, most: int) -> str:
        """A string that must be there, of 1 to ``most`` characters."""
        if not self.given(name):
            raise self._spelling.missing(name)
        value = self._string(name)
        if not value:
            message = f"Invalid '{name}': empty string. Expected a string with minimum length 1."
            raise self._spelling.invalid("empty_string", message, name)
        if len(value) > most:
            message = (
                f"Invalid '{name}': string too long. Expected a string with maximum length {most}, "
                f"but got a string with length {len(value)} instead."
            )
            raise self._spelling.invalid("string_above_max_length", message, name)
        return value

    def any_text(self, name: str) -> str:
        """A string, looked at no further; empty where it is left out."""
        return self._string(name) if self.given(name) else ""

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number in the range."""
        value = self._integer(name, default)
        if not least <= value <= most:
            below = value < least
            word, sign, bound = ("minimum", ">=", least) if below else ("maximum", "<=", most)
            message = (
                f"Invalid '{name}': integer {'below' if below else 'above'} {word} value. "
                f"Expected a value {sign} {bound}, but got {value} instead."
            )
            raise self._spelling.invalid(f"integer_{'below_min' if below else 'above_max'}_value", message, name)
        return value

    def whole(self, name: str) -> int | None:
        """A whole number of any size."""
        return self._integer(name, 0) if self.given(name) else None

    def choice(self, name: str, default: str, values: Sequence[str]) -> str:
        """One of the values."""
        if not self.given(name):
            return default
        value = self._string(name)
        if value not in values:
            *others, last = (f"'{known}'" for known in values)
            known = f"{', '.join(others)} and {last}" if others else last
            message = f"Invalid value: '{_shown(value)}'. Supported values are: {known}."
            raise self._spelling.invalid("invalid_value", message, name)
        return value

    def _string(self, name: str) -> str:
        value = self._body[name]
        if not isinstance(value, str):
            raise self._wrong_type(name, "a string", value)
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            message = f"Invalid '{name}': it has half of a surrogate pair."
            raise self._spelling.invalid("invalid_value", message, name)
        return value

    def _integer(self, name: str, default: int) -> int:
        value = self._body[name] if self.given(name) else default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong_type(name, "an integer", value)
        return value

    def _wrong_type(self, name: str, expected: str, value: object) -> Exception:
        message = f"Invalid type for '{name}': expected {expected}, but got {_TYPES[type(value)]} instead."
        return self._spelling.invalid("invalid_type", message, name)


_TYPES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a decimal number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
}


def _shown(value: str) -> str:
    return value if len(value) <= 40 else value[:40] + "…"
