"""Access: which routes are anonymous, how keys and tokens are compared, and what an anonymous request costs."""

from __future__ import annotations

import hmac
import json

import pytest

from imagegen.web import legacy, routes
from imagegen.web.http import Request, answer
from imagegen.web.route_table import ROUTES
from tests.app.generations import ID, TOKEN, running
from tests.app.web import test_legacy
from tests.app.web.test_routes import CANCEL, DELETE, MONITOR, RESULT, Handle, Harness

HOSTILE = "a\r\nX-Injected: yes"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What the routes compare in constant time."""
    pairs: list[tuple[bytes, bytes]] = []

    def compare(known: bytes, given: bytes) -> bool:
        pairs.append((known, given))
        return hmac.compare_digest(known, given)

    class Recorder:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(routes, "hmac", Recorder)
    monkeypatch.setattr(legacy, "hmac", Recorder)
    return pairs


def test_anonymous_routes_are_exactly_these() -> None:
    # Each new one needs a row in docs/security.md.
    assert [f"{route.method} {route.path}" for route in ROUTES if route.auth is None] == [
        "GET health",
        "GET openapi.json",
    ]


@pytest.mark.parametrize("token", ["x", TOKEN[:-1], TOKEN])
def test_token_is_compared_in_constant_time(compared: list[tuple[bytes, bytes]], token: str) -> None:
    harness = Harness(record=running())
    assert harness.ask(MONITOR, token=token).status == (200 if token == TOKEN else 404)
    assert compared == [(TOKEN.encode(), token.encode())]


@pytest.mark.parametrize("key", ["x", "first-key", "second-key"])
def test_every_old_key_is_compared_in_constant_time(compared: list[tuple[bytes, bytes]], key: str) -> None:
    harness = test_legacy.Harness()
    request = Request("GET", "https://x", {"api-key": key}, {"api-version": test_legacy.VERSION}, {"id": ID}, b"")
    answer(request, harness.legacy.get_operation)
    assert compared == [(b"first-key", key.encode()), (b"second-key", key.encode())]


@pytest.mark.parametrize("handle", [MONITOR, RESULT, CANCEL, DELETE])
@pytest.mark.parametrize("token", [None, ""])
def test_request_without_token_reads_no_storage(handle: Handle, token: str | None) -> None:
    harness = Harness(record=running())
    assert harness.ask(handle, token=token).status == (204 if handle is DELETE else 404)
    assert harness.read_ids == []
    assert harness.record is not None


def test_request_without_old_key_reads_no_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> None:
        pytest.fail("storage was read")

    harness = test_legacy.Harness()
    monkeypatch.setattr(harness, "read", read)
    for handler in (harness.legacy.get_operation, harness.legacy.delete_operation, harness.legacy.submit):
        request = Request("GET", "https://x", {"api-key": "x"}, {"api-version": test_legacy.VERSION}, {"id": ID}, b"{}")
        assert answer(request, handler).status == 401
    assert harness.asked == []


def test_line_breaks_of_a_caller_add_no_header() -> None:
    body = {"prompt": HOSTILE, "user": HOSTILE, "metadata": {HOSTILE: HOSTILE}}
    response = Harness().post(body, headers={"prefer": HOSTILE, "x-ms-client-request-id": HOSTILE})
    assert response.status == 202
    assert json.loads(response.content())["metadata"] == {HOSTILE: HOSTILE}
    assert not [text for header in response.headers.items() for text in header if "\r" in text or "\n" in text]
    assert "Injected" not in repr(response.headers)


@pytest.mark.parametrize("header", ["idempotency-key", "repeatability-request-id", "operation-id"])
def test_idempotency_key_with_a_line_break_is_refused(header: str) -> None:
    harness = Harness()
    response = harness.post(headers={header: HOSTILE})
    assert response.status == 400
    assert harness.asked == []
    assert "Injected" not in repr(response)
