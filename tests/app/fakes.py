"""An app in memory: the real state machine over plain objects, a clock that tests move, and a process that can die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from imagegen.errors import ConflictError, ImageUnusableError
from imagegen.generation import Generation, GenerationRequest, KeyClaim, StoredImage, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.ports import ActiveEntry, Ports
from imagegen.lifecycle.worker import Worker
from imagegen.upstream.protocol import (
    Accepted,
    Answered,
    Ended,
    ImageBytes,
    ImageSource,
    ImageUrl,
    Limits,
    Lost,
    Produced,
    Throttled,
    Unavailable,
    Working,
)
from tests.app.generations import ID, NOON, OPERATION, PROMPT, seconds, stored

TWO = Produced((ImageUrl("https://images.example.com/0?sig=s3cret"), ImageUrl("https://images.example.com/1")))
ANY = Limits(sizes=(), most_images=10, longest_prompt=32_000)

type Outcome = Answered | Ended | Throttled | Unavailable | Lost


class Death(BaseException):
    """The process ends here."""


@dataclass
class Steps:
    """Everything that reaches the app outside, in order; a step can fail before it did its work, or after it."""

    taken: list[str] = field(default_factory=list[str])
    fail_at: int | None = None
    fail_after: bool = False
    failure: type[BaseException] = Death

    def take[T](self, name: str, act: Callable[[], T]) -> T:
        self.taken.append(name)
        failing = len(self.taken) - 1 == self.fail_at
        if failing and not self.fail_after:
            raise self.failure
        result = act()
        if failing:
            raise self.failure
        return result


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, length: float) -> None:
        self.now += seconds(length)


@dataclass
class FakeRecords:
    steps: Steps
    active: dict[str, Versioned] = field(default_factory=dict[str, Versioned])
    done: dict[str, Generation | None] = field(default_factory=dict[str, Generation | None])
    """None: a tombstone."""
    keys: dict[str, KeyClaim] = field(default_factory=dict[str, KeyClaim])
    writes: int = 0

    def create(self, generation: Generation) -> Versioned | None:
        def act() -> Versioned | None:
            if generation.id in self.active:
                return None
            return self._write(generation)

        return self.steps.take("create", act)

    def read(self, generation_id: str) -> Generation | None:
        if generation_id in self.done:
            return self.done[generation_id]
        found = self.active.get(generation_id)
        return found.generation if found else None

    def read_active(self, generation_id: str) -> Versioned | None:
        return self.active.get(generation_id)

    def save(self, generation: Generation, etag: str) -> str:
        def act() -> str:
            there = self.active.get(generation.id)
            if there is None or there.etag != etag:
                raise ConflictError(generation.id)
            return self._write(generation).etag

        return self.steps.take("save", act)

    def write_outcome(self, generation: Generation) -> Generation | None:
        return self.steps.take("write_outcome", lambda: self.done.setdefault(generation.id, generation))

    def drop_active(self, generation_id: str, etag: str) -> None:
        def act() -> None:
            there = self.active.get(generation_id)
            if there and there.etag == etag:
                del self.active[generation_id]

        self.steps.take("drop_active", act)

    def write_tombstone(self, generation_id: str) -> None:
        self.steps.take("write_tombstone", lambda: self.done.update({generation_id: None}))

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        return self.steps.take("claim_key", lambda: self.keys.setdefault(key, claim))

    def drop_key(self, key: str, generation_id: str) -> None:
        self.steps.take("drop_key", lambda: self.keys.pop(key, None))

    def list_active(self) -> list[ActiveEntry]:
        return [
            ActiveEntry(one.generation.id, one.etag, one.generation.due, one.generation.status)
            for one in self.active.values()
        ]

    def count_active(self) -> int:
        return len(self.active)

    def _write(self, generation: Generation) -> Versioned:
        self.writes += 1
        # Through its JSON, as a blob goes: what cannot be written, or is not read back, shows.
        written = Generation.model_validate_json(generation.model_dump_json(by_alias=True))
        self.active[generation.id] = Versioned(written, f"etag {self.writes}")
        return Versioned(generation, f"etag {self.writes}")


@dataclass
class FakeImages:
    steps: Steps
    blobs: set[str] = field(default_factory=set[str])
    unusable: dict[int, ImageUnusableError] = field(default_factory=dict[int, ImageUnusableError])
    copied: list[bytes] = field(default_factory=list[bytes])
    """Of images that came in the answer."""

    def copy(self, source: ImageSource, generation_id: str, index: int) -> StoredImage:
        def act() -> StoredImage:
            assert isinstance(source, ImageUrl | ImageBytes)
            if error := self.unusable.get(index):
                raise error
            if isinstance(source, ImageBytes):
                self.copied.append(source.content)
            self.blobs.add(f"{generation_id}/{index}")
            return stored(index)

        return self.steps.take(f"copy {index}", act)

    def delete_all(self, generation_id: str) -> None:
        def act() -> None:
            self.blobs = {name for name in self.blobs if not name.startswith(generation_id)}

        self.steps.take("delete_all", act)


@dataclass
class FakePolled:
    """Takes a request once for each id, as Operation-Id promises, and answers polls as it is told."""

    steps: Steps
    operations: list[str] = field(default_factory=list[str])
    submitted: Accepted | Ended | Throttled | Unavailable = field(default_factory=lambda: Accepted(OPERATION, None))
    polled: Working | Produced | Ended | Unavailable = TWO
    limits: Limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"size": "1024x1024", "model": "dalle"})

    def check(self) -> str | None:
        raise NotImplementedError

    def submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        def act() -> Accepted | Ended | Throttled | Unavailable:
            if generation.id not in self.operations:
                self.operations.append(generation.id)
            return self.submitted

        return self.steps.take(f"submit {generation.id}", act)

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Unavailable:
        assert generation.operation_location == OPERATION
        return self.steps.take("poll", lambda: self.polled)


@dataclass
class FakeDirect:
    """Bills each call, and answers as it is told: the last answer again and again."""

    steps: Steps
    calls: list[str] = field(default_factory=list[str])
    answers: list[Outcome] = field(default_factory=lambda: [Answered((ImageBytes(b"0"), ImageBytes(b"1")))])
    limits: Limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"size": "auto", "model": "gpt"})

    def check(self) -> str | None:
        raise NotImplementedError

    def generate(self, generation: Generation) -> Outcome:
        def act() -> Outcome:
            self.calls.append(generation.id)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

        return self.steps.take("generate", act)


@dataclass
class FakeThrottling:
    """One throttle for each model."""

    paused: dict[str, datetime] = field(default_factory=dict[str, datetime])

    def paused_until(self, model: str) -> datetime | None:
        return self.paused.get(model)

    def pause(self, model: str, until: datetime) -> None:
        self.paused[model] = max(until, self.paused.get(model, until))


@dataclass
class FakeQueue:
    """Messages that nobody has taken yet."""

    steps: Steps
    messages: list[list[str]] = field(default_factory=list[list[str]])

    def send(self, ids: Sequence[str]) -> None:
        self.steps.take("send", lambda: self.messages.append(list(ids)))


class FakeApp:
    """One app. After a Death it goes on as another process would: with what was written, and nothing else."""

    def __init__(self, *, most_active: int = 100, repeat_lost_calls: bool = True) -> None:
        self.steps = Steps()
        self.clock = Clock()
        self.records = FakeRecords(self.steps)
        self.images = FakeImages(self.steps)
        self.upstream = FakePolled(self.steps)
        self.direct = FakeDirect(self.steps)
        self.throttling = FakeThrottling()
        self.queue = FakeQueue(self.steps)
        self.jitter = 0.0
        self.ids = 0
        self.ports = Ports(
            records=self.records,
            images=self.images,
            upstreams={"dalle": self.upstream, "gpt": self.direct},
            throttling=self.throttling,
            queue=self.queue,
            repeat_lost_calls=repeat_lost_calls,
            clock=self.clock,
            jitter=lambda: self.jitter,
            sleep=self.clock.sleep,
        )
        self.worker = Worker(self.ports)
        self.generations = Generations(self.ports, self.worker, new_id=self._new_id, most_active=most_active)

    def _new_id(self, _: datetime) -> str:
        self.ids += 1
        return f"{ID[:-1]}{self.ids}"

    def start(self, *, key: IdempotencyKey | None = None, prompt: str = PROMPT, model: str | None = None) -> Generation:
        request = GenerationRequest(prompt=prompt, model=model)
        return self.generations.start(request, metadata={"order": "1"}, timeout=seconds(600), key=key)

    def given(self, generation: Generation) -> Versioned:
        """A record that was written before."""
        versioned = self.records.create(generation)
        assert versioned is not None
        self.steps.taken.clear()
        return versioned

    def tick(self, after: timedelta = timedelta()) -> None:
        """What the timer does, so much later: every record that is due."""
        self.clock.now += after
        for current in list(self.records.active.values()):
            if current.generation.due <= self.clock.now:
                self.worker.advance(current)

    def settle(self) -> None:
        """Tick until nothing is left. Every wait in here is bounded, and so is this."""
        for _ in range(20):
            if not self.records.active:
                return
            self.tick(seconds(60))
        pytest.fail(f"still active: {self.records.active}")
