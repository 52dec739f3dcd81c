"""Claims that live as long as their worker: one background thread renews them while a call runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final, Protocol

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.events import log_event, place_of
from imagegen.generation import Generation, Versioned
from imagegen.lifecycle import changes

RENEW_SECONDS: Final = 30.0
"""Time from one renewal to the next. A shorter call costs no write."""

_RETRY_SECONDS: Final = 5.0
"""The same after a failure of storage."""


def _start_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="claims", daemon=True).start()


class ClaimedRecords(Protocol):
    """The part of the repository that a claim needs."""

    def read_active(self, generation_id: str) -> Versioned | None: ...
    def save(self, generation: Generation, etag: str) -> str: ...


class KeptClaim:
    """A claimed record, whose ETag changes with each renewal."""

    def __init__(self, records: ClaimedRecords, claimed: Versioned, renew_at: float) -> None:
        self._records = records
        self._claimed = claimed
        self._lock = threading.Lock()
        self._uncertain = False
        """Whether a renewal failed that storage may have written."""
        self.ended = False
        """Whether there are no more renewals."""
        self.lost = False
        """Whether another worker changed or dropped the record."""
        self.renew_at = renew_at

    def release(self) -> Versioned:
        """End the renewals. Return the record with its current ETag."""
        with self._lock:
            self.ended = True
            if self._uncertain:
                # With the old ETag the write of the worker may fail, but its outcome must not wait for storage.
                with suppress(StorageUnavailableError):
                    self._find_own_write()
            return self._claimed

    def renew(self, clock: changes.Clock, monotonic: Callable[[], float]) -> None:
        """Renew the claim, unless it has ended. Raises nothing: a failure is logged and retried."""
        with self._lock:
            if self.ended:
                return
            try:
                self._renew(clock())
            except ConflictError:
                # The images of this call still count if they come first: the outcome is written where no outcome is.
                self.ended = self.lost = True
                log_event("generation.claim_lost", level=logging.WARNING, id=self._claimed.generation.id)
            except StorageUnavailableError:
                self._uncertain = True
                self.renew_at = monotonic() + _RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - the thread must go on: it keeps the other claims too
                self._uncertain = True
                self.renew_at = monotonic() + _RETRY_SECONDS
                name, place = type(error).__name__, place_of(error)
                log_event("generation.stuck", level=logging.ERROR, id=self._claimed.generation.id, error=name, at=place)
            else:
                self.renew_at = monotonic() + RENEW_SECONDS

    def _renew(self, now: datetime) -> None:
        if self._uncertain:
            self._find_own_write()
        extended = changes.claim_renewed(self._claimed.generation, now)
        self._claimed = Versioned(extended, self._records.save(extended, self._claimed.etag))

    def _find_own_write(self) -> None:
        """Read the ETag of a renewal that storage wrote without an answer."""
        found = self._records.read_active(self._claimed.generation.id)
        if found and found.generation.claim == self._claimed.generation.claim:
            self._claimed = found
        else:
            self.lost = True
        self._uncertain = False


class ClaimKeeper:
    """Renews the claims of this process, on one thread that exists while there is a claim to keep. Thread-safe.

    Parameters
    ----------
    start
        Runs a function on a new thread.
    """

    def __init__(
        self,
        records: ClaimedRecords,
        clock: changes.Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        self._records = records
        self._clock = clock
        self._monotonic = monotonic
        self._start = start
        self._changed = threading.Condition()
        self._kept: set[KeptClaim] = set()
        self._running = False

    @contextmanager
    def keep(self, claimed: Versioned) -> Generator[KeptClaim]:
        """Renew this claim until it is released or the block ends."""
        kept = KeptClaim(self._records, claimed, self._monotonic() + RENEW_SECONDS)
        with self._changed:
            if not self._running:
                self._start(self._renew_until_none)
                self._running = True
            self._kept.add(kept)
        try:
            yield kept
        finally:
            kept.ended = True
            with self._changed:
                self._kept.discard(kept)
                self._changed.notify()

    def renew_due(self) -> float | None:
        """Renew each claim that is due. Return the seconds until the next one, None when there is no claim."""
        with self._changed:
            kept = list(self._kept)
        for claim in kept:
            if claim.renew_at <= self._monotonic():
                claim.renew(self._clock, self._monotonic)
        with self._changed:
            self._kept = {claim for claim in self._kept if not claim.ended}
            if not self._kept:
                self._running = False
                return None
            return max(0.0, min(claim.renew_at for claim in self._kept) - self._monotonic())

    def _renew_until_none(self) -> None:
        while (seconds := self.renew_due()) is not None:
            with self._changed:
                # A longer sleep than needed would be harmless: a new claim is due later than all others.
                self._changed.wait(seconds)
