"""The mark of a live slot: no start that relies on it is forgotten, whatever the order of the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations_with_replacement, count

import pytest

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Versioned
from imagegen.lifecycle.early_ticks import EarlyTicks
from imagegen.lifecycle.live_slot import Mark, SlotMark
from imagegen.lifecycle.pacing import Turns
from imagegen.lifecycle.poller import Poller, slot_end
from imagegen.lifecycle.ports import ActiveEntry, Turn
from tests.app.fakes import Crash, FakeLiveSlot, FakeQueue, Steps
from tests.app.generations import ID, NOON, running, seconds

MINUTE = "0 * * * * *"
WITHIN = 3.0
"""Seconds after `due` in which a generation must be advanced."""


def name(number: int) -> str:
    return f"{ID[:-1]}{number}"


class Unpaced:
    """No model is paced."""

    def turns(self, model: str, waiting: Sequence[str]) -> Turns | None:
        return None

    def take_back(self, generation_id: str) -> None:
        raise NotImplementedError

    def tell(self, model: str, generation_id: str, turn: Turn) -> bool:
        raise NotImplementedError


UNPACED = Unpaced()


@dataclass
class World:
    """Storage, two instances and a clock. A step is a storage request, or half a second of sleep.

    Messages are delivered during sleep, once they are visible, also while another slot sleeps.
    """

    now: datetime = NOON
    active: dict[str, Versioned] = field(default_factory=dict[str, Versioned])
    advanced: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds after noon, by id."""
    visible: list[datetime] = field(default_factory=list[datetime])
    """Messages."""
    at: dict[int, list[Callable[[], None]]] = field(default_factory=dict[int, list[Callable[[], None]]])
    """What other instances do, by the number of the step before which they do it."""
    steps: count[int] = field(default_factory=count)
    journal: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.blob = FakeLiveSlot(Steps())
        self.poller = Poller(
            records=self,
            advance=self.advance,
            clock=lambda: self.now,
            queue=FakeQueue(Steps()),
            turns=UNPACED,
            threads=1,
            most=100,
            on_outage=lambda: None,
            sleep=self.sleep,
        )
        self.starter = EarlyTicks(
            self.blob, self, schedule=MINUTE, clock=lambda: self.now, monotonic=lambda: self.now.timestamp()
        )

    # --- What a slot does, step by step

    def list_active(self) -> list[ActiveEntry]:
        self.journal.append("list")
        self.step()
        listed = [ActiveEntry(one, "1", found.generation.due, "running") for one, found in self.active.items()]
        self.step()
        return listed

    def read_listed(self, entry: ActiveEntry) -> Versioned | None:
        return self.read_active(entry.id)

    def read_active(self, generation_id: str) -> Versioned | None:
        return self.active.get(generation_id)

    def advance(self, current: Versioned, turn: Turn) -> None:
        del self.active[current.generation.id]
        self.advanced[current.generation.id] = (self.now - NOON).total_seconds()

    def sleep(self, length: float) -> None:
        self.journal.append("sleep")
        end = self.now + seconds(length)
        while self.now < end:
            self.step()
            self.now = min(end, self.now + seconds(0.5))
            self.deliver()

    def read(self) -> Mark | None:
        self.step()
        return self.blob.read()

    def replace(self, found: Mark | None, until: datetime) -> str:
        self.step()
        return self.blob.replace(found, until)

    def write(self, until: datetime) -> str:
        self.journal.append("write")
        self.step()
        return self.blob.write(until)

    def clear(self, etag: str) -> None:
        self.journal.append("clear")
        self.step()
        self.blob.clear(etag)

    def step(self) -> None:
        for act in self.at.pop(next(self.steps), []):
            act()

    # --- What other instances do

    def start(self, number: int, *, due: float) -> None:
        """Write the record of a generation, and ask for a slot."""
        generation = running(id=name(number), due=self.now + seconds(due))
        self.active[generation.id] = Versioned(generation, "1")
        self.starter.request(generation.due)

    def start_and_cancel(self) -> None:
        """The start of a generation that is canceled at once: this instance knows the mark from now on."""
        self.starter.request(self.now + seconds(1))

    def send(self, delay: int) -> None:
        self.visible.append(self.now + seconds(delay))

    # --- The slots

    def tick(self) -> None:
        """The timer's slot."""
        ends = slot_end(MINUTE, self.now)
        self.poller.run(ends, SlotMark(self, ends))

    def deliver(self) -> None:
        """Run the handler of each visible message."""
        while self.visible and min(self.visible) <= self.now:
            self.visible.remove(min(self.visible))
            ends = slot_end(MINUTE, self.now)
            mark = SlotMark(self, ends)
            if mark.claim(self.now):
                self.poller.run(ends, mark)


def a_slot_that_ends_early() -> World:
    world = World()
    world.active[name(1)] = Versioned(running(id=name(1), due=NOON + seconds(1)), "1")
    return world


def number_of_steps() -> int:
    world = a_slot_that_ends_early()
    world.tick()
    assert world.now < NOON + seconds(10)
    return next(world.steps)


