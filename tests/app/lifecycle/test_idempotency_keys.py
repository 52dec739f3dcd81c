"""Idempotency keys: a repeated start returns the first generation."""

from __future__ import annotations

import pytest

from imagegen.errors import RequestError
from imagegen.generation import GenerationRequest, Status
from imagegen.idempotency import IdempotencyKey
from imagegen.web.http import as_http_error
from tests.app.generations import ID, seconds
from tests.app.lifecycle.fake_app import KEY, FakeApp


def test_same_key_is_the_same_generation(app: FakeApp) -> None:
    first = app.start(key=KEY)
    again = app.start(key=KEY)
    assert (again.id, again.token) == (first.id, first.token)
    assert app.polled.operations == [ID]
    app.settle()
    assert app.start(key=KEY).status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("header", "status"), [("idempotency-key", 422), ("repeatability-request-id", 422), ("operation-id", 400)]
)
def test_same_key_with_another_request_is_refused(app: FakeApp, header: str, status: int) -> None:
    app.start(key=KEY)
    with pytest.raises(RequestError) as caught:
        app.start(key=IdempotencyKey(header, KEY.value), prompt="another")
    assert (as_http_error(caught.value).status, caught.value.code) == (status, "idempotencyKeyReused")
    assert app.polled.operations == [ID]


def test_changed_default_does_not_break_a_repeated_start(app: FakeApp) -> None:
    request = GenerationRequest(prompt="a lighthouse")
    first = app.generations.start(request, metadata={}, timeout=seconds(600), key=KEY)
    again = app.generations.start(request, metadata={}, timeout=seconds(900), key=KEY)
    assert again.id == first.id
    with pytest.raises(RequestError):
        app.generations.start(request, metadata={}, timeout=seconds(900), asked_seconds=900, key=KEY)


def test_key_of_a_refused_start_is_free() -> None:
    app = FakeApp(most_active=0)
    with pytest.raises(RequestError) as refused:
        app.start(key=KEY)
    assert as_http_error(refused.value).status == 429
    assert app.records.keys == {}
