"""Quota windows, and clients that do not wait."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from local.emulator.app import create_app
from local.emulator.emulator import Emulator, Options
from local.emulator.quotas import GRACE, Allowance, Quotas, RetryAfterWaits, retry_after_headers

START = 1_700_000_000.0


def test_no_limit_means_no_allowance() -> None:
    assert Quotas(None, 60.0).take("d", START) is None


def test_window_admits_its_quota_then_names_the_wait() -> None:
    quotas = Quotas(2, 60.0)
    allowances = [quotas.take("d", START + later) for later in (0.0, 10.0, 20.0, 59.5, 60.0)]
    assert allowances == [
        Allowance(2, 1, None),
        Allowance(2, 0, None),
        Allowance(2, 0, 40.0),
        Allowance(2, 0, 0.5),
        Allowance(2, 1, None),
    ]


def test_part_of_the_quota_is_available_in_a_part_of_the_window() -> None:
    quotas = Quotas(10, 60.0, 10.0)
    waits = [
        allowance and allowance.wait for allowance in (quotas.take("d", START + at) for at in (0, 1, 2, 10, 11, 12))
    ]
    assert waits == [None, None, 8.0, None, None, 8.0]
    for at in (20, 21, 30, 31, 40, 41):
        assert (allowance := quotas.take("d", START + at))
        assert allowance.wait is None
    assert (allowance := quotas.take("d", START + 50))
    assert allowance.wait == 10.0  # the whole window is used up


@pytest.mark.parametrize("part", [None, 0.0, 60.0, 90.0])
def test_part_as_long_as_the_window_changes_nothing(part: float | None) -> None:
    quotas = Quotas(2, 60.0, part)
    assert [allowance and allowance.wait for allowance in (quotas.take("d", START + at) for at in (0, 1, 2))] == [
        None,
        None,
        58.0,
    ]


def test_each_deployment_has_its_own_windows() -> None:
    quotas = Quotas(1, 60.0)
    assert quotas.take("a", START) == quotas.take("b", START + 30) == Allowance(1, 0, None)
    assert quotas.take("a", START + 60) == Allowance(1, 0, None)
    assert quotas.take("b", START + 60) == Allowance(1, 0, 30.0)


PAUSES = [(0.0001, "1", "1"), (1.0, "1", "1000"), (1.001, "2", "1001"), (59.5, "60", "59500")]


@pytest.mark.parametrize(("seconds", "whole", "thousandths"), PAUSES)
def test_wait_is_rounded_up(seconds: float, whole: str, thousandths: str) -> None:
    assert retry_after_headers(seconds) == {"retry-after": whole, "retry-after-ms": thousandths}


WAITS: list[tuple[dict[str, str], float, bool, str]] = [
    ({"retry-after": "2"}, 0.49, False, "the 429 may not have arrived"),
    ({"retry-after": "2"}, 0.5, True, "the 429 had time to arrive"),
    ({"retry-after": "2", "retry-after-ms": "1500"}, 1.4, True, "before the shorter wait ends"),
    ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5, False, "the shorter of two waits"),
    ({"retry-after": "2"}, 1.9, True, "seconds alone"),
    ({"retry-after-ms": "900"}, 0.9, False, "milliseconds alone"),
    ({"retry-after": "soon"}, 0.0, False, "not a number"),
    ({}, 0.0, False, "no header"),
]


def test_later_429_extends_the_wait_not_the_grace() -> None:
    waits = RetryAfterWaits()
    for later in (0.0, 0.4, 0.8):
        waits.add("d", {"retry-after": "2"}, START + later)
    assert [waits.ignored_at("d", START + later, grace=GRACE) for later in (0.4, 0.6, 2.7, 2.8)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("headers", "later", "expected", "reason"), WAITS, ids=[row[3] for row in WAITS])
def test_request_before_the_end_of_the_wait_is_early(
    headers: dict[str, str], later: float, expected: bool, reason: str
) -> None:
    waits = RetryAfterWaits()
    waits.add("d", headers, START)
    assert waits.ignored_at("d", START + later, grace=GRACE) is expected, reason
    assert not waits.ignored_at("another", START)


async def called(app: ASGIApp) -> dict[str, str]:
    """Call FLUX without a server. Returns status and headers. The response holds URLs, so no thread draws."""
    body = json.dumps({"model": "FLUX.2-pro", "prompt": "[url]"}).encode()
    sent = {"authorization": "Bearer key", "content-type": "application/json", "content-length": str(len(body))}
    path = "/providers/blackforestlabs/v1/flux-2-pro"
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"api-version=preview",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "server": ("localhost", 80),
    }
    response: dict[str, str] = {}

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response["status"] = str(message["status"])
            response.update((name.decode(), value.decode()) for name, value in message["headers"])

    await app(scope, receive, send)
    return response


def test_client_that_waits_succeeds_and_is_not_counted() -> None:
    now = START
    emulator = Emulator(Options(keys=("key",), speed=0, quota=10, quota_window=60), clock=lambda: now)
    app = create_app(emulator)

    async def wait_as_asked(calls: int) -> None:
        nonlocal now
        for _ in range(calls):
            while (answer := await called(app))["status"] == "429":
                now += int(answer["retry-after-ms"]) / 1000

    asyncio.run(wait_as_asked(35))
    counts = emulator.stats.deployment("FLUX.2-pro")
    assert (counts.calls, counts.throttled, counts.impatient) == (35, 3, 0)
    assert now == START + 180
    assert counts.throttled_times == [START, START + 60, START + 120]
    assert counts.call_times == [START + 60 * (call // 10) for call in range(35)]


def test_early_requests_are_counted() -> None:
    now = START
    emulator = Emulator(Options(keys=("key",), speed=0, quota=1, quota_window=60), clock=lambda: now)
    app = create_app(emulator)

    async def request_at_fixed_times() -> None:
        nonlocal now
        for later in (0, 0, 30, 59.9, 60):
            now = START + later
            await called(app)

    asyncio.run(request_at_fixed_times())
    counts = emulator.stats.deployment("FLUX.2-pro")
    assert (counts.requests, counts.calls, counts.throttled, counts.impatient) == (5, 2, 3, 2)
