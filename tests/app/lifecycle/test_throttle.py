"""Throttles: one 429 pauses the model for all workers, and its generations wait at no cost."""

from __future__ import annotations

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Status
from imagegen.lifecycle.generations import SUBMIT_CLAIM
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


def test_throttle_is_read_only_before_a_submit_or_a_call(app: FakeApp) -> None:
    app.start()
    app.settle()
    assert app.throttling.reads == [POLLED]  # no read before the poll
    app.start(DIRECT)
    app.queue.messages.clear()
    app.tick(SUBMIT_CLAIM)
    assert app.throttling.reads == [POLLED]  # the timer only sends a message
    app.work()
    assert app.throttling.reads == [POLLED, DIRECT]


def test_generations_resume_spread_after_a_pause(app: FakeApp) -> None:
    app.throttling.pause(DIRECT, throttle(20))
    dues: list[float] = []
    for app.jitter in (0.0, 0.25, 0.5, 1.0):
        started = app.start(DIRECT)
        app.work()
        dues.append((app.records.active[started.id].generation.due - NOON).total_seconds())
    assert dues == [20, 25, 30, 40]  # over a time as long as the pause
    assert app.direct.calls == []


def test_deadline_holds_during_a_pause(app: FakeApp) -> None:
    app.throttling.pause(DIRECT, throttle(3_600))
    app.start(DIRECT)
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
    assert error.message.endswith("The last problem: throttled by the image service: status 429.")
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