@pytest.mark.parametrize("due", [0.0, 1.5, 3.0])
def test_start_at_any_step_of_a_slot_is_seen_in_time(due: float) -> None:
    """Before one step an instance reads the mark; before the same or a later one, it starts a generation."""
    steps = range(number_of_steps() + 1)
    forgotten: list[tuple[int, int, float | None]] = []
    for reads, starts in combinations_with_replacement(steps, 2):
        world = a_slot_that_ends_early()
        began: list[datetime] = []

        def start(world: World = world, began: list[datetime] = began) -> None:
            began.append(world.now)
            world.start(2, due=due)

        world.at[reads] = [world.start_and_cancel]
        world.at.setdefault(starts, []).append(start)
        world.tick()
        while world.at:  # the slot has ended before these steps
            world.step()
        world.sleep(20)
        advanced = world.advanced.get(name(2))
        latest = (began[0] - NOON).total_seconds() + due + WITHIN
        if advanced is None or advanced > latest:
            forgotten.append((reads, starts, advanced))
    assert forgotten == []


def test_last_listing_of_a_slot_comes_after_the_mark_is_cleared() -> None:
    world = a_slot_that_ends_early()
    world.tick()
    assert world.journal == ["list", "write", "sleep", "list", "sleep", "list", "clear", "sleep", "list"]


def test_idle_slot_writes_no_mark() -> None:
    world = World()
    world.tick()
    assert world.blob.steps.taken == []


def test_mark_is_set_again_for_work_of_the_last_listing() -> None:
    world = a_slot_that_ends_early()
    clear = world.blob.clear

    def clear_then_start(etag: str) -> None:
        clear(etag)
        world.blob.clear = clear
        world.active[name(2)] = Versioned(running(id=name(2), due=world.now + seconds(5)), "1")

    world.blob.clear = clear_then_start
    world.tick()
    assert world.blob.steps.taken == ["write slot", "clear slot", "write slot", "clear slot"]
    assert name(2) in world.advanced


def test_slot_that_ends_by_time_leaves_its_mark() -> None:
    """The mark has expired by itself: it ends before the last listing."""
    world = World()
    world.active[name(1)] = Versioned(running(id=name(1), due=NOON + seconds(4.5)), "1")
    ends = NOON + seconds(5)
    world.poller.run(ends, SlotMark(world, ends))
    assert world.blob.steps.taken == ["write slot"]
    assert world.blob.mark == Mark("etag 1", ends - seconds(1))


# --- Claims


def test_message_starts_no_slot_while_one_is_live() -> None:
    blob = FakeLiveSlot(Steps(), Mark("1", NOON + seconds(1)))
    assert not SlotMark(blob, NOON + seconds(59)).claim(NOON)
    assert blob.steps.taken == []


@pytest.mark.parametrize(
    "found", [None, Mark("1", None), Mark("1", NOON)], ids=["first slot", "cleared", "expired: ended, or crashed"]
)
def test_message_starts_a_slot_when_none_is_live(found: Mark | None) -> None:
    blob = FakeLiveSlot(Steps(), found)
    assert SlotMark(blob, NOON + seconds(59)).claim(NOON)
    assert blob.mark
    assert blob.mark.until == NOON + seconds(58)


def test_of_two_messages_at_once_one_starts_a_slot() -> None:
    blob = FakeLiveSlot(Steps())
    first, second = (SlotMark(blob, NOON + seconds(59)) for _ in range(2))
    blob.before_replace = lambda: second.claim(NOON) and None
    assert not first.claim(NOON)


def test_message_delivered_twice_starts_one_slot() -> None:
    blob = FakeLiveSlot(Steps())
    assert [SlotMark(blob, NOON + seconds(59)).claim(NOON) for _ in range(2)] == [True, False]


# --- Crashes and failures


@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", [0, 1], ids=["replace", "clear"])
def test_slot_that_crashes_leaves_the_work_to_the_timer(step: int, fail_after: bool) -> None:
    world = World()
    world.start(1, due=5)
    [visible] = world.visible
    world.blob.steps.fail_at, world.blob.steps.fail_after = step, fail_after
    world.sleep(4)
    with pytest.raises(Crash):
        world.sleep(16)
    assert NOON + seconds(4) < visible <= world.now
    world.now = NOON + seconds(60)
    world.start(2, due=1)
    world.tick()
    assert set(world.advanced) == {name(1), name(2)}
    assert world.blob.mark
    assert world.blob.mark.until is None


def test_slot_that_cannot_clear_its_mark_goes_on_until_it_can() -> None:
    world = a_slot_that_ends_early()
    world.blob.steps.fail_at, world.blob.steps.failure = 1, StorageUnavailableError
    world.tick()
    assert world.blob.steps.taken == ["write slot", "clear slot", "clear slot"]
    assert world.now < NOON + seconds(10)


def test_slot_works_without_its_mark() -> None:
    world = a_slot_that_ends_early()
    world.blob.steps.fail_at, world.blob.steps.failure = 0, StorageUnavailableError
    world.tick()
    assert world.advanced == {name(1): 1.0}


@pytest.mark.parametrize("method", ["read", "replace"])
def test_claim_without_storage_runs_the_slot(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    blob = FakeLiveSlot(Steps())

    def fail(*_: object) -> None:
        raise StorageUnavailableError("slot")

    monkeypatch.setattr(blob, method, fail)
    assert SlotMark(blob, NOON + seconds(59)).claim(NOON)


def test_slot_does_not_clear_the_mark_of_another() -> None:
    blob = FakeLiveSlot(Steps())
    early, timer = (SlotMark(blob, NOON + seconds(59)) for _ in range(2))
    assert early.claim(NOON)
    timer.set()
    early.clear()
    assert blob.mark
    assert blob.mark.until == NOON + seconds(58)


def test_lost_race_is_a_conflict() -> None:
    blob = FakeLiveSlot(Steps(), Mark("2", None))
    with pytest.raises(ConflictError):
        blob.replace(Mark("1", None), NOON)
