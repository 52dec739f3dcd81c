"""The idempotency key headers."""

from __future__ import annotations

import pytest

from imagegen.errors import RequestError
from imagegen.idempotency import read_key
from imagegen.web.http import as_http_error

UUID = "f508bcf2-e651-4b4b-85a7-58ad77981ffa"


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, None),
        ({"idempotency-key": '"order-4711"'}, "order-4711"),  # a structured-field string, as in the IETF draft
        ({"idempotency-key": "order-4711"}, "order-4711"),  # what most clients send
        ({"idempotency-key": " order 4711 "}, "order 4711"),
        ({"idempotency-key": r'"a \"b\" \\ c"'}, r'a "b" \ c'),
        ({"idempotency-key": "x" * 255}, "x" * 255),
        ({"repeatability-request-id": UUID}, UUID),
        ({"operation-id": UUID.upper()}, UUID),  # canonical form
        ({"operation-id": UUID, "idempotency-key": f'"{UUID}"'}, UUID),  # two equal keys
    ],
)
def test_key_is_read_quoted_or_bare(headers: dict[str, str], value: str | None) -> None:
    key = read_key(headers)
    assert (key.value if key else None) == value


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"idempotency-key": ""}, "Idempotency-Key: is empty; use 1 to 255 printable ASCII characters"),
        ({"idempotency-key": '""'}, "Idempotency-Key: is empty"),
        ({"idempotency-key": '"open'}, "Idempotency-Key: has an opening quote without a closing one; use 1"),
        ({"idempotency-key": '"'}, "Idempotency-Key: has an opening quote without a closing one; use 1"),
        ({"idempotency-key": '"a"b"'}, 'Idempotency-Key: has a " or '),
        ({"idempotency-key": f'"{"x" * 256}"'}, "Idempotency-Key: 258 characters; use 1"),
        ({"idempotency-key": "x" * 256}, "Idempotency-Key: 256 characters; use 1 to 255 printable ASCII characters"),
        ({"idempotency-key": "schlüssel"}, "Idempotency-Key: contains a character outside ASCII; use 1"),
        ({"repeatability-request-id": "a\tb"}, "Repeatability-Request-Id: contains a control character"),
        ({"operation-id": "4711"}, "Operation-Id: is not a UUID; use one such as"),
        ({"operation-id": UUID, "idempotency-key": "other"}, "Idempotency-Key and Operation-Id: the values differ"),
    ],
)
def test_invalid_key_is_400_and_names_its_header(headers: dict[str, str], named: str) -> None:
    with pytest.raises(RequestError, match=named) as refused:
        read_key(headers)
    assert (as_http_error(refused.value).status, refused.value.code) == (400, "invalidHeader")


def test_header_is_not_part_of_the_key() -> None:
    keys = [read_key({header: UUID}) for header in ("operation-id", "idempotency-key", "repeatability-request-id")]
    assert len({key.name for key in keys if key}) == 1


def test_key_is_stored_under_its_digest() -> None:
    key = read_key({"idempotency-key": "secret"})
    assert key is not None
    assert len(key.name) == 64
    assert "secret" not in key.name
