"""What the state machine needs from outside: protocols, so that its tests need neither Azure nor a real clock."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from imagegen.generation import Generation, KeyClaim, StoredImage, Versioned
from imagegen.telemetry import NoTelemetry, Telemetry
from imagegen.upstream.protocol import ImageSource, Throttle, Upstream

type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""


@dataclass(frozen=True, slots=True)
class ActiveEntry:
    """An active record, as a listing shows it."""

    id: str
    etag: str
    due: datetime
    status: str
    waits_for: str | None = None
    """The model of a generation that waits for its submit or call."""
    queued: bool = False
    """Whether a queue message was sent for it."""
    deadline: datetime | None = None
    """Of a generation that waits."""


@dataclass(frozen=True, slots=True)
class End:
    """What stands in ``done/``."""

    outcome: Generation | None
    """None: a tombstone, the generation was deleted."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The timer lets a generation begin."""

    address: str | None = None
    """The member of a pool that takes its call. None: any, or the only deployment."""


ANY_TURN: Final = Turn()


@dataclass(frozen=True, slots=True)
class Member:
    """One of the deployments of a model."""

    address: str | None
    """What records call it, in a pool. None: it is the only one."""
    key: str
    """What its throttle is stored under."""
    upstream: Upstream
    requests_per_minute: int | None = None
    """Its quota. None: learned from 429s."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a deployment takes calls, as all instances see it."""

    per_minute: float
    ceiling: float | None
    """The rate at the last 429."""
    until: datetime
    """Until then, only generations that the timer gives a turn may begin."""

    def seconds_for(self, calls: int) -> float:
        """Time in which so many calls begin."""
        return 60 * calls / self.per_minute


class Records(Protocol):
    """The repository of generations."""

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new active record. None when another record has this id."""
        ...

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done. None when there is none, or a tombstone."""
        ...

    def read_active(self, generation_id: str) -> Versioned | None:
        """The active record and its ETag."""
        ...

    def list_active(self) -> list[ActiveEntry]:
        """All active records, oldest first."""
        ...

    def save(self, generation: Generation, etag: str) -> str:
        """Replace the active record that has this ETag. Return the new ETag. Raises ConflictError."""
        ...

    def renew(self, generation: Generation, etag: str) -> str:
        """As `save`, but it fails within seconds when storage does not answer."""
        ...

    def write_outcome(self, generation: Generation) -> Generation | None:
        """Write the outcome unless there is one. Return the outcome that won; None when it was deleted."""
        ...

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Delete the active record if it still has this ETag."""
        ...

    def write_tombstone(self, generation_id: str) -> None:
        """Replace the outcome with a tombstone."""
        ...

    def read_end(self, generation_id: str) -> End | None:
        """How the generation ended. None: it has not."""
        ...

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """Claim an idempotency key. Return the first claim of this key."""
        ...

    def read_key(self, key: str) -> KeyClaim | None:
        """The claim of an idempotency key."""
        ...

    def drop_key(self, key: str, generation_id: str) -> None:
        """Delete an idempotency key, if it names this generation."""
        ...

    def count_active(self) -> int:
        """Number of active records, approximately."""
        ...

    def count_waiting(self, model: str) -> int:
        """Number of generations that wait for a submit or a call of this model, approximately."""
        ...


class Images(Protocol):
    """The store of images."""

    def copy(self, source: ImageSource, generation_id: str, index: int, call: int = 0) -> StoredImage:
        """Fetch, check and write one image. Raises ImageUnusableError.

        Parameters
        ----------
        call
            Number of the call that made the image. The images of two calls have different names.
        """
        ...

    def delete_all(self, generation_id: str, *, keep: Collection[str] = ()) -> None:
        """Delete the images of this generation, except those with these names."""
        ...


class Throttling(Protocol):
    """The throttles of the deployments, shared by all instances."""

    def current(self, model: str) -> Throttle | None:
        """The deployment's throttle, which may have ended. None when there is none."""
        ...

    def pause(self, model: str, throttle: Throttle) -> None:
        """Tell all instances not to call the deployment before the end of this throttle."""
        ...

    def pace(self, model: str) -> Pace | None:
        """How fast the deployment took calls when generations last waited for it."""
        ...

    def set_pace(self, model: str, pace: Pace) -> None:
        """Tell all instances how fast the deployment takes calls."""
        ...


class Queue(Protocol):
    """The queue of work that takes minutes."""

    def send(self, ids: Sequence[str], turn: Turn | None = None) -> None:
        """Send one message that names these generations, and may give them their turn. Raises
        StorageUnavailableError."""
        ...


class CountedQueue(Queue, Protocol):
    """The queue of work that the timer passes on."""

    def count(self) -> int:
        """Messages that no worker has finished, approximately. Raises StorageUnavailableError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All ports, and whether lost calls may be repeated."""

    records: Records
    images: Images
    models: Mapping[str, Sequence[Member]]
    """The deployments of each model, by its name, the default first. Several are a pool."""
    throttling: Throttling
    queue: Queue
    clock: Clock
    repeat_lost_calls: bool
    """Whether a call whose response was lost is repeated. The repeated call may be billed twice."""
    telemetry: Telemetry = field(default_factory=NoTelemetry)
    request_slot: Callable[[datetime], None] = lambda _: None
    """Have a slot run when work is due, instead of at the timer's next tick (`EarlyTicks.request`)."""
    jitter: Callable[[], float] = random.random
    """A random number from 0 to 1."""
    sleep: Callable[[float], None] = time.sleep
    new_claim: Callable[[], str] = secrets.token_hex
    """A random name for the claims of one worker."""

    def members(self, model: str | None) -> Sequence[Member]:
        """The deployments of a model; empty if the settings do not name it."""
        return self.models.get(model or "", ())

    def working_members(self, model: str | None) -> Sequence[Member]:
        """The deployments of a model, without those of a pool that refuse the app. All, if all of them do."""
        members, now = self.members(model), self.clock()
        if len(members) < 2:
            return members
        throttles = [self.throttling.current(member.key) for member in members]
        refuses = [one is not None and one.is_refusal and one.until > now for one in throttles]
        return [member for member, no in zip(members, refuses, strict=True) if not no] or members

    def throttle(self, member: Member) -> Throttle | None:
        """What keeps the calls of a working member waiting. A refusal does not: if all members refuse the app, each
        generation is tried, as with a single deployment."""
        throttle = self.throttling.current(member.key)
        return None if throttle and throttle.is_refusal else throttle

    def upstream(self, model: str | None) -> Upstream | None:
        """What the deployments of a model have in common: the API and its limits."""
        members = self.members(model)
        return members[0].upstream if members else None

    def member(self, generation: Generation) -> Member | None:
        """The deployment that takes the call of this generation. None if the settings do not name its model."""
        members = self.members(generation.request.model)
        return next((one for one in members if one.address == generation.deployment), members[0] if members else None)

    def key_of(self, model: str | None, address: str | None) -> str:
        """What the throttle of a deployment is stored under."""
        return next((member.key for member in self.members(model) if member.address == address), model or "")
