"""The timer's slot. The clock moves only when the poller sleeps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Generation, Versioned
from imagegen.lifecycle.pacing import Turns
from imagegen.lifecycle.poller import LONGEST_SLOT, Poller, SlotSummary, slot_end
from imagegen.lifecycle.ports import ANY_TURN, Turn
from imagegen.storage.records import ActiveEntry
from tests.app.generations import ID, NOON, PROMPT, TOKEN, new, running, seconds

type Advance = Callable[[Versioned], Versioned | None]


def name(number: int) -> str:
    return f"{ID[:-1]}{number}"


@dataclass
class PollerApp:
    """Fakes of all that the poller needs: records, queue, clock, and the worker's `advance`."""

    now: datetime = NOON
    active: dict[str, Versioned] = field(default_factory=dict[str, Versioned])
    advanced: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """Seconds after noon, and the id."""
    read: list[str] = field(default_factory=list[str])
    sent: list[tuple[float, list[str]]] = field(default_factory=list[tuple[float, list[str]]])
    """Seconds after noon, and the ids in the message."""
    waiting: int = 0
    """Messages in the queue."""
    outages: int = 0
    listings: list[float] = field(default_factory=list[float])
    asked: list[tuple[float, list[str]]] = field(default_factory=list[tuple[float, list[str]]])
    """Seconds after noon, and the ids of the generations that wait for a turn."""
    give: Callable[[Sequence[str]], Turns | None] | None = None
    """Gives turns. None: no model is paced."""
    on_tell: Callable[[str], bool] | None = None
    taken_back: list[str] = field(default_factory=list[str])
    on_advance: Advance | None = None
    """Result of `advance`. None: each generation ends when it is first advanced."""

    def add(self, number: int, *, due: float = 0, etag: str = "1") -> None:
        self.active[name(number)] = Versioned(running(id=name(number), due=NOON + seconds(due)), etag)

    def add_waiting(self, number: int, *, due: float = 0, deadline: float = 3_600, queued: bool = True) -> None:
        generation = new(id=name(number), due=NOON + seconds(due), deadline=NOON + seconds(deadline), queued=queued)
        self.active[name(number)] = Versioned(generation, "1")

    def run(self, length: float = 60, *, threads: int = 1, most: int = 100) -> SlotSummary:
        poller = Poller(
            records=self,
            advance=self.advance,
            clock=lambda: self.now,
            queue=self,
            turns=self,
            threads=threads,
            most=most,
            on_outage=self.note_outage,
            sleep=self.sleep,
        )
        return poller.run(self.now + seconds(length))

    def sleep(self, length: float) -> None:
        self.now += seconds(length)

    def note_outage(self) -> None:
        self.outages += 1

    def list_active(self) -> list[ActiveEntry]:
        self.listings.append(self._elapsed())
        return [
            ActiveEntry(
                id=found,
                etag=entry.etag,
                due=entry.generation.due,
                status=entry.generation.status,
                waits_for=entry.generation.request.model if entry.generation.waits else None,
                queued=entry.generation.queued,
                deadline=entry.generation.deadline,
            )
            for found, entry in self.active.items()
        ]

    def read_listed(self, entry: ActiveEntry) -> Versioned | None:
        return self.read_active(entry.id)

    def read_active(self, generation_id: str) -> Versioned | None:
        self.read.append(generation_id)
        return self.active.get(generation_id)

    def advance(self, current: Versioned, turn: Turn) -> Versioned | None:
        self.advanced.append((self._elapsed(), current.generation.id))
        if self.on_advance:
            return self.on_advance(current)
        del self.active[current.generation.id]
        return None

    def turns(self, model: str, waiting: Sequence[str]) -> Turns | None:
        self.asked.append((self._elapsed(), list(waiting)))
        return self.give and self.give(waiting)

    def take_back(self, generation_id: str) -> None:
        self.taken_back.append(generation_id)

    def tell(self, model: str, generation_id: str, turn: Turn) -> bool:
        if self.on_tell:
            return self.on_tell(generation_id)
        self.send([generation_id], turn)
        return True

    def send(self, ids: Sequence[str], turn: Turn | None = None) -> None:
        self.sent.append((self._elapsed(), list(ids)))

    def count(self) -> int:
        return self.waiting

    def write(self, generation: Generation, etag: str) -> Versioned:
        self.active[generation.id] = Versioned(generation, etag)
        return self.active[generation.id]

    def _elapsed(self) -> float:
        return (self.now - NOON).total_seconds()


