"""The app in memory: the real state machine with fakes of storage and of the image services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from imagegen.generation import Generation, GenerationRequest, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.claims import ClaimKeeper
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.pacing import Pacer
from imagegen.lifecycle.ports import Member, Ports, Turn
from imagegen.lifecycle.worker import Worker
from imagegen.telemetry import NoTelemetry, Telemetry
from imagegen.upstream.protocol import Upstream
from tests.app.fakes import Clock, FakeDirect, FakeImages, FakePolled, FakeQueue, FakeRecords, FakeThrottling, Steps
from tests.app.generations import DIRECT, ID, POLLED, PROMPT, seconds

KEY = IdempotencyKey("idempotency-key", "order-4711")


class FakeApp:
    """The app with two models. It keeps its state in `records`, so after a `Crash` it continues as a new process."""

    def __init__(
        self,
        *,
        most_active: int = 100,
        repeat_lost_calls: bool = True,
        requests_per_minute: Mapping[str, int] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.steps = Steps()
        self.clock = Clock()
        self.records = FakeRecords(self.steps)
        self.images = FakeImages(self.steps)
        self.polled = FakePolled(self.steps)
        self.direct = FakeDirect(self.steps)
        self.throttling = FakeThrottling(self.steps)
        self.queue = FakeQueue(self.steps)
        self.jitter = 0.0
        self.request_slot: Callable[[datetime], None] = lambda _: None
        self.keeper = ClaimKeeper(
            self.records,
            self.clock,
            on_outage=lambda: self.worker.note_outage(),
            monotonic=lambda: self.clock.now.timestamp(),
            start=lambda _: None,  # `pass_time` renews instead of a thread
        )
        self._ids = 0
        self._most_active = most_active
        self._requests_per_minute = requests_per_minute or {}
        self._ports = Ports(
            records=self.records,
            images=self.images,
            models={},
            throttling=self.throttling,
            queue=self.queue,
            repeat_lost_calls=repeat_lost_calls,
            telemetry=telemetry or NoTelemetry(),
            clock=self.clock,
            jitter=lambda: self.jitter,
            sleep=self.pass_time,
            request_slot=lambda due: self.request_slot(due),
        )
        self.configure({POLLED: self.polled, DIRECT: self.direct})

    def configure(self, upstreams: Mapping[str, Upstream | Sequence[Member]]) -> None:
        """Restart the app with these models. Several members are a pool."""
        ports = replace(self._ports, models={name: self._members(name, one) for name, one in upstreams.items()})
        self.pacer = Pacer(ports, send=self._send_turn)
        self.worker = Worker(ports, self.keeper)
        self.generations = Generations(ports, self.worker, new_id=self._new_id, most_active=self._most_active)

    def _members(self, name: str, upstream: Upstream | Sequence[Member]) -> Sequence[Member]:
        if isinstance(upstream, Sequence):
            return upstream
        return [Member(None, name, upstream, self._requests_per_minute.get(name))]

    def _send_turn(self, model: str, generation_id: str, turn: Turn) -> bool:
        if model == DIRECT:
            self.queue.send([generation_id], turn)
        return model == DIRECT

    def _new_id(self, _: datetime) -> str:
        self._ids += 1
        return f"{ID[:-1]}{self._ids}"

    def start(
        self,
        model: str | None = None,
        *,
        key: IdempotencyKey | None = None,
        prompt: str = PROMPT,
        traceparent: str | None = None,
    ) -> Generation:
        request = GenerationRequest(prompt=prompt, model=model)
        return self.generations.start(
            request, metadata={"order": "1"}, timeout=seconds(600), key=key, traceparent=traceparent
        )

    def write_record(self, generation: Generation) -> Versioned:
        """Write an active record. It is not a step."""
        versioned = self.records.create(generation)
        assert versioned is not None
        self.steps.taken.clear()
        return versioned

    def read(self, generation_id: str = ID) -> Generation:
        """Read a record that must exist, active or done."""
        found = self.records.read(generation_id)
        assert found is not None
        return found

    def tick(self, after: timedelta = timedelta()) -> None:
        """Move the clock, then advance each due record, as the timer does."""
        self.clock.now += after
        for current in list(self.records.active.values()):
            if current.generation.due <= self.clock.now:
                self.worker.advance(current)

    def work(self) -> None:
        """Receive all queue messages, as a worker with minutes does."""
        while self.queue.messages:
            for generation_id in self.queue.messages.pop(0):
                turn = self.queue.turns.get(generation_id)
                self.worker.advance_by_id(generation_id, has_minutes=True, turn=turn)

    def pass_time(self, length: float) -> None:
        """Let time pass for a living process: its claims are renewed when they are due."""
        end = self.clock.now + seconds(length)
        while self.clock.now < end:
            wait = self.keeper.renew_due()
            self.clock.now = end if wait is None else min(end, self.clock.now + seconds(wait))
        self.keeper.renew_due()

    def settle(self) -> None:
        """Run workers and timer until no generation is active, for an hour at most."""
        for _ in range(60):
            self.work()
            if not self.records.active:
                return
            self.tick(seconds(60))
        pytest.fail(f"still active: {self.records.active}")
