"""Throttles: one 429 pauses the model for all workers, and its generations wait at no cost."""

from __future__ import annotations

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Status
from imagegen.lifecycle.generations import SUBMIT_CLAIM
from imagegen.lifecycle.ports import ANY_TURN, Pace
from imagegen.upstream.protocol import Answered, ImageBytes, Throttled
from tests.app.generations import DIRECT, ID, NOON, POLLED, seconds, throttle
from tests.app.lifecycle.fake_app import FakeApp


def test_one_429_pauses_all_calls_of_the_model(app: FakeApp) -> None:
    app.direct.outcomes = [Throttled("status 429", 30), Answered((ImageBytes(b"0"),))]
    for _ in range(5):
        app.start(DIRECT)
    app.work()
    assert app.direct.calls == [ID]
    assert app.throttling.paused == {DIRECT: throttle(30)}
    app.tick(seconds(29))
    app.work()
    assert app.direct.calls == [ID]
    app.settle()
    assert [found.status for found in app.records.done.values() if found] == [Status.SUCCEEDED] * 5
    assert len(app.direct.calls) == 1 + 5
    assert all(found.lost_calls == 0 for found in app.records.done.values() if found)


def test_429_of_a_submit_pauses_the_model(app: FakeApp) -> None:
    app.polled.submit_outcome = Throttled("status 429", 30)
    started = [app.start() for _ in range(3)]
    assert app.polled.operations == [started[0].id]
    assert app.throttling.paused == {POLLED: throttle(30)}


def test_pause_of_one_model_does_not_stop_another(app: FakeApp) -> None:
    app.throttling.pause(DIRECT, throttle(600))
    assert app.start().status is Status.RUNNING
    assert app.polled.operations == [ID]


def test_throttle_is_read_only_by_a_start_and_before_a_submit_or_a_call(app: FakeApp) -> None:
    app.start()
    assert app.throttling.reads == [POLLED, POLLED]
    app.settle()
    assert app.throttling.reads == [POLLED, POLLED]  # no read before the poll
    app.start(DIRECT)
    app.queue.messages.clear()
    app.tick(SUBMIT_CLAIM)
    assert app.throttling.reads == [POLLED, POLLED, DIRECT]  # the timer only sends a message
    app.work()
    assert app.throttling.reads == [POLLED, POLLED, DIRECT, DIRECT]


def test_waiting_for_a_pause_costs_no_write(app: FakeApp) -> None:
    app.throttling.pause(DIRECT, throttle(20))
    app.start(DIRECT)
    app.work()
    app.tick(SUBMIT_CLAIM)  # an unpaced timer only sends a message
    app.queue.messages.clear()
    app.throttling.pause(DIRECT, throttle(90))
    before = app.records.writes
    for _ in range(3):
        app.worker.advance_by_id(ID, has_minutes=True)
    assert (app.records.writes, app.direct.calls) == (before, [])


def test_generation_without_a_turn_waits_while_earlier_ones_wait(app: FakeApp) -> None:
    app.throttling.set_pace(DIRECT, Pace(10, None, NOON + seconds(15)))
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.records.writes) == ([], 1)
    app.worker.advance_by_id(ID, has_minutes=True, turn=ANY_TURN)
    assert app.direct.calls == [ID]


def test_dead_timer_keeps_no_generation_waiting(app: FakeApp) -> None:
    """Without a timer that renews the pace, workers begin what comes."""
    app.throttling.set_pace(DIRECT, Pace(10, None, NOON))
    app.start(DIRECT)
    app.work()
    assert app.direct.calls == [ID]


def test_first_calls_begin_without_the_timer_as_the_quota_allows() -> None:
    app = FakeApp(requests_per_minute={DIRECT: 12})
    for _ in range(5):
        app.start(DIRECT)
    app.work()
    assert len(app.direct.calls) == 2  # of ten seconds
    app.clock.now += seconds(5)
    for generation_id in list(app.records.active):
        app.worker.advance_by_id(generation_id, has_minutes=True)
    assert len(app.direct.calls) == 3


def test_deadline_holds_during_a_pause(app: FakeApp) -> None:
    app.start(DIRECT)
    app.throttling.pause(DIRECT, throttle(3_600))
    app.work()
    assert app.records.active[ID].generation.due <= NOON + seconds(600)
    app.tick(seconds(599))
    app.work()
    assert not app.read().status.is_terminal
    app.tick(seconds(1))
    app.work()
    error = app.read().error
    assert error
    assert error.code == "deadlineExceeded"
    assert error.message.endswith("No call had begun: the quota of the model was used up, or no worker was free.")
    assert app.direct.calls == []


def test_throttled_call_is_not_lost_when_the_pause_fails() -> None:
    app = FakeApp(repeat_lost_calls=False)
    app.start(DIRECT)
    app.direct.outcomes = [Throttled("status 429", 5), Answered((ImageBytes(b"0"),))]
    app.steps.fail_at, app.steps.failure = 5, StorageUnavailableError
    with pytest.raises(StorageUnavailableError):
        app.work()
    assert app.steps.taken[2:] == ["save", "generate", "save", "pause"]
    app.settle()
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 0)


def test_start_of_a_paced_model_asks_the_timer_for_a_turn_at_once(app: FakeApp) -> None:
    """Its record is hidden from the timer while it submits. It must not lose its place until the lease ends."""
    app.throttling.set_pace(POLLED, Pace(10, None, NOON + seconds(15)))
    started = app.start(POLLED)
    assert (app.polled.operations, started.due) == ([], NOON + seconds(1))
    assert app.records.active[started.id].generation.due == started.due
