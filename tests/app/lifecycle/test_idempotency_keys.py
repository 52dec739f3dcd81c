"""Idempotency keys: a repeated start returns the first generation."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.errors import RequestError
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status
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


def test_refused_start_writes_nothing() -> None:
    app = FakeApp(most_active=0)
    with pytest.raises(RequestError):
        app.start(key=KEY)
    assert app.steps.taken == []  # a key that is claimed and dropped could be another request's by then


def test_repetition_at_the_limit_finds_its_generation() -> None:
    app = FakeApp(most_active=1)
    first = app.start(key=KEY)
    again = app.start(key=KEY)
    assert (again.id, again.token) == (first.id, first.token)
    other = IdempotencyKey(KEY.header, "order-4712")
    with pytest.raises(RequestError) as refused:
        app.start(key=other)
    assert as_http_error(refused.value).status == 429
    assert list(app.records.keys) == [KEY.name]
    app.settle()
    assert app.start(key=other).id != first.id


def test_another_request_at_the_limit_is_a_reused_key() -> None:
    app = FakeApp(most_active=1)
    app.start(key=KEY)
    with pytest.raises(RequestError) as refused:
        app.start(key=KEY, prompt="another")
    assert refused.value.code == "idempotencyKeyReused"


def test_refused_start_does_not_drop_the_key_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another request with this key reaches the limit while this one is checked."""
    app = FakeApp(most_active=1)
    count = app.records.count_active
    others: list[Generation] = []

    def start_another() -> int:
        monkeypatch.setattr(app.records, "count_active", count)
        others.append(app.start(key=KEY))
        return count()

    monkeypatch.setattr(app.records, "count_active", start_another)
    assert app.start(key=KEY).id == others[0].id
    assert app.records.keys[KEY.name].id == others[0].id


@pytest.mark.parametrize("owner", ["this request", "an earlier request"])
def test_key_of_a_generation_deleted_meanwhile_starts_anew(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    """Between the claim of the key and the write of the record, the generation of the key ends and is deleted."""
    if owner == "an earlier request":
        app.start(key=KEY)
    claim_key = app.records.claim_key

    def delete_after_claim(key: str, claim: KeyClaim) -> Any:
        claimed = claim_key(key, claim)
        monkeypatch.setattr(app.records, "claim_key", claim_key)
        app.generations.delete(app.start(key=KEY))
        return claimed

    monkeypatch.setattr(app.records, "claim_key", delete_after_claim)
    started = app.start(key=KEY)
    found = app.read(started.id)
    assert (found.token, found.status) == (started.token, Status.RUNNING)
    assert app.records.keys[KEY.name].id == started.id
    assert list(app.records.active) == [started.id]
    app.settle()
    assert app.read(started.id).status is Status.SUCCEEDED
    assert app.start(key=KEY).id == started.id


def test_crashed_delete_leaves_a_key_that_starts_anew(app: FakeApp) -> None:
    """A key that names a tombstone."""
    first = app.start(key=KEY)
    claim = app.records.keys[KEY.name]
    app.generations.delete(first)
    app.records.keys[KEY.name] = claim
    app.steps.taken.clear()
    started = app.start(key=KEY)
    assert app.steps.taken.count("create") == 1  # none under the deleted id, which the timer could submit
    assert started.id != first.id
    assert app.read(started.id).token == started.token
    assert app.polled.operations == [first.id, started.id]
