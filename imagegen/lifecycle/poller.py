"""The timer's slot: it polls, retries, recovers after crashes and enforces deadlines.

Two slots at once are harmless: every write is conditional, and every repeated request is idempotent.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import batched
from typing import Final, Protocol

from cronsim import CronSim

from imagegen.errors import StorageUnavailableError
from imagegen.events import log_stuck
from imagegen.generation import Status, Versioned, is_generation_id, started_at
from imagegen.lifecycle.live_slot import KNOWN_FOR, SlotMark
from imagegen.lifecycle.pacing import Turns
from imagegen.lifecycle.ports import ANY_TURN, ActiveEntry, Clock, CountedQueue, Turn
from imagegen.threads import ContextPool

CADENCE: Final = timedelta(seconds=1)
"""Time from one listing to the next while there is work."""
LONGEST_SLOT: Final = timedelta(minutes=5)
"""Limit for rare schedules: host.json's functionTimeout must leave room for the last copy."""
_HANDOVER: Final = timedelta(seconds=1)
"""Time between the end of a slot and the next tick, so that the tick begins in time."""
_BATCH: Final = 20
"""Generations in one queue message."""
_MESSAGE_WAIT: Final = timedelta(seconds=20)
"""Time for a worker to take a generation from the queue, before this slot looks at it again."""
_FAILURE_WAIT: Final = 5 * CADENCE
"""Time before this slot advances a generation again after a failure of storage."""
_STUCK_WAIT: Final = timedelta(seconds=60)
"""The same after an unexpected error."""


def slot_end(schedule: str, now: datetime) -> datetime:
    """When a slot that begins now must end: just before the schedule's next tick."""
    ticks = CronSim(schedule, now)
    end = next(ticks) - _HANDOVER
    while end - now < CADENCE:
        end = next(ticks) - _HANDOVER
    return min(end, now + LONGEST_SLOT)


class ActiveRecords(Protocol):
    def list_active(self) -> list[ActiveEntry]: ...

    def read_listed(self, entry: ActiveEntry) -> Versioned | None:
        """The record of an entry as it is now, or in the version of the entry."""
        ...


class GiveTurns(Protocol):
    """Each method raises StorageUnavailableError."""

    def turns(self, model: str, waiting: Sequence[str]) -> Turns | None:
        """Which of the generations that wait for a model may begin now, oldest first. None: all of them."""
        ...

    def take_back(self, generation_id: str) -> None:
        """This generation could not be told that it has its turn."""
        ...

    def tell(self, model: str, generation_id: str, turn: Turn) -> bool:
        """Tell a worker with minutes that a generation has its turn. Return False if the slot itself can begin it."""
        ...


class Advance(Protocol):
    """Advance a due generation. Return its record, None when it needs no more work here."""

    def __call__(self, current: Versioned, turn: Turn, /) -> Versioned | None: ...


@dataclass(slots=True)
class SlotSummary:
    """Counts of one slot."""

    passes: int = 0
    """Listings."""
    moves: int = 0
    """Generations advanced, once for each time."""
    failures: int = 0
    failed_listings: int = 0
    passed_on: int = 0
    """Generations sent to the queue."""
    turns: int = 0
    """Generations that waited for the quota of their model, and may begin now."""
    left: int = 0
    """Active generations of the last listing that did not end in the slot."""
    oldest_seconds: int | None = None
    """Age of the oldest of them."""


