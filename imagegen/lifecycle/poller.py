"""The timer's slot: the one clock that polls, retries, recovers and enforces deadlines.

Two of these at once are harmless: every write is conditional, every call that is repeated is idempotent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Final, Protocol

from cronsim import CronSim

from imagegen.errors import StorageUnavailableError
from imagegen.events import log_event, place_of
from imagegen.generation import Versioned, is_generation_id, started_at

if TYPE_CHECKING:
    from imagegen.lifecycle.generations import Lifecycle
    from imagegen.lifecycle.ports import Clock, Queue
    from imagegen.storage.records import ActiveEntry

CADENCE: Final = timedelta(seconds=1)
"""From one listing to the next while there is work."""
LONGEST_SLOT: Final = timedelta(minutes=5)
"""However rare the schedule: host.json's functionTimeout must leave room for the last copy after it."""
_HANDOVER: Final = timedelta(seconds=1)
"""How long before the next tick a slot ends, so that it can begin in time."""
_BATCH: Final = 20
"""Generations in one message."""
_PASSED_ON_WAIT: Final = timedelta(seconds=20)
"""How long a worker has to take what was passed on to it, before this slot looks at it again."""
_STUCK_WAIT: Final = timedelta(seconds=60)
"""How long a generation is left alone in this slot whose move failed with an error that we did not foresee."""


def slot_end(schedule: str, now: datetime) -> datetime:
    """When a slot that begins now must be over: just before the schedule's next tick."""
    ticks = CronSim(schedule, now)
    end = next(ticks) - _HANDOVER
    while end - now < CADENCE:
        end = next(ticks) - _HANDOVER
    return min(end, now + LONGEST_SLOT)


class ActiveRecords(Protocol):
    def list_active(self) -> list[ActiveEntry]: ...
    def read_active(self, generation_id: str) -> Versioned | None: ...


@dataclass(slots=True)
class SlotSummary:
    """What one slot did."""

    passes: int = 0
    moves: int = 0
    failures: int = 0
    passed_on: int = 0
    """Generations that were given to the queue."""
    left: int = 0
    """Generations that were active at the last listing."""
    oldest_seconds: int | None = None
    """The age of the oldest of them."""


@dataclass(slots=True)
class _Slot:
    """What a slot knows beside the records: forgotten when it ends, and never needed."""

    ends: datetime
    known: dict[str, Versioned] = field(default_factory=dict[str, Versioned])
    """The last version seen of each record: one that is still current need not be read again, and its `due` may be
    later than the one written."""
    running: dict[Future[Versioned | None], ActiveEntry] = field(
        default_factory=dict[Future[Versioned | None], "ActiveEntry"]
    )
    not_before: dict[str, datetime] = field(default_factory=dict[str, datetime])
    summary: SlotSummary = field(default_factory=SlotSummary)

    def due(self, entry: ActiveEntry) -> datetime:
        known = self.known.get(entry.id)
        due = known.generation.due if known and known.etag == entry.etag else entry.due
        return max(due, self.not_before.get(entry.id, due))


class Poller:
    """Advances what is due, on a thread pool, until the slot ends or nothing is left to do in it.

    Parameters
    ----------
    threads
        How many generations are advanced at once.
    most
        How many generations may be under way at once; what is due beyond that goes to the queue.
    """

    def __init__(
        self,
        *,
        records: ActiveRecords,
        lifecycle: Lifecycle,
        clock: Clock,
        queue: Queue,
        threads: int,
        most: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._records = records
        self._lifecycle = lifecycle
        self._clock = clock
        self._queue = queue
        self._threads = threads
        self._most = most
        self._sleep = sleep

    def run(self, ends: datetime) -> SlotSummary:
        """Work until `ends`, or until nothing is left.

        Raises
        ------
        StorageUnavailableError
            When the records cannot be listed. The next tick tries again.
        """
        slot = _Slot(ends)
        with ThreadPoolExecutor(self._threads, "poll") as pool:
            while self._pass(slot, pool):
                self._pause(slot)
            # The moves of the last pass have until the end of the slot to begin. Those that were begun are ended: each
            # is bounded by its own time-outs. Those that were not are still due at the next tick.
            left = (ends - self._clock()).total_seconds()
            self._collect(slot, wait(slot.running, timeout=max(0.0, left)).done)
            pool.shutdown(wait=True, cancel_futures=True)
            self._collect(slot, {future for future in slot.running if not future.cancelled()})
        return slot.summary

    def _pass(self, slot: _Slot, pool: ThreadPoolExecutor) -> bool:
        """One listing, and a move for each generation that is due. Returns whether there is more to do."""
        entries = self._records.list_active()
        now = self._clock()
        slot.summary.passes += 1
        slot.summary.left = len(entries)
        ages = [round((now - started_at(entry.id)).total_seconds()) for entry in entries if is_generation_id(entry.id)]
        slot.summary.oldest_seconds = max(ages, default=None)
        slot.known = {entry.id: slot.known[entry.id] for entry in entries if entry.id in slot.known}
        busy = {entry.id for entry in slot.running.values()}
        due = [entry for entry in entries if entry.id not in busy and slot.due(entry) <= now]
        mine = max(0, self._most - len(busy))
        for entry in due[:mine]:
            slot.running[pool.submit(self._move, entry, slot.known.get(entry.id))] = entry
        self._pass_on(slot, due[mine:], now)
        waiting = any(entry.id not in busy and slot.due(entry) < slot.ends for entry in entries)
        return now + CADENCE < slot.ends and (waiting or bool(slot.running))

    def _pass_on(self, slot: _Slot, entries: list[ActiveEntry], now: datetime) -> None:
        """More than one instance should take goes to the queue, whose workers the platform scales out."""
        for batch in batched(entries, _BATCH, strict=False):
            try:
                self._queue.send([entry.id for entry in batch])
            except StorageUnavailableError:
                slot.summary.failures += len(batch)
                continue
            slot.summary.passed_on += len(batch)
            for entry in batch:
                slot.not_before[entry.id] = now + _PASSED_ON_WAIT

    def _move(self, entry: ActiveEntry, known: Versioned | None) -> Versioned | None:
        current = known if known and known.etag == entry.etag else self._records.read_active(entry.id)
        return self._lifecycle.advance(current) if current else None

    def _pause(self, slot: _Slot) -> None:
        """Until the next pass is worth its listing."""
        until = self._clock() + CADENCE
        while slot.running and (left := (until - self._clock()).total_seconds()) > 0:
            self._collect(slot, wait(slot.running, timeout=left, return_when=FIRST_COMPLETED).done)
        if (left := (until - self._clock()).total_seconds()) > 0:
            self._sleep(left)
        self._collect(slot, {future for future in slot.running if future.done()})

    def _collect(self, slot: _Slot, done: set[Future[Versioned | None]]) -> None:
        for future in done:
            entry = slot.running.pop(future)
            slot.summary.moves += 1
            slot.known.pop(entry.id, None)
            try:
                after = future.result()
            except StorageUnavailableError:
                slot.summary.failures += 1
                slot.not_before[entry.id] = self._clock() + 5 * CADENCE
            except Exception as error:  # noqa: BLE001 - one bad record must not keep all others from moving
                slot.summary.failures += 1
                slot.not_before[entry.id] = self._clock() + _STUCK_WAIT
                log_event(
                    "generation.stuck", level=logging.ERROR, id=entry.id, error=type(error).__name__, at=place_of(error)
                )
            else:
                if after is not None:
                    slot.known[entry.id] = after
