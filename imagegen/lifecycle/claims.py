"""Claims that live as long as their worker: one background thread renews them while a call runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import datetime
from typing import Final, Protocol

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.events import log_event, log_stuck
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
    def renew(self, generation: Generation, etag: str) -> str: ...


class KeptClaim:
    """A claimed record, whose ETag changes with each renewal."""

    def __init__(
        self,
        records: ClaimedRecords,
        claimed: Versioned,
        clock: changes.Clock,
        monotonic: Callable[[], float],
        on_outage: Callable[[], None],
    ) -> None:
        self._records = records
        self._claimed = claimed
        self._clock = clock
        self._monotonic = monotonic
        self._on_outage = on_outage
        self._lock = threading.Lock()
        self._uncertain = False
        """Whether a renewal failed that storage may have written."""
        self._context = copy_context()
        """Of the worker's invocation: its id belongs to the log events of the renewals."""
        self.ended = False
        """Whether there are no more renewals."""
        self.lost = False
        """Whether another worker changed or dropped the record."""
        self.renew_at = self._next()
        """Of the monotonic clock."""

    def _next(self) -> float:
        """The time of the next renewal, counted from the moment that the claim's `due` counts from."""
        left = self._claimed.generation.due - self._clock() - changes.CALL_CLAIM
        return self._monotonic() + max(0.0, left.total_seconds() + RENEW_SECONDS)

    def release(self) -> Versioned:
        """End the renewals. Return the record with its current ETag."""
        with self._lock:
            self.ended = True
            if self._uncertain:
                # With the old ETag the write of the worker may fail, but its outcome must not wait for storage.
                with suppress(StorageUnavailableError):
                    self._find_own_write()
            return self._claimed

    def renew(self) -> None:
        """Renew the claim, unless it has ended. Raises nothing: a failure is logged and retried."""
        with self._lock:
            if self.ended:
                return
            self._context.run(self._try_to_renew)

    def _try_to_renew(self) -> None:
        try:
            self._renew(self._clock())
        except ConflictError:
            # The images of this call still count if they come first: the outcome is written where no outcome is.
            self.ended = self.lost = True
            log_event("generation.claim_lost", level=logging.WARNING, id=self._claimed.generation.id)
        except StorageUnavailableError:
            self._uncertain = True
            self.renew_at = self._monotonic() + _RETRY_SECONDS
            self._on_outage()
        except Exception as error:  # noqa: BLE001 - the thread must go on: it keeps the other claims too
            self._uncertain = True
            self.renew_at = self._monotonic() + _RETRY_SECONDS
            log_stuck(self._claimed.generation.id, error)
        else:
            self.renew_at = self._next()

    def _renew(self, now: datetime) -> None:
        if self._uncertain:
            self._find_own_write()
        extended = changes.claim_renewed(self._claimed.generation, now)
        self._claimed = Versioned(extended, self._records.renew(extended, self._claimed.etag))

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
    on_outage
        Called when storage did not take a renewal.
    start
        Runs a function on a new thread.
    """

    def __init__(
        self,
        records: ClaimedRecords,
        clock: changes.Clock,
        *,
        on_outage: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        self._records = records
        self._clock = clock
        self._on_outage = on_outage
        self._monotonic = monotonic
        self._start = start
        self._changed = threading.Condition()
        self._kept: set[KeptClaim] = set()
        self._running = False

    @contextmanager
    def keep(self, claimed: Versioned) -> Generator[KeptClaim]:
        """Renew this claim until it is released or the block ends."""
        kept = KeptClaim(self._records, claimed, self._clock, self._monotonic, self._on_outage)
        with self._changed:
            if not self._running:
                self._start(self._renew_until_none)
                self._running = True
            self._kept.add(kept)
            self._changed.notify()  # it may be due before all others
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
        due = [claim for claim in kept if claim.renew_at <= self._monotonic()]
        if len(due) == 1:
            due[0].renew()
        elif due:
            # Together: a slow renewal must not delay the others.
            with ThreadPoolExecutor(len(due), "claims") as pool:
                list(pool.map(KeptClaim.renew, due))
        with self._changed:
            self._kept = {claim for claim in self._kept if not claim.ended}
            if not self._kept:
                self._running = False
                return None
            return max(0.0, min(claim.renew_at for claim in self._kept) - self._monotonic())

    def _renew_until_none(self) -> None:
        while (seconds := self.renew_due()) is not None:
            with self._changed:
                self._changed.wait(seconds)