@dataclass(slots=True)
class _Slot:
    """The memory of a slot. It saves transactions; correctness does not need it."""

    ends: datetime
    mark: SlotMark | None
    known: dict[str, Versioned] = field(default_factory=dict[str, Versioned])
    """The last version of each record. A current one need not be read again; its `due` may be later than the one
    written."""
    active: set[str] = field(default_factory=set[str])
    """Ids of the last listing, without those that ended."""
    running: dict[Future[Versioned | None], ActiveEntry] = field(
        default_factory=dict[Future[Versioned | None], ActiveEntry]
    )
    not_before: dict[str, datetime] = field(default_factory=dict[str, datetime])
    soon: list[tuple[datetime, str, ActiveEntry]] = field(default_factory=list[tuple[datetime, str, ActiveEntry]])
    """A heap of the operations to poll before the next listing: when, id, record."""
    turns: dict[str, Turn] = field(default_factory=dict[str, Turn])
    """Of generations that begin in this pass."""
    told: set[str] = field(default_factory=set[str])
    """Ids of the generations whose turn is in a message."""
    cannot_tell: bool = False
    """Whether a message of this pass could not be sent."""
    next_turn: datetime | None = None
    """When the next generation of a paced model may begin. Its own `due` may be later: a message was sent for it."""
    summary: SlotSummary = field(default_factory=SlotSummary)
    wait: timedelta = CADENCE
    """Time to the next listing."""
    overdue: set[Future[Versioned | None]] | None = None
    """Work that was running when the slot was to end. None before that."""
    failure: StorageUnavailableError | None = None
    """Of the last listing that failed."""

    def note(self, entry: ActiveEntry, now: datetime) -> None:
        """Poll this operation when it becomes due, also before the next listing."""
        due = self.due(entry)
        if entry.status == Status.RUNNING and not entry.waits_for and now < due:
            heappush(self.soon, (due, entry.id, entry))

    def due(self, entry: ActiveEntry) -> datetime:
        known = self.known.get(entry.id)
        due = known.generation.due if known and known.etag == entry.etag else entry.due
        return max(due, self.not_before.get(entry.id, due))


