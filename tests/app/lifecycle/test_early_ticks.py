"""Early ticks: when a message is sent, and how few."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import GenerationError, Status
from imagegen.lifecycle.early_ticks import EarlyTicks
from imagegen.lifecycle.live_slot import Mark
from imagegen.lifecycle.ports import Pace
from imagegen.upstream.protocol import Accepted, Ended, Lost, Throttled, Unavailable
from tests.app.fakes import CallOutcome, Clock, Crash, FakeLiveSlot, Steps
from tests.app.generations import DIRECT, ID, NOON, OPERATION, seconds
from tests.app.lifecycle.fake_app import FakeApp


@dataclass
class Instance:
    """One process. The time is noon, which is a tick of the timer; the next tick comes a minute later."""

    blob: FakeLiveSlot = field(default_factory=lambda: FakeLiveSlot(Steps()))
    clock: Clock = field(default_factory=Clock)
    delays: list[int] = field(default_factory=list[int])
    """Of the messages."""
    failure: type[BaseException] | None = None

    def __post_init__(self) -> None:
        self.ticks = EarlyTicks(
            self.blob,
            self,
            schedule="0 * * * * *",
            clock=self.clock,
            monotonic=lambda: self.clock.now.timestamp(),
        )

    def send(self, delay: int) -> None:
        self.delays.append(delay)
        if self.failure:
            raise self.failure

    def request(self, *dues: float) -> list[int]:
        """Ask for slots, so many seconds after noon. Return the delays of all messages."""
        for due in dues:
            self.ticks.request(NOON + seconds(due))
        return self.delays


@pytest.fixture
def instance() -> Instance:
    return Instance()


@pytest.mark.parametrize(
    ("due", "delays"),
    [
        (8, [8]),
        (8.9, [8]),  # whole seconds; a slot that begins too early waits
        (0, [0]),
        (-5, [0]),
        (57.9, [57]),
        (58, []),  # the timer's tick comes within two seconds
        (61, []),
        (7_200, []),
    ],
)
def test_message_comes_when_the_work_is_due(instance: Instance, due: float, delays: list[int]) -> None:
    assert instance.request(due) == delays


def test_work_after_the_limit_is_left_to_a_rare_timer() -> None:
    instance = Instance()
    instance.ticks = EarlyTicks(instance.blob, instance, schedule="0 0 0 1 1 *", clock=instance.clock)
    assert instance.request(3_601) == []
    assert instance.request(3_600) == [3_600]


@pytest.mark.parametrize(
    ("until", "delays"),
    [(9, []), (8.1, []), (8, [8]), (-1, [8]), (None, [8])],
)
def test_live_slot_needs_no_message(instance: Instance, until: float | None, delays: list[int]) -> None:
    instance.blob.mark = Mark("1", None if until is None else NOON + seconds(until))
    assert instance.request(8) == delays


def test_message_for_the_same_moment_is_sent_once(instance: Instance) -> None:
    assert instance.request(8, 8, 30, 6) == [8]  # its slot sees the later work too, and comes soon enough for 6
    assert instance.request(5.9) == [8, 5]


def test_message_is_sent_again_when_the_last_one_is_over(instance: Instance) -> None:
    instance.request(8)
    instance.clock.now = NOON + seconds(8.9)  # the slot of that message lists once more after this
    assert instance.request(12) == [8]
    instance.clock.now = NOON + seconds(9)
    assert instance.request(12) == [8, 3]


def test_mark_is_read_once_a_second(instance: Instance) -> None:
    instance.blob.mark = Mark("1", NOON + seconds(50))
    instance.request(8, 9, 10)
    instance.clock.now = NOON + seconds(0.9)
    instance.request(8)
    assert instance.blob.reads == 1
    instance.clock.now = NOON + seconds(1)
    instance.request(8)
    assert (instance.blob.reads, instance.delays) == (2, [])


def test_burst_of_an_idle_app_sends_one_message_a_process(instance: Instance) -> None:
    dues = [NOON + seconds(3 + number / 1_000) for number in range(1_000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(instance.ticks.request, dues))
    assert (instance.delays, instance.blob.reads) == ([3], 1)


def test_long_burst_without_a_slot_sends_a_message_every_few_seconds(instance: Instance) -> None:
    """No slot comes, as when the queue function is disabled: 1,000 starts in 20 s."""
    for number in range(1_000):
        instance.clock.now = NOON + seconds(number / 50)
        instance.ticks.request(instance.clock.now + seconds(3))
    assert instance.delays == [3] * 5


def test_overdue_work_sends_a_message_a_second_at_most(instance: Instance) -> None:
    for number in range(100):
        instance.clock.now = NOON + seconds(number / 20)
        instance.ticks.request(instance.clock.now)
    assert instance.delays == [0] * 5


def test_burst_during_a_live_slot_sends_nothing(instance: Instance) -> None:
    instance.blob.mark = Mark("1", NOON + seconds(58))
    for number in range(1_000):
        instance.clock.now = NOON + seconds(number / 50)
        instance.ticks.request(instance.clock.now + seconds(3))
    assert (instance.delays, instance.blob.reads) == ([], 20)


def test_unreadable_mark_counts_as_no_slot(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StorageUnavailableError("read slot")

    monkeypatch.setattr(instance.blob, "read", fail)
    assert instance.request(8, 8) == [8]


def test_failing_queue_is_not_asked_by_each_start_of_a_burst(instance: Instance) -> None:
    instance.failure = StorageUnavailableError
    assert instance.request(8, 8, 8) == [8]


# --- Starts


@dataclass
class Requests:
    app: FakeApp
    made: list[datetime] = field(default_factory=list[datetime])
    failure: type[BaseException] | None = None

    def __call__(self, due: datetime) -> None:
        self.made.append(due)
        self.app.steps.take("request", lambda: None)
        if self.failure:
            raise self.failure


@pytest.fixture
def requests(app: FakeApp) -> Requests:
    app.request_slot = made = Requests(app)
    return made


def test_start_asks_for_a_slot_when_its_record_is_written(app: FakeApp, requests: Requests) -> None:
    app.polled.submit_outcome = Accepted(OPERATION, 8.0)
    started = app.start()
    assert requests.made == [NOON + seconds(8)] == [started.due]
    assert app.steps.taken == ["create", f"submit {ID}", "save", "request"]


def test_throttled_start_asks_for_a_slot_after_the_pause(app: FakeApp, requests: Requests) -> None:
    app.polled.submit_outcome = Throttled("status 429", 30.0)
    assert requests.made == [] != [app.start().due] == requests.made


def test_start_that_needs_no_slot_asks_for_none(app: FakeApp, requests: Requests) -> None:
    app.start(DIRECT)
    app.polled.submit_outcome = Ended(Status.FAILED, GenerationError(code="contentFilter", message="No."))
    app.start()
    assert requests.made == []


@pytest.mark.parametrize(
    ("outcome", "due"), [(Throttled("status 429", 30.0), 30), (Lost("status 504"), 10), (Unavailable("503", 4.0), 4)]
)
def test_call_that_must_be_made_again_asks_for_a_slot(
    app: FakeApp, requests: Requests, outcome: CallOutcome, due: float
) -> None:
    app.direct.outcomes = [outcome]
    app.start(DIRECT)
    app.work()
    assert requests.made == [NOON + seconds(due)]


def test_generation_left_to_its_turn_asks_for_a_slot(app: FakeApp, requests: Requests) -> None:
    app.throttling.set_pace(DIRECT, Pace(10, None, NOON + seconds(15)))
    app.start(DIRECT)
    app.work()
    assert requests.made == [NOON + seconds(1)]


def test_finished_call_asks_for_no_slot(app: FakeApp, requests: Requests) -> None:
    app.start(DIRECT)
    app.work()
    assert (app.read().status, requests.made) == (Status.SUCCEEDED, [])


@pytest.mark.parametrize("failure", [StorageUnavailableError, RuntimeError])
def test_start_succeeds_when_it_cannot_ask(app: FakeApp, requests: Requests, failure: type[BaseException]) -> None:
    requests.failure = failure
    assert app.start().status is Status.RUNNING
    app.settle()
    assert app.read().status is Status.SUCCEEDED


@pytest.mark.parametrize("fail_after", [False, True])
def test_start_that_crashes_while_it_asks_is_finished_by_the_timer(
    app: FakeApp, requests: Requests, fail_after: bool
) -> None:
    app.steps.fail_at, app.steps.fail_after = 3, fail_after
    with pytest.raises(Crash):
        app.start()
    assert len(requests.made) == 1
    app.settle()
    assert (app.read().status, app.polled.operations) == (Status.SUCCEEDED, [ID])
