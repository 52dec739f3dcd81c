"""Windows and waits."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from local.emulator.app import create_app
from local.emulator.emulator import Emulator, Options
from local.emulator.quota import ClientThrottles, Quotas, Room, pause

START = 1_700_000_000.0


def test_without_a_limit_there_is_always_room() -> None:
    assert Quotas(None, 60.0).take("d", START) is None


def test_a_window_lets_its_number_through_and_says_when_the_next_begins() -> None:
    quotas = Quotas(2, 60.0)
    rooms = [quotas.take("d", START + later) for later in (0.0, 10.0, 20.0, 59.5, 60.0)]
    assert rooms == [Room(2, 1, None), Room(2, 0, None), Room(2, 0, 40.0), Room(2, 0, 0.5), Room(2, 1, None)]


def test_each_deployment_has_windows_of_its_own_from_its_own_first_request() -> None:
    quotas = Quotas(1, 60.0)
    assert quotas.take("a", START) == quotas.take("b", START + 30) == Room(1, 0, None)
    assert quotas.take("a", START + 60) == Room(1, 0, None)
    assert quotas.take("b", START + 60) == Room(1, 0, 30.0)


PAUSES = [(0.0001, "1", "1"), (1.0, "1", "1000"), (1.001, "2", "1001"), (59.5, "60", "59500")]


@pytest.mark.parametrize(("seconds", "whole", "thousandths"), PAUSES)
def test_a_wait_is_rounded_up(seconds: float, whole: str, thousandths: str) -> None:
    assert pause(seconds) == {"retry-after": whole, "retry-after-ms": thousandths}


TOLD: list[tuple[dict[str, str], float, bool, str]] = [
    ({"retry-after": "2"}, 0.49, False, "on the way already"),
    ({"retry-after": "2"}, 0.5, True, "the news had time to arrive"),
    ({"retry-after": "2", "retry-after-ms": "1500"}, 1.4, True, "not yet"),
    ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5, False, "of two waits the shorter one"),
    ({"retry-after": "2"}, 1.9, True, "seconds alone"),
    ({"retry-after-ms": "900"}, 0.9, False, "milliseconds alone"),
    ({"retry-after": "soon"}, 0.0, False, "what cannot be read cannot be waited for"),
    ({}, 0.0, False, "nothing was said"),
]


def test_more_429s_make_the_wait_longer_but_no_younger() -> None:
    throttles = ClientThrottles()
    for later in (0.0, 0.4, 0.8):
        throttles.told("d", {"retry-after": "2"}, START + later)
    assert [throttles.on("d", START + later) for later in (0.4, 0.6, 2.7, 2.8)] == [False, True, True, False]


@pytest.mark.parametrize(("headers", "later", "expected", "reason"), TOLD, ids=[row[3] for row in TOLD])
def test_who_comes_before_the_wait_is_over_is_impatient(
    headers: dict[str, str], later: float, expected: bool, reason: str
) -> None:
    throttles = ClientThrottles()
    throttles.told("d", headers, START)
    assert throttles.on("d", START + later) is expected, reason
    assert not throttles.on("another", START)


async def called(app: ASGIApp) -> dict[str, str]:
    """One call of FLUX, without a server: its status and its headers. Links need no drawing, so no thread either."""
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
    answered: dict[str, str] = {}

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered["status"] = str(message["status"])
            answered.update((name.decode(), value.decode()) for name, value in message["headers"])

    await app(scope, receive, send)
    return answered


def test_a_caller_who_waits_as_told_gets_through_and_is_never_impatient() -> None:
    now = START
    emulator = Emulator(Options(keys=("key",), speed=0, quota=10, quota_window=60), clock=lambda: now)
    app = create_app(emulator)

    async def patient(calls: int) -> None:
        nonlocal now
        for _ in range(calls):
            while (answer := await called(app))["status"] == "429":
                now += int(answer["retry-after-ms"]) / 1000

    asyncio.run(patient(35))
    counts = emulator.stats.deployment("FLUX.2-pro")
    assert (counts.calls, counts.throttled, counts.impatient) == (35, 3, 0)
    assert now == START + 180
    assert counts.throttled_times == [START, START + 60, START + 120]
    assert counts.call_times == [START + 60 * (call // 10) for call in range(35)]


def test_a_caller_who_comes_too_early_is_counted_each_time() -> None:
    now = START
    emulator = Emulator(Options(keys=("key",), speed=0, quota=1, quota_window=60), clock=lambda: now)
    app = create_app(emulator)

    async def impatient() -> None:
        nonlocal now
        for later in (0, 0, 30, 59.9, 60):
            now = START + later
            await called(app)

    asyncio.run(impatient())
    counts = emulator.stats.deployment("FLUX.2-pro")
    assert (counts.requests, counts.calls, counts.throttled, counts.impatient) == (5, 2, 3, 2)
