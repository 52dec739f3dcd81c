"""Early ticks: a message starts a slot when work is due, unless the timer or a live slot will see the work in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from cronsim import CronSim

from imagegen.errors import StorageUnavailableError
from imagegen.lifecycle.live_slot import KNOWN_FOR, LiveSlot
from imagegen.lifecycle.ports import Clock

_SOON: Final = timedelta(seconds=2)
"""A slot that begins so long after the work is due needs no other one before it."""
_LONGEST_DELAY: Final = timedelta(hours=1)
"""Later work is left to the timer."""


class SlotQueue(Protocol):
    def send(self, delay: int) -> None:
        """Send a message that workers see after this many seconds. Raises StorageUnavailableError."""
        ...


class EarlyTicks:
    """Asks for slots. Thread-safe. All threads of a process share one, because it remembers what it asked for.

    Parameters
    ----------
    schedule
        NCRONTAB of the timer.
    monotonic
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        live: LiveSlot,
        queue: SlotQueue,
        *,
        schedule: str,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._queue = queue
        self._schedule = schedule
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._asked: list[datetime] = []
        """When the messages of this process become visible."""
        self._known: tuple[float, datetime | None] | None = None
        """When the mark was read, and until when a slot was live."""

    def request(self, due: datetime) -> None:
        """Have a slot run when this work is due. The record of the work must be written.

        Best effort: without storage, the work waits for the timer.
        """
        delay = self._reserve(due)
        if delay is None:
            return
        try:
            self._queue.send(delay)
        except StorageUnavailableError:
            # The message stays reserved: a burst of starts must not wait for a failing queue each time.
            return

    def _reserve(self, due: datetime) -> int | None:
        """Seconds until the message must be visible. None when no message is needed."""
        now = self._clock()
        if due - now > _LONGEST_DELAY or next(CronSim(self._schedule, now)) - due <= _SOON:
            return None
        with self._lock:  # a burst of starts reads the mark once, and sends one message
            # The slot of a message, or the live slot that it meets, lists for the last time `KNOWN_FOR` after the
            # message becomes visible, or later: it sees this work.
            self._asked = [visible for visible in self._asked if now < visible + KNOWN_FOR]
            if any(visible <= due + _SOON for visible in self._asked):
                return None
            until = self._live_until()
            if until and due < until:
                return None
            delay = max(0, int((due - now).total_seconds()))
            self._asked.append(now + timedelta(seconds=delay))
            return delay

    def _live_until(self) -> datetime | None:
        # The age of the value counts from before the read.
        asked = self._monotonic()
        if self._known and asked - self._known[0] < KNOWN_FOR.total_seconds():
            return self._known[1]
        try:
            mark = self._live.read()
        except StorageUnavailableError:
            mark = None
        self._known = (asked, mark.until if mark else None)
        return self._known[1]
