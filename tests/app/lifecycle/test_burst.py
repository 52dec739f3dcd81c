"""Bursts on small quotas, in simulated time: the real state machine, timer and workers, and a service with a quota."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from imagegen.errors import QuotaUsedUpError
from imagegen.generation import Generation, GenerationRequest
from imagegen.lifecycle.poller import Poller
from imagegen.upstream.protocol import Accepted, Answered, ImageBytes, Throttled
from tests.app.fakes import CallOutcome, Clock, FakeDirect, FakePolled, Steps, SubmitOutcome
from tests.app.generations import DIRECT, OPERATION, POLLED, seconds
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
        app.work()
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
        self.app.work()
