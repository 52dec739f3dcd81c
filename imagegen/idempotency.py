"""The idempotency key of a request: a repeated request with the same key starts nothing new."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from imagegen.errors import FieldProblem, RequestError

_HEADERS = ("idempotency-key", "repeatability-request-id", "operation-id")
_BARE = re.compile(r"[\x21\x23-\x7e][\x20-\x7e]{0,254}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The value of one of the three headers."""

    header: str
    """Lower-case."""
    value: str

    @property
    def name(self) -> str:
        """Blob name of the stored key. A digest, because a key may be secret and may not be a valid blob name."""
        return hashlib.sha256(self.value.encode()).hexdigest()


def read_key(headers: Mapping[str, str]) -> IdempotencyKey | None:
    """The key of a request, quoted (a structured-field string) or bare; None when it has none.

    Raises
    ------
    RequestError
        When the key is empty, too long or, in ``Operation-Id``, not a UUID; or when two headers differ.
    """
    keys = [_parse(name, headers[name]) for name in _HEADERS if name in headers]
    if len({key.value for key in keys}) > 1:
        names = " and ".join(key.header.title() for key in keys)
        raise RequestError("invalidHeader", f"{names}: the values differ. Send only one of these headers.")
    return keys[0] if keys else None


def _parse(header: str, text: str) -> IdempotencyKey:
    text = text.strip()
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif not _BARE.fullmatch(text):
        raise _invalid(header, f"{_problem(text)}; use 1 to 255 printable ASCII characters, quoted or bare")
    if header == "operation-id":
        try:
            text = str(UUID(text))
        except ValueError:
            raise _invalid(header, "is not a UUID; use one such as f508bcf2-e651-4b4b-85a7-58ad77981ffa") from None
    return IdempotencyKey(header, text)


def _problem(text: str) -> str:
    """What is wrong with a key that is neither quoted nor bare."""
    if text in ("", '""'):
        return "is empty"
    if not text.isascii():
        return "contains a character outside ASCII"
    if not text.isprintable():
        return "contains a control character"
    if text.startswith('"') and (len(text) == 1 or not text.endswith('"')):
        return "has an opening quote without a closing one"
    if len(text.strip('"')) > 255:
        return f"{len(text):,} characters"
    return r'has a " or \ inside its quotes without a \ in front'


def _invalid(header: str, message: str) -> RequestError:
    name = header.title()  # as callers write it
    return RequestError("invalidHeader", f"{name}: {message}.", problems=[FieldProblem(name, message)])