class Poller:
    """Advances due generations on a thread pool until the slot ends or no work is left.

    Parameters
    ----------
    threads
        Generations advanced at the same time.
    most
        Limit of generations that this instance works on at the same time. Further generations go to the queue.
    on_outage
        Called when a listing failed.
    """

    def __init__(
        self,
        *,
        records: ActiveRecords,
        advance: Advance,
        clock: Clock,
        queue: CountedQueue,
        turns: GiveTurns,
        threads: int,
        most: int,
        on_outage: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._records = records
        self._advance = advance
        self._clock = clock
        self._queue = queue
        self._turns = turns
        self._threads = threads
        self._most = most
        self._sleep = sleep
        self._on_outage = on_outage

    def run(self, ends: datetime, mark: SlotMark | None = None) -> SlotSummary:
        """Work until `ends`, or until no work is left. Begun work may take longer; until then, the slot goes on.

        Parameters
        ----------
        mark
            Of this slot: it is set while there is work.

        Raises
        ------
        StorageUnavailableError
            When no listing of the whole slot succeeded. The next tick tries again.
        """
        slot = _Slot(ends, mark)
        with ContextPool(self._threads, "poll") as pool:
            while self._goes_on(slot, pool):
                self._pause(slot, pool)
            # Work of the last pass may begin until the slot ends. Begun work is finished, bounded by its own timeouts.
            # Work that has not begun is still due at the next tick.
            seconds = (ends - self._clock()).total_seconds()
            self._collect(slot, wait(slot.running, timeout=max(0.0, seconds)).done)
            pool.shutdown(wait=True, cancel_futures=True)
            self._collect(slot, {future for future in slot.running if not future.cancelled()})
        if slot.summary.passes == 0 and slot.failure:
            raise slot.failure
        slot.summary.left = len(slot.active)
        slot.summary.oldest_seconds = _oldest_age(slot.active, self._clock())
        return slot.summary

    def _goes_on(self, slot: _Slot, pool: ContextPool) -> bool:
        """Make a pass. Return whether another one is needed."""
        if self._pass(slot, pool):
            if slot.mark:
                slot.mark.set()
            return True
        is_early = self._clock() + CADENCE < slot.ends
        if is_early and slot.mark and slot.mark.clear():
            # A start may have relied on the mark until now. List once more, when no instance uses it any longer.
            slot.wait = KNOWN_FOR
            return True
        return False

    def _pass(self, slot: _Slot, pool: ContextPool) -> bool:
        """List once, and start work on each due generation. Return whether another pass is needed."""
        try:
            entries = self._records.list_active()
        except StorageUnavailableError as failure:
            slot.summary.failed_listings += 1
            slot.failure = failure
            slot.wait = _FAILURE_WAIT
            self._on_outage()
            return self._clock() + slot.wait < slot.ends
        slot.wait = CADENCE
        now = self._clock()
        slot.summary.passes += 1
        slot.active = {entry.id for entry in entries}
        slot.known = {entry.id: slot.known[entry.id] for entry in entries if entry.id in slot.known}
        begun = set(slot.running)
        busy = {entry.id for entry in slot.running.values()}
        due = self._due(slot, [entry for entry in entries if entry.id not in busy], now)
        room = max(0, self._most - len(busy))
        for entry in due[:room]:
            self._begin(slot, pool, entry)
        self._send_to_queue(slot, due[room:], now)
        slot.soon.clear()
        for entry in entries:
            if entry.id not in busy:
                slot.note(entry, now)
        waiting = any(entry.id not in busy and slot.due(entry) < slot.ends for entry in entries)
        has_turns = slot.next_turn is not None and slot.next_turn < slot.ends
        if now + CADENCE < slot.ends:
            return waiting or has_turns or bool(slot.running)
        # Work that began earlier keeps the next tick waiting until it ends. The other generations must not wait too.
        if slot.overdue is None:
            slot.overdue = begun
        return not all(future.done() for future in slot.overdue) and now + CADENCE < slot.ends + LONGEST_SLOT

    def _due(self, slot: _Slot, entries: Iterable[ActiveEntry], now: datetime) -> list[ActiveEntry]:
        """The entries to advance now: those that are due, and do not wait for a turn."""
        due: list[ActiveEntry] = []
        waiting: dict[str, list[ActiveEntry]] = defaultdict(list)
        for entry in entries:
            if entry.waits_for and entry.deadline and now < entry.deadline:
                waiting[entry.waits_for].append(entry)
            elif slot.due(entry) <= now:
                due.append(entry)
        slot.next_turn = None
        slot.cannot_tell = False
        for model, there in waiting.items():
            due += self._with_turn(slot, model, there, now)
        return due

    def _with_turn(self, slot: _Slot, model: str, waiting: list[ActiveEntry], now: datetime) -> list[ActiveEntry]:
        """The entries to advance now. Those that a worker with minutes must begin get a message."""
        # A queued one may lie ahead: its message has come, and the worker left the generation to its turn.
        ready = [entry for entry in waiting if slot.due(entry) <= now or entry.queued]
        try:
            turns = self._turns.turns(model, [entry.id for entry in ready])
        except StorageUnavailableError:
            slot.summary.failures += 1
            slot.not_before |= {entry.id: now + _FAILURE_WAIT for entry in ready}
            return []
        if turns is None:
            return [entry for entry in ready if slot.due(entry) <= now]
        begins: list[ActiveEntry] = []
        for entry in ready:
            if (turn := turns.given.get(entry.id)) is None and entry.id in slot.told:
                continue  # it stays ready, so that it gets no second turn while its worker is busy
            if turn is None:
                slot.not_before[entry.id] = turns.next_at
                slot.next_turn = min(turns.next_at, slot.next_turn or turns.next_at)
            elif not self._is_told(slot, model, entry.id, turn):
                slot.turns[entry.id] = turn
                begins.append(entry)
        return begins

    def _is_told(self, slot: _Slot, model: str, generation_id: str, turn: Turn) -> bool:
        """Tell a worker with minutes that a generation has its turn. Return False if this slot must begin it."""
        try:
            if slot.cannot_tell:  # the next send would hold up the polls of all models, and fail as well
                raise StorageUnavailableError
            is_sent = self._turns.tell(model, generation_id, turn)
        except StorageUnavailableError:
            slot.summary.failures += 1
            slot.cannot_tell = True
            self._turns.take_back(generation_id)
            return True
        slot.summary.turns += 1
        if is_sent:
            slot.told.add(generation_id)
        return is_sent

    def _send_to_queue(self, slot: _Slot, entries: Sequence[ActiveEntry], now: datetime) -> None:
        """Send what exceeds the limit of one instance to the queue, whose workers the platform scales out.

        The queue never holds more messages than the due generations fill: workers that are slower than this timer find
        no backlog of repeated messages.
        """
        if not entries:
            return
        batches = list(batched(entries, _BATCH, strict=False))
        try:
            # Messages of earlier passes and slots name the oldest generations.
            named = self._queue.count()
        except StorageUnavailableError:
            slot.summary.failures += len(entries)
            return
        for batch in batches[:named]:
            slot.not_before |= {entry.id: now + _MESSAGE_WAIT for entry in batch}
        for batch in batches[named:]:
            try:
                self._queue.send([entry.id for entry in batch])
            except StorageUnavailableError:
                slot.summary.failures += len(batch)
                continue
            slot.summary.passed_on += len(batch)
            slot.not_before |= {entry.id: now + _MESSAGE_WAIT for entry in batch}

    def _advance_entry(self, entry: ActiveEntry, known: Versioned | None, turn: Turn) -> Versioned | None:
        current = known if known and known.etag == entry.etag else self._records.read_listed(entry)
        if current and current.generation.due > self._clock():
            # Another worker has claimed it since the listing. A takeover would count its running call as lost.
            return current
        return self._advance(current, turn) if current else None

    def _begin(self, slot: _Slot, pool: ContextPool, entry: ActiveEntry) -> None:
        turn = slot.turns.pop(entry.id, ANY_TURN)
        slot.running[pool.submit(self._advance_entry, entry, slot.known.get(entry.id), turn)] = entry

    def _pause(self, slot: _Slot, pool: ContextPool) -> None:
        """Collect results, and poll the operations that become due, until the next pass is worth its listing."""
        until = self._clock() + slot.wait
        while (now := self._clock()) < until:
            self._poll_due(slot, pool, now)
            wake = min(until, slot.soon[0][0]) if slot.soon else until
            seconds = max(0.0, (wake - now).total_seconds())
            if slot.running:
                self._collect(slot, wait(slot.running, timeout=seconds, return_when=FIRST_COMPLETED).done)
            else:
                self._sleep(seconds)
        self._collect(slot, {future for future in slot.running if future.done()})

    def _poll_due(self, slot: _Slot, pool: ContextPool, now: datetime) -> None:
        """Poll the known operations that are due. What exceeds the limit waits for the next listing."""
        while slot.soon and slot.soon[0][0] <= now:
            entry = heappop(slot.soon)[2]
            if len(slot.running) < self._most:
                self._begin(slot, pool, entry)

    def _collect(self, slot: _Slot, done: set[Future[Versioned | None]]) -> None:
        for future in done:
            entry = slot.running.pop(future)
            slot.summary.moves += 1
            slot.known.pop(entry.id, None)
            try:
                after = future.result()
            except StorageUnavailableError:
                slot.summary.failures += 1
                slot.not_before[entry.id] = self._clock() + _FAILURE_WAIT
            except Exception as error:  # noqa: BLE001 - one defective record must not stop the others
                slot.summary.failures += 1
                slot.not_before[entry.id] = self._clock() + _STUCK_WAIT
                log_stuck(entry.id, error)
            else:
                if after is not None:
                    slot.known[entry.id] = after
                    generation = after.generation
                    if generation.operation_location:  # a call may have to wait for its turn
                        listed = ActiveEntry(entry.id, after.etag, generation.due, generation.status)
                        slot.note(listed, self._clock())
                else:
                    slot.active.discard(entry.id)


def _oldest_age(ids: Iterable[str], now: datetime) -> int | None:
    """Seconds."""
    ages = [round((now - started_at(one)).total_seconds()) for one in ids if is_generation_id(one)]
    return max(ages, default=None)
