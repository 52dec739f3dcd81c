"""Turns for a deployment: how fast, to whom, and what other instances learn. The clock is the test's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.lifecycle.pacing import Gate, Pacer
from imagegen.lifecycle.ports import Member, Pace, Ports
from imagegen.upstream.protocol import Throttle
from tests.app.fakes import Clock, FakeDirect, FakeImages, FakeQueue, FakeRecords, Steps
from tests.app.generations import NOON, seconds

MODEL = "gpt"
MANY = [f"id-{number:04}" for number in range(2_000)]


class Given(NamedTuple):
    """What a pass of the timer gave."""

    ids: tuple[str, ...]
    next_at: datetime


def member(model: str, per_minute: int | None) -> Member:
    return Member(None, model, FakeDirect(Steps()), per_minute)


@dataclass
class PacedApp:
    """One process with a timer. A new one with the same `stored` is the process after a restart."""

    clock: Clock = field(default_factory=Clock)
    throttle: Throttle | None = None
    stored: Pace | None = None
    written: list[tuple[datetime, Pace]] = field(default_factory=list[tuple[datetime, Pace]])
    fails: bool = False
    configured: Mapping[str, int] = field(default_factory=dict[str, int])
    waiting: list[str] = field(default_factory=lambda: list(MANY))

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        steps = Steps()
        ports = Ports(
            records=FakeRecords(steps),
            images=FakeImages(steps),
            models={name: [member(name, self.configured.get(name))] for name in (MODEL, "flux")},
            throttling=self,
            queue=FakeQueue(steps),
            clock=self.clock,
            repeat_lost_calls=True,
        )
        self.pacer = Pacer(ports, send=lambda _model, _id, _turn: True)

    def pause(self, model: str, throttle: Throttle) -> None:
        raise NotImplementedError

    def current(self, model: str) -> Throttle | None:
        return self.throttle

    def pace(self, model: str) -> Pace | None:
        return self.stored

    def set_pace(self, model: str, pace: Pace) -> None:
        if self.fails:
            raise StorageUnavailableError("write throttling")
        self.stored = pace
        self.written.append((self.clock.now, pace))

    def refuse(self, retry_after: float) -> None:
        """The service answers 429, and a worker pauses the deployment."""
        self.throttle = Throttle(self.clock.now + seconds(retry_after), "status 429")

    def turns(self) -> Given:
        """A pass of the timer, whose turns the workers take at once."""
        turns = self.pacer.turns(MODEL, self.waiting)
        assert turns is not None
        self.waiting = [one for one in self.waiting if one not in turns.given]
        return Given(tuple(turns.given), turns.next_at)

    def run(self, length: int) -> int:
        """A pass each second. Return the number of turns."""
        given = 0
        for _ in range(length):
            self.clock.now += seconds(1)
            given += len(self.turns().ids)
        return given

    @property
    def rate(self) -> float:
        assert self.stored
        return self.stored.per_minute


def configured(per_minute: int = 10, **fields: Pace | None) -> PacedApp:
    return PacedApp(configured={MODEL: per_minute}, **fields)  # pyright: ignore[reportArgumentType]


def learning() -> PacedApp:
    """A deployment without a configured quota, right after its first pause."""
    app = PacedApp()
    app.refuse(10)
    app.turns()
    app.clock.now += seconds(10)
    return app


@pytest.mark.parametrize("per_minute", [1, 6, 10, 60, 600])
def test_configured_quota_is_the_rate(per_minute: int) -> None:
    app = configured(per_minute)
    app.waiting = [str(number) for number in range(10_000)]
    first = len(app.turns().ids)
    assert first == 1
    assert first + app.run(600) == pytest.approx(10 * per_minute, abs=1)


def test_oldest_get_their_turns_first() -> None:
    app = configured()
    given = list(app.turns().ids)
    for _ in range(60):
        app.clock.now += seconds(1)
        given += app.turns().ids
    assert given == MANY[: len(given)]


def test_next_turn_is_told() -> None:
    app = configured(10)
    assert app.turns() == Given((MANY[0],), NOON + seconds(6))
    app.clock.now += seconds(4)
    assert app.turns() == Given((), NOON + seconds(6))


def test_late_pass_lets_no_more_begin() -> None:
    """A pass of the timer may come a minute late. The service would refuse the calls of a whole minute at once."""
    app = configured(60)
    app.turns()
    app.clock.now += seconds(50)
    assert len(app.turns().ids) == 4


def test_deployment_without_waiting_ones_is_not_paced() -> None:
    assert PacedApp().pacer.turns(MODEL, MANY) is None
    app = PacedApp(throttle=Throttle(NOON - seconds(61), "status 429"))
    assert app.pacer.turns(MODEL, MANY) is None
    assert app.written == []


def test_old_pace_is_the_first_rate_but_does_not_pace() -> None:
    app = PacedApp(stored=Pace(42, 50, NOON - seconds(61)))
    assert app.pacer.turns(MODEL, MANY) is None
    app.refuse(1)
    app.turns()
    assert app.stored
    assert (app.stored.per_minute, app.stored.ceiling) == (42, 50)


def test_first_rate_is_six_a_minute() -> None:
    assert learning().rate == 6


def test_old_pace_above_the_quota_is_not_used() -> None:
    """The quota was lowered since."""
    app = configured(10, stored=Pace(42, 50, NOON - seconds(3_600)))
    app.turns()
    assert app.rate == 10


def test_pause_gives_nobody_a_turn() -> None:
    app = configured()
    app.turns()
    app.refuse(40)
    for _ in range(39):
        app.clock.now += seconds(1)
        assert app.turns() == Given((), NOON + seconds(40))


@pytest.mark.parametrize("make", [configured, learning])
def test_pause_ends_with_one_turn(make: Callable[[], PacedApp]) -> None:
    """The end of Retry-After is a promise of the service, for one call."""
    app = make()
    app.turns()
    app.refuse(40)
    app.run(39)
    app.clock.now += seconds(1)
    assert len(app.turns().ids) == 1
    assert app.run(4) == 0


def test_refusal_lowers_the_rate() -> None:
    app = configured()
    app.turns()
    app.refuse(5)
    app.run(1)
    assert app.rate == pytest.approx(8.8)
    assert app.stored
    assert app.stored.ceiling == 10


def test_refusals_of_the_same_moment_are_one() -> None:
    """Several calls are under way when the quota is used up. Each extends the pause a little."""
    app = configured()
    app.turns()
    for retry_after in (5, 5, 7, 8):
        app.refuse(retry_after)
        app.turns()
    assert app.rate == pytest.approx(8.8)
    app.clock.now += seconds(20)
    app.run(60)
    before = app.rate
    app.refuse(5)
    app.run(1)
    assert app.rate == pytest.approx(before * 0.88, rel=0.02)


def test_rate_never_falls_to_zero() -> None:
    app = configured()
    for _ in range(200):
        app.refuse(2)
        app.run(9)
    assert 0.19 < app.rate < 10


def test_refusals_of_the_first_call_after_each_pause_say_nothing_about_the_rate() -> None:
    """A quota that is used up for an hour, such as a limit of the bill."""
    app = learning()
    app.run(20)
    app.refuse(3)
    app.run(60)
    before = app.rate
    app.refuse(30)
    for _ in range(60):
        app.run(31)  # one turn
        app.refuse(30)
    assert app.rate > before / 2


def test_rate_returns_to_the_quota_and_not_beyond() -> None:
    app = configured()
    app.turns()
    app.refuse(5)
    app.run(60)
    assert app.rate == 10


def test_first_rate_doubles_until_it_is_refused() -> None:
    app = learning()
    app.run(31)
    assert app.rate == pytest.approx(6 * 2**3, rel=0.1)
    reached = app.rate
    app.refuse(2)
    app.run(3)
    assert app.stored
    assert app.rate == pytest.approx(reached / 2, rel=0.1)
    assert app.stored.ceiling == pytest.approx(reached, rel=0.1)


def test_known_rate_grows_slowly_near_the_last_refusal() -> None:
    """From 12 % below, it takes more than a minute: few calls are refused."""
    app = PacedApp(stored=Pace(60, 70, NOON - seconds(61)))
    app.refuse(1)
    app.run(2)  # the pause was there before this process: no refusal
    rates: list[float] = []
    for _ in range(120):
        app.run(1)
        rates.append(app.rate)
    far = next(number for number, rate in enumerate(rates) if rate >= 63)
    beyond = next(number for number, rate in enumerate(rates) if rate >= 70)
    assert far <= 6
    assert 60 <= beyond - far <= 90


def test_low_rate_grows_more_slowly() -> None:
    """In ten minutes at one a minute, ten calls show what the quota is, not a hundred."""
    app = PacedApp(stored=Pace(1, 1.1, NOON - seconds(61)))
    app.refuse(1)
    app.run(600)
    assert app.rate < 1.2


def test_no_turns_are_saved_up() -> None:
    app = configured(6)
    app.turns()
    app.waiting, waiting = [], app.waiting
    app.run(50)
    app.waiting = waiting
    app.clock.now += seconds(1)
    assert len(app.turns().ids) == 1


def test_turn_is_given_once() -> None:
    """The message of a turn waits for a worker. A second one would be a second message."""
    app = configured(60)
    first = app.turns().ids
    app.waiting = [*first, *app.waiting]
    assert not set(first) & {one for _ in range(30) for one in _ids(app)}


def _ids(app: PacedApp) -> tuple[str, ...]:
    app.clock.now += seconds(1)
    return app.turns().ids


@pytest.mark.parametrize(("paused", "again"), [(False, 600), (True, 20)])
def test_turn_is_given_again_if_nothing_begins(paused: bool, again: int) -> None:
    """In a pause, the worker may have come too early, and left the generation to its turn."""
    app = configured(60)
    one = app.waiting[:1]
    app.waiting = list(one)
    assert app.turns().ids == tuple(one)
    if paused:
        app.refuse(1)
    for passed in range(1, 700):
        app.waiting = list(one)
        if _ids(app):
            assert again <= passed <= again + 2
            return
    pytest.fail("no second turn")


def test_turn_that_was_not_told_is_taken_back() -> None:
    app = configured(6)
    [first] = app.turns().ids
    app.pacer.take_back(first)
    app.waiting = [first, *app.waiting]
    assert _ids(app) == (MANY[1],)  # another one has the turn
    for _ in range(25):
        if first in _ids(app):
            return
        app.waiting = [first, *app.waiting] if first not in app.waiting else app.waiting
    pytest.fail("it never gets another")


def test_taking_back_a_turn_of_an_unknown_lane_is_harmless() -> None:
    configured().pacer.take_back(MANY[0])


def test_other_instances_are_told_before_a_turn_is_given() -> None:
    """If the turn came first and the write failed, the generation would wait ten minutes for another turn."""
    app = configured(60)
    app.fails = True
    with pytest.raises(StorageUnavailableError):
        app.turns()
    app.fails = False
    assert app.turns().ids == (MANY[0],)


def test_lease_is_renewed_about_nine_times_a_minute() -> None:
    app = configured()
    app.turns()
    app.run(600)
    assert len(app.written) <= 91
    assert all(later <= pace.until for (_, pace), (later, _) in pairwise(app.written))  # no gap
    assert all(pace.until <= when + seconds(15) for when, pace in app.written)


def test_nobody_waiting_renews_no_lease() -> None:
    """Generations whose submit is under way are not to be paced."""
    app = configured()
    app.waiting = []
    assert app.run(30) == 0
    assert app.written == []


def test_rate_grows_only_while_generations_wait() -> None:
    """Without calls, nothing shows that the service takes more."""
    app = learning()
    app.waiting, waiting = [], app.waiting
    app.run(40)
    app.waiting = waiting
    app.run(1)
    assert app.rate == pytest.approx(6, rel=0.1)


def test_large_change_of_the_rate_is_told_at_once() -> None:
    app = configured()
    app.turns()
    app.refuse(2)
    app.run(1)
    [(first, _), (second, _)] = app.written
    assert second - first == seconds(1)


@pytest.mark.parametrize("after", [0, 1, 14])
def test_restart_gives_no_extra_turn(after: float) -> None:
    app = configured(6)
    app.turns()
    app.clock.now += seconds(after)
    app.restart()
    assert app.turns().ids == ()
    assert app.run(10) == 1


def test_restart_keeps_the_rate() -> None:
    app = learning()
    app.run(20)
    app.refuse(3)
    app.run(120)
    before = app.stored
    assert before
    app.restart()
    app.run(1)
    assert app.rate == pytest.approx(before.per_minute, rel=0.1)
    assert app.stored
    assert app.stored.ceiling == pytest.approx(before.ceiling)


def test_restart_during_a_pause_is_no_second_refusal() -> None:
    app = configured()
    app.turns()
    app.refuse(30)
    app.run(5)
    for _ in range(3):
        app.restart()
        assert app.run(2) == 0
    assert app.rate == pytest.approx(8.8)


def test_deployments_have_their_own_turns() -> None:
    app = PacedApp(configured={MODEL: 10, "flux": 10})
    for model in (MODEL, "flux"):
        app.stored = None
        turns = app.pacer.turns(model, MANY)
        assert turns
        assert len(turns.given) == 1


def test_time_of_a_number_of_calls() -> None:
    assert Pace(10, None, NOON).seconds_for(25) == 150


def test_gate_lets_the_calls_of_ten_seconds_begin() -> None:
    clock = Clock()
    gate = Gate(clock)
    assert [gate.lets_begin(member(MODEL, 30)) for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now += seconds(2)
    assert [gate.lets_begin(member(MODEL, 30)) for _ in range(2)] == [True, False]
    clock.now += seconds(3_600)
    assert [gate.lets_begin(member(MODEL, 30)) for _ in range(6)] == [True] * 5 + [False]


def test_gate_lets_one_begin_of_the_smallest_quota() -> None:
    clock = Clock()
    gate = Gate(clock)
    assert [gate.lets_begin(member(MODEL, 1)) for _ in range(2)] == [True, False]
    clock.now += seconds(59)
    assert not gate.lets_begin(member(MODEL, 1))
    clock.now += seconds(1)
    assert gate.lets_begin(member(MODEL, 1))


def test_gate_is_open_without_a_quota() -> None:
    gate = Gate(Clock())
    assert all(gate.lets_begin(member("other", None)) for _ in range(100))


def test_timer_that_comes_back_uses_what_another_one_learned() -> None:
    """Early ticks move the slot from instance to instance."""
    app = configured(60)
    app.run(2)
    ours = app.pacer
    app.restart()
    app.run(2)
    for _ in range(3):
        app.refuse(3)
        app.run(5)
    theirs = app.rate
    assert theirs < 60

    app.pacer = ours
    app.run(1)
    assert app.rate == pytest.approx(theirs, rel=0.02)  # and grown for a second
