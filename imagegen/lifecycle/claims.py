"""Claims that live as long as their worker: one background thread renews them while a call runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, Protocol

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.events import log_event
from imagegen.generation import Generation, Versioned
from imagegen.lifecycle import changes

RENEW_SECONDS: Final = 30.0
"""Time from one renewal to the next. A shorter call costs no write."""

_RETRY_SECONDS: Final = 5.0
"""The same after a failure of storage."""


class SaveRecord(Protocol):
    """Replace the active record that has this ETag. Return the new ETag. Raises ConflictError."""

    def __call__(self, generation: Generation, etag: str, /) -> str: ...


class KeptClaim:
    """A claimed record, whose ETag changes with each renewal."""

    def __init__(self, claimed: Versioned, renew_at: float) -> None:
        self._claimed = claimed
        self._lock = threading.Lock()
        self._released = False
        self.renew_at = renew_at

    def release(self) -> Versioned:
        """End the renewals. Return the record with its current ETag."""
        with self._lock:
            self._released = True
            return self._claimed

    def renew(self, save: SaveRecord, clock: changes.Clock, monotonic: Callable[[], float]) -> None:
        with self._lock:
            if self._released:
                return
            extended = changes.claim_renewed(self._claimed.generation, clock())
            try:
                self._claimed = Versioned(extended, save(extended, self._claimed.etag))
            except StorageUnavailableError:
                self.renew_at = monotonic() + _RETRY_SECONDS
            except ConflictError:
                # Another worker took over, or the record is gone. The images of this call still count if they come
                # first: the outcome is written where no outcome is.
                self._released = True
                log_event("generation.claim_lost", level=logging.WARNING, id=extended.id)
            else:
                self.renew_at = monotonic() + RENEW_SECONDS


class ClaimKeeper:
    """Renews the claims of this process, on one thread that exists while there is a claim to keep. Thread-safe."""

    def __init__(
        self, save: SaveRecord, clock: changes.Clock, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._save = save
        self._clock = clock
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._kept: set[KeptClaim] = set()
        self._running = False

    @contextmanager
    def keep(self, claimed: Versioned) -> Generator[KeptClaim]:
        """Renew this claim until it is released or the block ends."""
        kept = KeptClaim(claimed, self._monotonic() + RENEW_SECONDS)
        with self._changed:
            self._kept.add(kept)
            if not self._running:
                self._running = True
                threading.Thread(target=self._renew_until_none, name="claims", daemon=True).start()
        try:
            yield kept
        finally:
            kept.release()
            with self._changed:
                self._kept.discard(kept)
                self._changed.notify()

    def renew_due(self) -> float | None:
        """Renew each claim that is due. Return the seconds until the next one, None when there is no claim."""
        with self._changed:
            kept = list(self._kept)
        for claim in kept:
            if claim.renew_at <= self._monotonic():
                claim.renew(self._save, self._clock, self._monotonic)
        with self._changed:
            if not self._kept:
                self._running = False
                return None
            return max(0.0, min(claim.renew_at for claim in self._kept) - self._monotonic())

    def _renew_until_none(self) -> None:
        while (seconds := self.renew_due()) is not None:
            with self._changed:
                # A longer sleep than needed would be harmless: a new claim is due later than all others.
                self._changed.wait(seconds)