@pytest.fixture
def app() -> PollerApp:
    return PollerApp()


def test_idle_slot_costs_one_listing(app: PollerApp) -> None:
    assert app.run() == SlotSummary(passes=1)
    assert (app.listings, app.now) == ([0], NOON)


def test_slot_ends_when_no_work_is_left(app: PollerApp) -> None:
    app.add(1)
    app.add(2)
    assert app.run() == SlotSummary(passes=2, moves=2, oldest_seconds=None)
    assert app.listings == [0, 1]


def test_later_work_is_left_to_the_next_slot(app: PollerApp) -> None:
    app.add(1, due=61)
    done = app.run(60)
    assert (done.passes, done.moves, done.left, app.now) == (1, 0, 1, NOON)


def test_generation_is_advanced_when_due(app: PollerApp) -> None:
    app.add(1, due=3)
    app.add(2, due=5.5)
    app.run()
    assert app.advanced == [(3, name(1)), (5.5, name(2))]  # not at the next listing


def test_slot_stops_at_its_end(app: PollerApp) -> None:
    app.add(1)
    app.on_advance = lambda current: current  # always due
    done = app.run(10)
    assert app.listings == [float(second) for second in range(10)]
    assert (done.moves, done.left) == (10, 1)
    assert app.now <= NOON + seconds(10)


def test_unwritten_due_is_respected(app: PollerApp) -> None:
    """The worker does not write a near `due`, so the listing still shows the old one."""
    app.add(1)
    app.on_advance = lambda current: Versioned(current.generation.changed(due=app.now + seconds(4)), current.etag)
    app.run(10)
    assert [when for when, _ in app.advanced] == [0, 4, 8]
    assert app.read == [name(1)]  # the known record is current, and is not read again


def test_changed_record_is_read_again(app: PollerApp) -> None:
    app.add(1)

    def advance(current: Versioned) -> Versioned | None:
        if len(app.advanced) == 1:
            app.write(running(id=name(1), due=NOON + seconds(2), faults=7), "2")
            return Versioned(current.generation.changed(due=NOON + seconds(9)), current.etag)
        assert current.generation.faults == 7
        return app.active.pop(current.generation.id) and None

    app.on_advance = advance
    app.run()
    assert app.advanced == [(0, name(1)), (2, name(1))]  # the written `due` counts, not the one in memory
    assert app.read == [name(1), name(1)]


def test_record_claimed_after_the_listing_is_left_alone(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.add(1)

    def read_after_a_claim(generation_id: str) -> Versioned:
        claimed = running(id=generation_id, operation_location=None, calling=True, due=app.now + seconds(90))
        return app.write(claimed, "2")

    monkeypatch.setattr(app, "read_active", read_after_a_claim)
    app.run(10)
    # A takeover would count the call of the other worker as lost, while it runs.
    assert app.advanced == []


def test_vanished_record_needs_no_work(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.add(1)

    def gone(generation_id: str) -> None:
        app.active.clear()

    monkeypatch.setattr(app, "read_active", gone)
    done = app.run()
    assert (done.moves, done.failures, app.advanced) == (1, 0, [])


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StorageUnavailableError("save record"), [0, 5, 10]),
        (RuntimeError(f"{PROMPT} {TOKEN}"), [0, 60]),  # unexpected: a retry would fail at once
    ],
)
def test_failing_generation_does_not_stop_the_others(
    app: PollerApp, caplog: pytest.LogCaptureFixture, error: Exception, again: list[float]
) -> None:
    for number in (1, 2, 3):
        app.add(number)

    def advance(current: Versioned) -> None:
        if current.generation.id == name(1):
            raise error
        del app.active[current.generation.id]

    app.on_advance = advance
    done = app.run(14 if len(again) == 3 else 70)
    assert [when for when, found in app.advanced if found == name(1)] == again
    assert [found for _, found in app.advanced].count(name(2)) == 1
    assert list(app.active) == [name(1)]
    assert (done.failures, done.left) == (len(again), 1)
    assert PROMPT not in caplog.text
    assert TOKEN not in caplog.text


def test_unexpected_error_is_logged_with_its_place(app: PollerApp, caplog: pytest.LogCaptureFixture) -> None:
    app.add(1)

    def advance(_: Versioned) -> None:
        raise RuntimeError(PROMPT)

    app.on_advance = advance
    with caplog.at_level(logging.ERROR):
        app.run(5)
    [record] = caplog.records
    assert record.getMessage().startswith(f"generation.stuck id={name(1)} error=RuntimeError at=test_poller.py:")


