"""The monitor: every declared field is filled; ``Retry-After`` follows the state and the backlog."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.generation import Generation, JsonModel, Status
from imagegen.lifecycle.ports import Pace
from imagegen.web.monitor import Monitor, MonitorImage, MonitorUrls
from tests.app.generations import NOON, POLLED, failed, new, running, seconds, stored, throttle
from tests.app.web.monitors import BASE, FakeThrottles, monitors


def declared(model: type[JsonModel]) -> set[str | None]:
    return {field.serialization_alias for field in model.model_fields.values()}


def test_every_declared_field_is_filled() -> None:
    """A field that is declared, but that no state of a generation fills, is forgotten in ``Monitors.build``."""
    succeeded = running(status=Status.SUCCEEDED, images=(stored(), stored(1), failed("contentFilter")))
    ended = running(status=Status.FAILED, error=failed("outcomeUnknown").error)
    build = monitors(unsigned=frozenset({stored(1).blob})).build
    shown = [build(record, BASE).to_json() for record in (new(queued=True), succeeded, ended)]
    assert {name for monitor in shown for name in monitor} == declared(Monitor)
    assert shown[0]["urls"].keys() == declared(MonitorUrls)
    linked, unlinked, _ = shown[1]["result"]["data"]
    assert linked.keys() | unlinked.keys() == declared(MonitorImage)


def status_message(generation: Generation, throttles: FakeThrottles | None = None) -> str | None:
    return monitors(throttles=throttles).build(generation, BASE).status_message


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (new(queued=True), "Waits in the queue for a worker."),
        (new(), None),
        (new(calling=True, claim="c", fault="status 503"), None),  # a call runs
        (running(copy_attempts=1, claim="c", fault="status 503"), None),  # a copy runs
        (new(queued=True, fault="status 503", due=NOON + seconds(600)), "Waits in the queue for a worker."),
        (
            running(fault="status 503", due=NOON + seconds(3_600)),
            "The last problem: status 503; no try before the deadline at 13:00:00Z.",
        ),
        (running(), None),
        (
            running(fault="status 503", due=NOON + seconds(67)),
            "The last problem: status 503; next try 12:01:07Z.",
        ),
        (new(fault="Storage is full.", due=NOON), "The last problem: Storage is full; next try soon."),
        (
            new(model="removed"),
            "The app has no model 'removed' now. The generation waits for it until 13:00:00Z.",
        ),
        (running(status=Status.SUCCEEDED, images=(stored(),), fault="status 503"), None),
    ],
)
def test_status_message_says_what_a_generation_waits_for(generation: Generation, message: str | None) -> None:
    assert status_message(generation) == message


def test_status_message_of_a_throttled_model() -> None:
    throttles = FakeThrottles(throttle(67, "insufficient_quota"))
    message = "Throttled by the image service: insufficient_quota; next try 12:01:07Z."
    assert status_message(new(queued=True), throttles) == message
    assert status_message(new(fault="status 429"), throttles) == message
    later = new(due=NOON + seconds(90))  # with jitter
    assert status_message(later, throttles) == message.replace("12:01:07", "12:01:30")
    beyond = FakeThrottles(throttle(3_600, "insufficient_quota"))
    expected = "Throttled by the image service: insufficient_quota; no try before the deadline at 13:00:00Z."
    assert status_message(new(), beyond) == expected
    assert status_message(running(), throttles) is None  # its operation runs already
    assert status_message(new(), FakeThrottles(throttle(0))) is None  # ended


TURN = "Waits for its turn: the quota of the model is used up, and earlier generations come first."
PACED = FakeThrottles(paced=Pace(10, None, NOON + seconds(15)))


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (new(queued=True, due=NOON + seconds(45)), TURN),
        (new(due=NOON + seconds(1)), TURN),
        (new(fault="throttled by the image service: status 429"), TURN),  # the pause is over
        (new(queued=True, fault="status 503", due=NOON + seconds(600)), TURN),
        (new(fault="status 503", due=NOON + seconds(7)), "The last problem: status 503; next try 12:00:07Z."),
        (new(calling=True, claim="c"), None),
        (running(), None),
    ],
)
def test_status_message_of_a_paced_model(generation: Generation, message: str | None) -> None:
    assert status_message(generation, PACED) == message


def test_pause_and_old_pace_in_the_status_message() -> None:
    paused = FakeThrottles(throttle(67), PACED.paced)
    assert status_message(new(queued=True), paused) == "Throttled by the image service: status 429; next try 12:01:07Z."
    old = FakeThrottles(paced=Pace(10, None, NOON))
    assert status_message(new(queued=True), old) == "Waits in the queue for a worker."


def test_status_message_without_storage_hides_nothing() -> None:
    assert status_message(new(), FakeThrottles(fails=True)) is None


def test_link_that_cannot_be_signed_hides_no_result() -> None:
    succeeded = running(status=Status.SUCCEEDED, images=(stored(), stored(1)))
    shown = monitors(unsigned=frozenset({stored(1).blob})).build(succeeded, BASE).to_json()
    linked, unlinked = shown["result"]["data"]
    assert "urlError" not in linked
    assert linked["url"] == f"{linked['blobUrl']}?sig=1"
    assert "url" not in unlinked
    assert unlinked["blobUrl"].endswith(stored(1).blob)
    assert unlinked["urlError"].keys() == {"code", "message"}
    assert unlinked["urlError"]["code"] == "linkUnavailable"
    assert unlinked["sha256"] == stored(1).sha256


def retry_after(generation: Generation, backlog: int = 0) -> str | None:
    return monitors(backlog).retry_after(generation).get("Retry-After")


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        (0, "5"),
        (3, "5"),
        (4, "6"),  # one second for each four active generations
        (40, "15"),
        (200, "55"),  # the burst of 200
        (220, "60"),
        (100_000, "60"),  # one minute at most, or callers assume a failure
    ],
)
def test_retry_after_of_queued_generation_grows_with_backlog(backlog: int, expected: str) -> None:
    assert (
        retry_after(new(queued=True, due=NOON + seconds(600)), backlog) == expected
    )  # due counts only if the message is lost


@pytest.mark.parametrize(
    ("waiting", "per_minute", "expected"),
    [
        (0, 10, "5"),
        (1, 10, "11"),
        (4, 10, "29"),
        (1, 7, "14"),  # rounded up
        (100, 600, "15"),
        (1_000, 10, "60"),
    ],
)
def test_retry_after_of_a_paced_model_grows_with_its_own_queue(waiting: int, per_minute: float, expected: str) -> None:
    throttles = FakeThrottles(paced=Pace(per_minute, None, NOON + seconds(1)))
    counts = {POLLED: waiting}
    found = monitors(100_000, throttles=throttles, waiting=lambda model: counts[model])
    assert found.retry_after(new(queued=True, due=NOON + seconds(45))) == {"Retry-After": expected}
    assert found.retry_after(running()) == {"Retry-After": "5"}
    old = FakeThrottles(paced=Pace(per_minute, None, NOON))
    assert monitors(8, throttles=old).retry_after(new(queued=True)) == {"Retry-After": "7"}  # the guess


def test_retry_after_without_storage() -> None:
    assert monitors(8, throttles=FakeThrottles(fails=True)).retry_after(new()) == {"Retry-After": "5"}


@pytest.mark.parametrize(
    "generation",
    [
        new(calling=True, claim="c", due=NOON + seconds(90)),
        new(calling=True, claim="c", due=NOON + seconds(90), faults=1),
        running(copy_attempts=1, claim="c", due=NOON + seconds(70), faults=1),
    ],
)
def test_retry_after_ignores_the_end_of_a_claim(generation: Generation) -> None:
    """The call or the copy ends earlier. Only after a crash does the claim count."""
    assert retry_after(generation, 1_000) == "5"


@pytest.mark.parametrize(
    ("changes", "backlog", "expected"),
    [
        ({"due": NOON + seconds(30)}, 0, "30"),  # throttled until then
        ({"due": NOON + seconds(30)}, 200, "55"),
        ({"due": NOON + seconds(17.4)}, 0, "17"),
        ({"due": NOON - seconds(100)}, 0, "5"),  # overdue
        ({"due": NOON + seconds(3_600)}, 0, "60"),
    ],
)
def test_retry_after_reaches_due(changes: dict[str, Any], backlog: int, expected: str) -> None:
    assert retry_after(new(**changes), backlog) == expected


@pytest.mark.parametrize("backlog", [0, 1_000])
def test_retry_after_of_running_generation_ignores_backlog(backlog: int) -> None:
    assert retry_after(running(due=NOON + seconds(40)), backlog) == "5"


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_ended_generation_has_no_retry_after(status: Status) -> None:
    assert retry_after(running(status=status), 1_000) is None
