"""``Prefer: wait``: the request advances the generation, in parallel with the timer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imagegen.generation import Status, Versioned
from imagegen.upstream.protocol import Unavailable, Working
from tests.app.generations import DIRECT, ID, NOON, POLLED, running, seconds
from tests.app.lifecycle.fake_app import FakeApp


def test_wait_returns_at_the_end(app: FakeApp) -> None:
    started = app.start()
    finished = app.generations.wait(started, NOON + seconds(50))
    assert finished.status is Status.SUCCEEDED
    assert app.clock.now == started.due  # without a delay


@pytest.mark.parametrize("polled", [Working(None), Working(30), Unavailable("500")])
def test_wait_ends_on_time_and_polls_at_most_once_a_second(app: FakeApp, polled: Working | Unavailable) -> None:
    app.polled.poll_outcome = polled
    assert app.generations.wait(app.start(), NOON + seconds(20)).status is Status.RUNNING
    assert app.clock.now == NOON + seconds(20)
    assert app.steps.taken.count("poll") <= 20


def test_no_work_begins_at_the_end_of_a_wait(app: FakeApp) -> None:
    """A copy may take longer than the caller stays."""
    started = app.start()
    assert started.due < NOON + seconds(9)
    app.generations.wait(started, NOON + seconds(9))
    assert "poll" not in app.steps.taken


def test_wait_leaves_the_work_to_another_worker(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    started = app.start()
    app.clock.now = started.due
    stale = app.records.active[ID]
    claimed = running(due=NOON + seconds(70), copy_attempts=1)
    app.records.save(claimed, stale.etag)
    monkeypatch.setattr(app.records, "read_active", _first(stale, app.records.read_active))
    app.steps.taken.clear()
    assert app.generations.wait(started, NOON + seconds(20)).status is Status.RUNNING
    assert app.steps.taken == ["poll", "save"]  # one try, whose write loses; then it only reads


def test_wait_queues_a_due_call_and_does_not_make_it(app: FakeApp) -> None:
    started = app.start(DIRECT)
    app.queue.messages.clear()  # the message is lost
    app.generations.wait(started, started.due + seconds(20))
    assert (app.direct.calls, app.queue.messages) == ([], [[ID]])


def _first(stale: Versioned, read: Callable[[str], Versioned | None]) -> Callable[[str], Versioned | None]:
    """Return the stale record once, then what `read` returns."""
    left = [stale]
    return lambda generation_id: left.pop() if left else read(generation_id)


class AppWithTimer(FakeApp):
    """Its timer gives a turn to all generations that wait, five seconds after noon."""

    def pass_time(self, length: float) -> None:
        super().pass_time(length)
        for current in list(self.records.active.values()):
            if self.clock.now >= NOON + seconds(5) and current.generation.waits:
                self.worker.advance(current)


def test_wait_sees_that_the_timer_gave_a_turn() -> None:
    app = AppWithTimer(requests_per_minute={POLLED: 2})
    app.start()  # it uses the quota
    finished = app.generations.wait(app.start(), NOON + seconds(25))
    assert len(app.polled.operations) == 2
    assert finished.status is Status.SUCCEEDED
