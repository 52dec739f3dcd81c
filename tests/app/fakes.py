"""Fakes of what the state machine needs from outside: storage, image services, queue, clock. They run in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from imagegen.errors import ConflictError, ImageUnusableError
from imagegen.generation import Generation, GenerationRequest, KeyClaim, StoredImage, Versioned
from imagegen.lifecycle.live_slot import Mark
from imagegen.lifecycle.ports import ActiveEntry, End, Pace, Turn
from imagegen.upstream.protocol import (
    Accepted,
    Answered,
    Ended,
    ImageBytes,
    ImageSource,
    ImageUrl,
    Limits,
    Lost,
    Missing,
    Produced,
    Throttle,
    Throttled,
    Unavailable,
    Working,
)
from tests.app.generations import DIRECT, NOON, OPERATION, POLLED, seconds, stored

ANY = Limits(sizes=(), most_images=10, longest_prompt=32_000)
TWO_URLS = Produced((ImageUrl("https://images.example.com/0?sig=s3cret"), ImageUrl("https://images.example.com/1")))

type SubmitOutcome = Accepted | Ended | Throttled | Unavailable
type PollOutcome = Working | Produced | Ended | Missing | Unavailable
type CallOutcome = Answered | Ended | Throttled | Unavailable | Lost


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Steps:
    """Journal of all writes and requests, in order. One step can fail, before or after it has its effect."""

    taken: list[str] = field(default_factory=list[str])
    fail_at: int | None = None
    """Index in `taken` of the step that fails."""
    fail_after: bool = False
    failure: type[BaseException] = Crash

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

    def read_listed(self, entry: ActiveEntry) -> Versioned | None:
        return self.read_active(entry.id)

    def read_active(self, generation_id: str) -> Versioned | None:
        return self.active.get(generation_id)

    def save(self, generation: Generation, etag: str) -> str:
        def act() -> str:
            there = self.active.get(generation.id)
            if there and there.etag != etag and there.generation.to_json() == generation.to_json():
                return there.etag  # as BlobRecords: the SDK may have repeated this write
            if there is None or there.etag != etag:
                raise ConflictError(generation.id)
            return self._write(generation).etag

        return self.steps.take("save", act)

    def renew(self, generation: Generation, etag: str) -> str:
        return self.save(generation, etag)

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

    def read_end(self, generation_id: str) -> End | None:
        return End(self.done[generation_id]) if generation_id in self.done else None

    def read_key(self, key: str) -> KeyClaim | None:
        return self.keys.get(key)

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        return self.steps.take("claim_key", lambda: self.keys.setdefault(key, claim))

    def drop_key(self, key: str, generation_id: str) -> None:
        def act() -> None:
            claim = self.keys.get(key)
            if claim and claim.id == generation_id:
                del self.keys[key]

        self.steps.take("drop_key", act)

    def list_active(self) -> list[ActiveEntry]:
        return [
            ActiveEntry(
                found.id,
                one.etag,
                found.due,
                found.status,
                waits_for=found.request.model if found.waits else None,
                queued=found.queued,
                deadline=found.deadline,
            )
            for one in self.active.values()
            for found in [one.generation]
        ]

    def count_active(self) -> int:
        return len(self.active)

    def count_waiting(self, model: str) -> int:
        return sum(entry.waits_for == model for entry in self.list_active())

    def _write(self, generation: Generation) -> Versioned:
        self.writes += 1
        # Through JSON, as in a blob: a field that does not survive it must fail a test.
        written = Generation.model_validate_json(generation.model_dump_json(by_alias=True))
        self.active[generation.id] = Versioned(written, f"etag {self.writes}")
        return Versioned(generation, f"etag {self.writes}")


@dataclass
class FakeImages:
    steps: Steps
    blobs: set[str] = field(default_factory=set[str])
    unusable: dict[int, ImageUnusableError] = field(default_factory=dict[int, ImageUnusableError])
    """Errors by the index of the image."""
    decoded: list[bytes] = field(default_factory=list[bytes])
    """Content of the images that came in a response."""
    before_copy: Callable[[int], object] = lambda _: None
    """Runs at the start of each copy, with the index of the image."""

    def copy(self, source: ImageSource, generation_id: str, index: int, call: int = 0) -> StoredImage:
        name = f"{generation_id}/{index}" + (f"-{call}" if call else "")

        def act() -> StoredImage:
            assert isinstance(source, ImageUrl | ImageBytes)
            self.before_copy(index)
            if error := self.unusable.get(index):
                raise error
            if isinstance(source, ImageBytes):
                self.decoded.append(source.content)
            self.blobs.add(name)
            return stored(index) if call == 0 else stored(index).model_copy(update={"blob": name})

        return self.steps.take(f"copy {index}", act)

    def delete_all(self, generation_id: str, *, keep: Collection[str] = ()) -> None:
        def act() -> None:
            kept = {name for name in self.blobs if name in keep or f"{name}.png" in keep}
            self.blobs = kept | {name for name in self.blobs if not name.startswith(generation_id)}

        self.steps.take("delete_all", act)


@dataclass
class FakePolled:
    """Starts one operation for each id, as ``Operation-Id`` promises. Tests set the outcomes."""

    steps: Steps
    operations: list[str] = field(default_factory=list[str])
    submit_outcome: SubmitOutcome = field(default_factory=lambda: Accepted(OPERATION, None))
    poll_outcome: PollOutcome = TWO_URLS
    poll_times: list[datetime] = field(default_factory=list[datetime])
    limits: Limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"size": "1024x1024", "model": POLLED})

    def check(self) -> None:
        raise NotImplementedError

    def submit(self, generation: Generation) -> SubmitOutcome:
        def act() -> SubmitOutcome:
            if generation.id not in self.operations:
                self.operations.append(generation.id)
            return self.submit_outcome

        return self.steps.take(f"submit {generation.id}", act)

    def poll(self, generation: Generation, now: datetime) -> PollOutcome:
        assert generation.operation_location == OPERATION
        self.poll_times.append(now)
        return self.steps.take("poll", lambda: self.poll_outcome)


@dataclass
class FakeDirect:
    """Bills each call. Tests set the outcomes; the last one repeats."""

    steps: Steps
    calls: list[str] = field(default_factory=list[str])
    """Id of the generation, for each billed call."""
    outcomes: list[CallOutcome] = field(default_factory=lambda: [Answered((ImageBytes(b"0"), ImageBytes(b"1")))])
    during_call: Callable[[], object] = lambda: None
    limits: Limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"size": "auto", "model": DIRECT})

    def check(self) -> None:
        raise NotImplementedError

    def generate(self, generation: Generation) -> CallOutcome:
        def act() -> CallOutcome:
            self.calls.append(generation.id)
            self.during_call()
            return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]

        return self.steps.take("generate", act)


@dataclass
class FakeThrottling:
    """One throttle for each model."""

    steps: Steps
    paused: dict[str, Throttle] = field(default_factory=dict[str, Throttle])
    paces: dict[str, Pace] = field(default_factory=dict[str, Pace])
    reads: list[str] = field(default_factory=list[str])
    """Model of each read. A read is a storage transaction."""
    paces_written: int = 0

    def current(self, model: str) -> Throttle | None:
        self.reads.append(model)
        return self.paused.get(model)

    def pause(self, model: str, throttle: Throttle) -> None:
        def act() -> None:
            self.paused[model] = max(throttle, self.paused.get(model, throttle), key=lambda one: one.until)

        self.steps.take("pause", act)

    def pace(self, model: str) -> Pace | None:
        return self.paces.get(model)

    def set_pace(self, model: str, pace: Pace) -> None:
        def act() -> None:
            self.paces_written += 1
            self.paces[model] = pace

        self.steps.take("set pace", act)


@dataclass
class FakeQueue:
    steps: Steps
    messages: list[list[str]] = field(default_factory=list[list[str]])
    """Ids in each message that no worker has received yet."""
    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])
    """What the timer gave, by id."""
    sent: int = 0

    def send(self, ids: Sequence[str], turn: Turn | None = None) -> None:
        def act() -> None:
            self.messages.append(list(ids))
            if turn:
                self.turns |= dict.fromkeys(ids, turn)
            self.sent += 1

        self.steps.take("send", act)

    def count(self) -> int:
        return len(self.messages)


@dataclass
class FakeLiveSlot:
    """The mark of a live slot."""

    steps: Steps
    mark: Mark | None = None
    reads: int = 0
    before_replace: Callable[[], object] = lambda: None
    """What another instance does between the read and the write of a claim."""

    def read(self) -> Mark | None:
        self.reads += 1
        return self.mark

    def replace(self, found: Mark | None, until: datetime) -> str:
        before, self.before_replace = self.before_replace, lambda: None
        before()

        def act() -> str:
            if (self.mark and self.mark.etag) != (found and found.etag):
                raise ConflictError("slot")
            return self._write(until)

        return self.steps.take("claim slot", act)

    def write(self, until: datetime) -> str:
        return self.steps.take("write slot", lambda: self._write(until))

    def clear(self, etag: str) -> None:
        def act() -> None:
            if self.mark and self.mark.etag == etag:
                self._write(None)

        self.steps.take("clear slot", act)

    def _write(self, until: datetime | None) -> str:
        self.mark = Mark(f"etag {len(self.steps.taken)}", until)
        return self.mark.etag
