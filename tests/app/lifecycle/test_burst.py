"""Bursts on small quotas, in simulated time: the real state machine, timer and workers, and a service with a quota."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from imagegen.errors import QuotaUsedUpError, StorageUnavailableError
from imagegen.generation import Generation, GenerationRequest
from imagegen.lifecycle.poller import Poller
from imagegen.lifecycle.ports import ANY_TURN, ActiveEntry, Turn
from imagegen.lifecycle.quotas import Quotas
from imagegen.upstream.protocol import Accepted, Answered, ImageBytes, Throttle, Throttled
from tests.app.fakes import CallOutcome, Clock, FakeDirect, FakePolled, Steps, SubmitOutcome
from tests.app.generations import DIRECT, NOON, OPERATION, POLLED, seconds
from tests.app.lifecycle.fake_app import FakeApp


@dataclass
class Quota:
    """Calls a minute, counted in windows of ten seconds and of a minute."""

    clock: Clock
    per_minute: int = 10
    accepted: deque[datetime] = field(default_factory=deque[datetime])
    refused: int = 0

    def refuse(self) -> Throttled | None:
        """Count a call. Return the 429, if the quota is used up."""
        now = self.clock.now
        waits: list[float] = []
        for window, most in ((10, -(-self.per_minute // 6)), (60, self.per_minute)):
            inside = [at for at in self.accepted if at > now - seconds(window)]
            if len(inside) >= most:
                waits.append((inside[-most] + seconds(window) - now).total_seconds())
        if waits:
            self.refused += 1
            return Throttled("status 429", max(waits))
        self.accepted.append(now)
        return None


@dataclass
class QuotaDirect(FakeDirect):
    quota: Quota = field(default_factory=lambda: Quota(Clock()))

    def generate(self, generation: Generation) -> CallOutcome:
        if refused := self.quota.refuse():
            return refused
        self.calls.append(generation.id)
        return Answered((ImageBytes(b"0"),))


@dataclass
class QuotaPolled(FakePolled):
    quota: Quota = field(default_factory=lambda: Quota(Clock()))

    def submit(self, generation: Generation) -> SubmitOutcome:
        if refused := self.quota.refuse():
            return refused
        self.operations.append(generation.id)
        return Accepted(OPERATION, 20)


class Burst:
    """The app with its timer, and a service with a quota. Between two passes of the timer the workers do their work."""

    def __init__(self, *, per_minute: int = 10, configured: bool = False) -> None:
        limits = {DIRECT: per_minute, POLLED: per_minute} if configured else {}
        self.app = FakeApp(most_active=10_000, requests_per_minute=limits)
        self.quota = Quota(self.app.clock, per_minute)
        self.direct = QuotaDirect(Steps(), quota=self.quota)
        self.polled = QuotaPolled(Steps(), quota=self.quota)
        self.app.configure({POLLED: self.polled, DIRECT: self.direct})
        self.started: list[Generation] = []
        self.refusals = 0
        self._ids = 0

    def start(self, count: int, *, model: str = DIRECT, timeout: float = 3_600) -> None:
        request = GenerationRequest(prompt="a lighthouse", model=model)
        for _ in range(count):
            try:
                found = self.app.generations.start(request, metadata={}, timeout=seconds(timeout))
            except QuotaUsedUpError:
                self.refusals += 1
            else:
                self.started.append(found)

    def slot(self, length: float = 59) -> None:
        app = self.app
        self._work()
        poller = Poller(
            records=app.records,
            advance=app.worker.advance,
            clock=app.clock,
            queue=app.queue,
            turns=app.pacer,
            threads=1,
            most=200,
            on_outage=app.worker.note_outage,
            sleep=self._sleep,
        )
        ends = app.clock.now + seconds(length)
        poller.run(ends)
        app.clock.now = max(app.clock.now, ends + seconds(1))

    def drain(self, limit: timedelta) -> None:
        """Run slot after slot until nothing is active."""
        end = self.app.clock.now + limit
        while self.app.records.active and self.app.clock.now < end:
            self.slot()
        assert not self.app.records.active

    def outcomes(self) -> Counter[str]:
        return Counter(found.status.value for found in self.app.records.done.values() if found)

    def _sleep(self, length: float) -> None:
        self.app.clock.sleep(length)
        self._work()

    def _work(self) -> None:
        messages = self.app.queue.messages
        while messages:
            message = messages[0]
            try:
                self.app.work()
            except StorageUnavailableError:
                messages.append(message)  # as the host does

    @property
    def used(self) -> float:
        """Part of the quota that was used, from noon to the last call."""
        minutes = (self.quota.accepted[-1] - NOON).total_seconds() / 60
        return len(self.quota.accepted) / (self.quota.per_minute * minutes)

    @property
    def refused(self) -> float:
        """Part of the calls that were answered 429."""
        return self.quota.refused / (self.quota.refused + len(self.quota.accepted))


@pytest.mark.parametrize("model", [DIRECT, POLLED])
@pytest.mark.parametrize("configured", [True, False])
def test_burst_on_a_small_quota_succeeds_at_the_pace_of_the_quota(model: str, configured: bool) -> None:
    burst = Burst(configured=configured)
    burst.start(400, model=model, timeout=86_400)
    burst.drain(timedelta(hours=2))

    assert burst.outcomes() == {"succeeded": 400}
    assert burst.used >= 0.9
    assert burst.refused <= 0.1
    assert Counter(burst.direct.calls or burst.polled.operations).most_common(1)[0][1] == 1


@pytest.mark.parametrize("configured", [True, False])
def test_waiting_costs_no_write_and_no_message(configured: bool) -> None:
    burst = Burst(configured=configured)
    writes, messages = Counter[str](), Counter[str]()
    save, send = burst.app.records.save, burst.app.queue.send

    def counted_save(generation: Generation, etag: str) -> str:
        writes[generation.id] += 1
        return save(generation, etag)

    def counted_send(ids: Sequence[str], turn: Turn | None = None) -> None:
        messages.update(ids)
        send(ids, turn)

    burst.app.records.save, burst.app.queue.send = counted_save, counted_send  # pyright: ignore[reportAttributeAccessIssue]
    burst.start(200, timeout=86_400)
    burst.drain(timedelta(hours=1))

    assert max(writes.values()) + 3 <= 6  # and: created, written to done/, dropped from active/
    assert max(messages.values()) <= 3
    assert burst.app.throttling.paces_written <= 9 * 21  # a minute


def test_oldest_generations_begin_first() -> None:
    burst = Burst(configured=True)
    for _ in range(5):
        burst.start(20, timeout=86_400)
        burst.slot()
    burst.drain(timedelta(hours=1))
    order = [burst.started.index(next(one for one in burst.started if one.id == done)) for done in burst.direct.calls]
    late = [place - number for number, place in enumerate(order)]
    assert max(map(abs, late)) <= 20  # the first calls of a burst begin before the timer knows it


def test_start_that_cannot_begin_in_time_is_refused_with_an_honest_retry_after() -> None:
    burst = Burst(configured=True)
    burst.start(700, timeout=3_600)
    assert 530 <= len(burst.started) <= 545  # 54 minutes at ten a minute
    with pytest.raises(QuotaUsedUpError) as refused:
        burst.app.start(DIRECT)

    _run_until(burst, burst.app.clock.now + seconds(refused.value.seconds))
    before = len(burst.started)
    burst.start(1, timeout=600)
    assert len(burst.started) == before + 1
    burst.drain(timedelta(hours=2))
    assert burst.outcomes() == {"succeeded": len(burst.started)}


def _run_until(burst: Burst, end: datetime) -> None:
    while burst.app.clock.now < end:
        burst.slot()


@pytest.mark.parametrize("model", [DIRECT, POLLED])
def test_start_that_a_long_pause_outlasts_is_refused(model: str) -> None:
    burst = Burst()
    burst.app.throttling.pause(model, Throttle(NOON + seconds(120), "status 429"))
    burst.start(1, model=model, timeout=150)
    with pytest.raises(QuotaUsedUpError) as refused:
        burst.app.generations.start(GenerationRequest(prompt="b", model=model), metadata={}, timeout=seconds(30))
    assert refused.value.seconds == 120 - 27
    assert len(burst.app.records.active) == 1


def test_generation_that_waits_ends_at_its_deadline() -> None:
    burst = Burst()
    burst.start(1, timeout=60)
    burst.app.throttling.pause(DIRECT, Throttle(NOON + seconds(600), "status 429"))
    burst.slot()
    burst.slot()
    assert burst.outcomes() == {"failed": 1}
    assert burst.direct.calls == []


def test_long_pause_ends_the_slot() -> None:
    """A listing each second for an hour would find nothing."""
    burst = Burst()
    burst.app.throttling.pause(DIRECT, Throttle(NOON + seconds(3_600), "status 429"))
    burst.start(1, timeout=7_200)
    listings = 0
    list_active = burst.app.records.list_active

    def counted() -> list[ActiveEntry]:
        nonlocal listings
        listings += 1
        return list_active()

    burst.app.records.list_active = counted
    burst.slot()
    assert listings <= 2
    burst.drain(timedelta(hours=2))
    assert burst.outcomes() == {"succeeded": 1}


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_no_message_of_a_turn_is_lost_for_long_when_storage_fails(step: int) -> None:
    burst = Burst(configured=True)
    burst.start(10, timeout=3_600)
    burst.app.steps.fail_at = len(burst.app.steps.taken) + step
    burst.app.steps.failure = StorageUnavailableError
    _run_until(burst, NOON + seconds(600))
    assert burst.outcomes() == {"succeeded": 10}


def test_busy_workers_get_one_message_for_each_turn() -> None:
    burst = Burst(configured=True)
    burst.start(3, timeout=3_600)
    app = burst.app
    for one in list(app.records.active.values()):  # as after a 429: no message is on its way
        app.records.save(one.generation.changed(queued=False, due=NOON), one.etag)
    app.queue.messages.clear()
    burst._work = lambda: None  # type: ignore[method-assign]
    burst.slot()
    assert sorted(Counter(one for message in app.queue.messages for one in message).values()) == [1, 1, 1]


def test_message_with_a_turn_is_taken_before_the_due_of_its_record() -> None:
    """The clock of the worker may be behind that of the timer."""
    app = FakeApp()
    app.start(DIRECT)
    app.queue.messages.clear()
    [one] = app.records.active.values()
    app.records.save(one.generation.changed(queued=False, due=NOON + seconds(2)), one.etag)
    app.throttling.pause(DIRECT, Throttle(NOON + seconds(2), "status 429"))
    app.worker.advance_by_id(one.generation.id, has_minutes=True, turn=ANY_TURN)
    assert len(app.direct.calls) == 1


def test_pace_of_a_removed_model_is_unknown() -> None:
    quotas = Quotas(FakeApp().worker._ports)  # pyright: ignore[reportPrivateUsage]
    assert (quotas.pace("removed"), quotas.current("removed")) == (None, None)
