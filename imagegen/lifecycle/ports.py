"""What the state machine asks of the ports: plain protocols, so that its tests need neither Azure nor a clock."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from imagegen.generation import Generation, KeyClaim, StoredImage, Versioned
from imagegen.upstream.protocol import ImageSource, Upstream

type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""


class Records(Protocol):
    """Where records live."""

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new record under ``active/``; None when another one has this id."""
        ...

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done."""
        ...

    def read_active(self, generation_id: str) -> Versioned | None:
        """The record and its ETag while it needs work, else None."""
        ...

    def save(self, generation: Generation, etag: str) -> str:
        """Replace the record that has this ETag; returns the new one. Raises ConflictError."""
        ...

    def write_outcome(self, generation: Generation) -> Generation | None:
        """Write this outcome, unless there is one; returns the one that is true, None when it was deleted."""
        ...

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Remove the record from the active ones if nobody wrote it since."""
        ...

    def write_tombstone(self, generation_id: str) -> None:
        """Replace the outcome with a tombstone."""
        ...

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """What this idempotency key stands for: the claim that came first."""
        ...

    def drop_key(self, key: str, generation_id: str) -> None:
        """Forget an idempotency key, if it stands for this generation."""
        ...

    def count_active(self) -> int:
        """How many records need work, more or less."""
        ...


class Images(Protocol):
    """Where images go."""

    def copy(self, source: ImageSource, generation_id: str, index: int) -> StoredImage:
        """Fetch, check and write one image. Raises ImageUnusableError."""
        ...

    def delete_all(self, generation_id: str) -> None:
        """Remove whatever images of this generation there are."""
        ...


class Throttling(Protocol):
    """What everybody was told about quotas."""

    def paused_until(self, model: str) -> datetime | None:
        """When this deployment may be called again."""
        ...

    def pause(self, model: str, until: datetime) -> None:
        """Nobody calls before this time."""
        ...


class Queue(Protocol):
    """Who does the work that takes long."""

    def send(self, ids: Sequence[str]) -> None:
        """Ask a worker to take these. Raises StorageUnavailableError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All of it, and what the operator wants."""

    records: Records
    images: Images
    upstreams: Mapping[str, Upstream]
    """By the name of the deployment, the default first."""
    throttling: Throttling
    queue: Queue
    clock: Clock
    repeat_lost_calls: bool
    """Whether a call that may have been billed is made again when its answer was lost."""
    jitter: Callable[[], float] = random.random
    """A random number from 0 to 1."""
    sleep: Callable[[float], None] = time.sleep