def fail_listings(app: PollerApp, monkeypatch: pytest.MonkeyPatch, failing: set[int]) -> list[float]:
    """Let the listings with these numbers fail. Return the times of all listings, in seconds after noon."""
    listing = app.list_active
    times: list[float] = []

    def list_active() -> list[ActiveEntry]:
        times.append((app.now - NOON).total_seconds())
        if len(times) - 1 in failing:
            raise StorageUnavailableError("list records")
        return listing()

    monkeypatch.setattr(app, "list_active", list_active)
    return times


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1, 2}, {1, 2, 4}])
def test_failed_listing_does_not_end_the_slot(
    app: PollerApp, monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    app.add(1)
    app.add(2, due=40)
    fail_listings(app, monkeypatch, failing)
    done = app.run()
    assert [found for _, found in app.advanced] == [name(1), name(2)]
    assert (done.failed_listings, done.moves, done.failures) == (len(failing), 2, 0)
    assert app.active == {}


def test_failed_listing_is_repeated_after_five_seconds(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.add(1, due=40)
    times = fail_listings(app, monkeypatch, {1, 2})
    app.run(15)
    assert times == [0]  # nothing is due in this slot
    app.add(2, due=8)
    times.clear()
    app.run(20)
    assert times[:4] == [0, 1, 6, 11]


def test_slot_without_a_listing_fails(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    times = fail_listings(app, monkeypatch, set(range(100)))
    with pytest.raises(StorageUnavailableError):
        app.run(60)
    assert (len(times), app.now < NOON + seconds(60)) == (12, True)


def test_failed_listing_is_reported_as_an_outage(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.add(1)
    fail_listings(app, monkeypatch, {0, 1})
    app.run()
    assert app.outages == 2


def test_summary_does_not_count_what_ended_in_the_last_pass(app: PollerApp) -> None:
    app.add(1)
    done = app.run(1)
    assert (done.passes, done.moves, done.left, done.oldest_seconds) == (1, 1, 0, None)
    app.add(2, due=99)
    assert app.run(1).left == 1


def test_each_of_many_is_advanced_once(app: PollerApp) -> None:
    for number in range(10):
        app.add(number)
    done = app.run(threads=4)
    assert sorted(found for _, found in app.advanced) == [name(number) for number in range(10)]
    assert (done.moves, done.failures, done.left) == (10, 0, 0)


def test_overflow_goes_to_the_queue_in_batches(app: PollerApp) -> None:
    for number in range(45):
        app.active[f"id-{number:02}"] = Versioned(running(id=f"id-{number:02}"), "1")
    done = app.run(10, most=3)
    assert sorted({found for when, found in app.advanced if when == 0}) == ["id-00", "id-01", "id-02"]
    first = [ids for when, ids in app.sent if when == 0]
    assert [len(ids) for ids in first] == [20, 20, 2]
    assert sorted(found for ids in first for found in ids) == [f"id-{number:02}" for number in range(3, 45)]
    assert (done.passed_on, done.failures) == (42, 0)


def test_queued_overflow_is_not_queued_again_for_20_seconds(app: PollerApp) -> None:
    app.add(1)
    app.add(2)
    app.on_advance = lambda current: current  # always due
    app.run(45, most=1)
    assert app.sent[0] == (0, [name(2)])
    times = [when for when, ids in app.sent if ids == [name(2)]]
    assert min(after - before for before, after in pairwise(times)) >= 20


@pytest.mark.parametrize(
    ("waiting", "sent"),
    [
        (0, [[*range(1, 21)], [*range(21, 41)], [41, 42]]),
        (1, [[*range(21, 41)], [41, 42]]),
        (2, [[41, 42]]),
        (3, []),
        (900, []),
    ],
)
def test_queue_holds_no_more_than_what_is_due(app: PollerApp, waiting: int, sent: list[list[int]]) -> None:
    """Messages of an earlier slot are still there: the workers are slower than the timer."""
    for number in range(43):
        app.active[f"id-{number}"] = Versioned(running(id=f"id-{number}"), "1")
    app.waiting = waiting
    app.on_advance = lambda current: current
    app.run(5, most=1)
    assert [ids for _, ids in app.sent] == [[f"id-{number}" for number in batch] for batch in sent]


def test_finished_overflow_is_not_queued_again(app: PollerApp) -> None:
    app.add(1)
    app.add(2)
    send = app.send

    def take(ids: Sequence[str]) -> None:
        send(ids)
        for found in ids:
            del app.active[found]

    app.send = take  # type: ignore[method-assign]
    assert app.run(60, most=1) == SlotSummary(passes=2, moves=1, passed_on=1, left=0, oldest_seconds=None)
    assert app.sent == [(0, [name(2)])]


def test_slot_goes_on_while_work_is_running(app: PollerApp) -> None:
    """A copy of minutes must not keep the other generations waiting until it ends."""

    def copy_until_the_other_ended(current: Versioned) -> None:
        if current.generation.id == name(1):
            while name(2) in app.active:
                time.sleep(0.01)
                app.now = min(app.now + seconds(0.5), NOON + seconds(75))
        del app.active[current.generation.id]

    app.add(1)
    app.add(2, due=70)
    app.on_advance = copy_until_the_other_ended
    app.run(60, threads=2)
    assert app.active == {}
    assert app.now < NOON + seconds(80)


def test_slot_that_goes_on_has_a_limit(app: PollerApp) -> None:
    def copy_for_hours(current: Versioned) -> None:
        while app.now < NOON + 3 * LONGEST_SLOT:
            time.sleep(0.01)
            app.now += seconds(5)
        del app.active[current.generation.id]

    app.add(1)
    app.on_advance = copy_for_hours
    app.run(60)
    assert app.listings[-1] < 60 + 2 * LONGEST_SLOT.total_seconds()


def test_running_work_counts_towards_the_limit(app: PollerApp) -> None:
    def end_after_the_second_listing(current: Versioned) -> None:
        app.add(9)
        while len(app.listings) < 2:
            time.sleep(0.01)
            app.now += seconds(0.05)
        app.active.pop(current.generation.id)

    for number in range(3):
        app.add(number)
    app.on_advance = end_after_the_second_listing
    app.run(15, threads=3, most=3)
    assert [ids for _, ids in app.sent] == [[name(9)]]


@pytest.mark.parametrize("failing", ["send", "count"])
def test_queue_outage_loses_nothing(app: PollerApp, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def unavailable(*_: Sequence[str]) -> None:
        raise StorageUnavailableError("send message")

    app.add(1)
    app.add(2)
    monkeypatch.setattr(app, failing, unavailable)
    done = app.run(most=1)
    assert (done.failures > 0, done.passed_on, app.active) == (True, 0, {})


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-23T{text}").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "expected"),
    [
        # One second before the next tick, so that the tick begins in time.
        ("0 * * * * *", "12:00:00", at("12:00:59")),
        ("0 * * * * *", "12:00:00.250", at("12:00:59")),
        ("0 * * * * *", "12:00:30", at("12:00:59")),
        ("*/10 * * * * *", "12:00:00", at("12:00:09")),
        ("*/10 * * * * *", "12:00:07.5", at("12:00:09")),
        # The next tick is too near for a slot: end before the tick after it.
        ("*/10 * * * * *", "12:00:09", at("12:00:19")),
        ("*/10 * * * * *", "12:00:08.5", at("12:00:19")),
        ("* * * * * *", "12:00:00", at("12:00:01")),
        ("*/2 * * * * *", "12:00:00", at("12:00:01")),
        # A rare schedule: the slot must end before the function's timeout.
        ("0 */15 * * * *", "12:00:00", at("12:05:00")),
        ("0 0 0 1 1 *", "12:00:00", at("12:05:00")),
        ("0 0 * * * *", "12:58:00", at("12:59:59")),
    ],
)
def test_slot_lasts_until_just_before_the_next_tick(schedule: str, now: str, expected: datetime) -> None:
    assert slot_end(schedule, at(now)) == expected


def test_slot_lasts_five_minutes_at_most() -> None:
    assert slot_end("0 0 0 1 1 *", NOON) - NOON == LONGEST_SLOT == timedelta(minutes=5)


def test_work_of_the_last_pass_waits_for_a_thread(app: PollerApp) -> None:
    for number in range(1, 6):
        app.add(number)
    done = app.run(1, threads=1, most=5)  # with a schedule of two seconds, each slot is one pass
    assert (done.passes, done.moves) == (1, 5)


def one_each(app: PollerApp, length: float) -> Callable[[Sequence[str]], Turns]:
    """Give the oldest a turn, at most once in so many seconds. The worker begins it at once."""
    free_at = app.now

    def give(waiting: Sequence[str]) -> Turns:
        nonlocal free_at
        if not waiting or app.now < free_at:
            return Turns({}, free_at)
        free_at = app.now + seconds(length)
        app.active[waiting[0]] = Versioned(running(id=waiting[0], due=NOON + seconds(9_999)), "2")
        return Turns({waiting[0]: ANY_TURN}, free_at)

    return give


def test_turns_are_told_oldest_first(app: PollerApp) -> None:
    for number in range(1, 5):
        app.add_waiting(number, due=45)
    app.give = one_each(app, 10)
    done = app.run(35)
    assert app.sent == [(0, [name(1)]), (10, [name(2)]), (20, [name(3)]), (30, [name(4)])]
    assert (done.turns, done.moves, app.advanced) == (4, 0, [])


def test_slot_itself_begins_what_needs_no_worker(app: PollerApp) -> None:
    app.add_waiting(1, queued=False)
    app.add_waiting(2, queued=False)
    app.on_tell = lambda _: False
    app.give = lambda waiting: Turns(dict.fromkeys(waiting[:1], ANY_TURN), app.now + seconds(5))
    done = app.run(20)
    assert app.advanced == [(0, name(1)), (5, name(2))]
    assert (app.sent, done.turns) == ([], 2)


def test_deployment_that_is_not_paced_is_advanced_as_ever(app: PollerApp) -> None:
    app.add_waiting(1, due=3)  # its message counts as lost then
    app.add_waiting(2, due=99)
    app.run(10)
    assert app.advanced == [(3, name(1))]


def test_each_model_has_its_own_turns(app: PollerApp) -> None:
    app.add_waiting(1)
    app.add_waiting(2)
    other = app.active[name(2)].generation
    app.write(other.changed(request=other.request.model_copy(update={"model": "other"})), "1")
    app.run(1)
    assert app.asked == [(0, [name(1)]), (0, [name(2)])]


def test_turns_go_on_until_the_slot_ends(app: PollerApp) -> None:
    """The `due` of a new record lies after the slot: then its message counts as lost."""
    for number in range(1, 4):
        app.add_waiting(number, due=45)
    app.give = one_each(app, 10)
    app.run(30)
    assert [when for when, _ in app.sent] == [0, 10, 20]


def test_slot_ends_if_the_next_turn_is_later(app: PollerApp) -> None:
    app.add_waiting(1)
    app.give = lambda _: Turns({}, NOON + seconds(3_600))
    done = app.run()
    assert (done.passes, done.left) == (1, 1)


def test_backing_off_generation_asks_for_no_turn(app: PollerApp) -> None:
    app.add_waiting(1, due=4, queued=False)
    app.give = one_each(app, 10)
    app.run(10)
    assert [ids for _, ids in app.asked] == [[], [], [], [], [name(1)]]


def test_failed_turns_are_asked_again_after_five_seconds(app: PollerApp) -> None:
    app.add_waiting(1, queued=False)
    app.add(2)
    give = one_each(app, 10)

    def fail_once(waiting: Sequence[str]) -> Turns:
        if app.now == NOON:
            raise StorageUnavailableError("read throttling")
        return give(waiting)

    app.give = fail_once
    done = app.run(20)
    assert app.advanced == [(0, name(2))]  # the others go on
    assert (app.sent, done.failures) == ([(5, [name(1)])], 1)


def test_turn_that_could_not_be_told_is_taken_back(app: PollerApp) -> None:
    app.add_waiting(1)
    app.add_waiting(2)

    def tell(generation_id: str) -> bool:
        if generation_id == name(1):
            raise StorageUnavailableError("send message")
        return True

    app.on_tell = tell
    app.give = lambda waiting: Turns(dict.fromkeys(waiting, ANY_TURN), app.now + seconds(99))
    done = app.run(1)
    assert app.taken_back == [name(1), name(2)]  # no second send in a pass whose first one failed
    assert (done.turns, done.failures, app.advanced) == (0, 2, [])


def test_expired_generation_is_ended_and_waits_for_no_turn(app: PollerApp) -> None:
    app.add_waiting(1, due=3, deadline=3)
    app.give = lambda _: Turns({}, NOON + seconds(2))
    app.run(10)
    assert app.advanced == [(3, name(1))]


def test_record_of_the_version_before_is_advanced(app: PollerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata name no model, so it is not paced. The worker that gets its message waits for the quota."""
    app.add_waiting(1)
    old = [ActiveEntry(name(1), "1", NOON, "notRunning")]
    monkeypatch.setattr(app, "list_active", lambda: old[: len(app.active)])
    app.give = lambda _: Turns({}, NOON + seconds(3_600))
    app.run(10)
    assert (app.asked, app.advanced) == ([], [(0, name(1))])
