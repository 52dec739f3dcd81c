"""What the state machine needs from outside: protocols, so that its tests need neither Azure nor a real clock."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from imagegen.generation import Generation, KeyClaim, StoredImage, Versioned
from imagegen.lifecycle.pacing import Pace
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

    def was_deleted(self, generation_id: str) -> bool:
        """Whether a tombstone says that the generation was deleted."""
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

    def send(self, ids: Sequence[str], *, has_turn: bool = False) -> None:
        """Send one message that names these generations. Raises StorageUnavailableError.

        Parameters
        ----------
        has_turn
            Whether the timer gives them their turn.
        """
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
    upstreams: Mapping[str, Upstream]
    """By the name of the deployment, the default first."""
    throttling: Throttling
    queue: Queue
    clock: Clock
    repeat_lost_calls: bool
    """Whether a call whose response was lost is repeated. The repeated call may be billed twice."""
    requests_per_minute: Mapping[str, int] = field(default_factory=dict[str, int])
    """The quota of the models whose settings state it."""
    telemetry: Telemetry = field(default_factory=NoTelemetry)
    request_slot: Callable[[datetime], None] = lambda _: None
    """Have a slot run when work is due, instead of at the timer's next tick (`EarlyTicks.request`)."""
    jitter: Callable[[], float] = random.random
    """A random number from 0 to 1."""
    sleep: Callable[[float], None] = time.sleep
    new_claim: Callable[[], str] = secrets.token_hex
    """A random name for the claims of one worker."""
