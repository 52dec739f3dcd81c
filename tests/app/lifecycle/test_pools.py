"""Pools: several deployments of one model. Three regions have three quotas."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from imagegen.generation import GenerationError, Status
from imagegen.lifecycle.ports import ANY_TURN, Member, Pace, Turn
from imagegen.lifecycle.quotas import Quotas
from imagegen.upstream.protocol import Answered, Ended, ImageBytes, Lost, Throttle, Throttled
from tests.app.fakes import Crash, FakeDirect, Steps
from tests.app.generations import DIRECT, ID, NOON, POLLED, seconds, throttle
from tests.app.lifecycle.fake_app import FakeApp
from tests.app.lifecycle.test_burst import Burst, Quota, QuotaDirect

IMAGES = Answered((ImageBytes(b"0"),))


class PoolApp:
    """The app with a pool of deployments ``a``, ``b`` and ``c``."""

    def __init__(self, names: str = "abc") -> None:
        self.burst = Burst()
        self.app = self.burst.app
        self.members = {name: FakeDirect(self.app.steps) for name in names}
        for member in self.members.values():
            member.outcomes = [IMAGES]
        self.configure(names)

    def configure(self, names: str) -> None:
        pool = [Member(name, f"{DIRECT}@{name}", self.members[name]) for name in names]
        self.app.configure({POLLED: self.app.polled, DIRECT: pool})

    @property
    def calls(self) -> dict[str, int]:
        return {name: len(member.calls) for name, member in self.members.items()}


def crash() -> None:
    """The process ends during the call."""
    raise Crash


def refusal(code: str) -> Ended:
    return Ended(Status.FAILED, GenerationError(code=code, message="No."))


def test_throttled_deployment_leaves_the_call_to_another() -> None:
    pool = PoolApp()
    pool.app.throttling.pause(f"{DIRECT}@a", throttle(600))
    for _ in range(4):
        pool.app.start(DIRECT)
    pool.app.work()
    assert pool.calls["a"] == 0
    assert pool.calls["b"] + pool.calls["c"] == 4


def test_call_goes_to_the_deployment_that_was_throttled_longest_ago() -> None:
    pool = PoolApp()
    for name, until in (("a", -10), ("b", -30), ("c", -20)):
        pool.app.throttling.pause(f"{DIRECT}@{name}", throttle(until))
    pool.app.start(DIRECT)
    pool.app.work()
    assert pool.calls == {"a": 0, "b": 1, "c": 0}


def test_429_pauses_one_deployment_and_the_next_call_goes_to_another_at_once() -> None:
    pool = PoolApp("ab")
    pool.members["a"].outcomes = [Throttled("status 429", 60)]
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))  # so that the first call goes to a
    pool.app.start(DIRECT)
    pool.app.work()
    assert pool.app.throttling.paused[f"{DIRECT}@a"] == throttle(60)
    assert DIRECT not in pool.app.throttling.paused
    pool.app.tick()
    pool.app.work()
    assert pool.calls == {"a": 1, "b": 1}
    assert pool.app.read().status is Status.SUCCEEDED


@pytest.mark.parametrize("code", ["upstreamUnauthorized", "upstreamForbidden", "upstreamNotFound"])
def test_refused_app_falls_over_to_another_deployment(code: str) -> None:
    pool = PoolApp()
    pool.members["a"].outcomes = pool.members["b"].outcomes = [refusal(code)]
    pool.app.start(DIRECT)
    pool.app.work()
    found = pool.app.read()
    assert (found.status, found.deployment, found.lost_calls) == (Status.SUCCEEDED, "c", 0)
    assert max(pool.calls.values()) == 1


def test_generation_that_no_deployment_accepts_fails_with_the_last_error() -> None:
    pool = PoolApp()
    for member in pool.members.values():
        member.outcomes = [refusal("upstreamForbidden")]
    pool.app.start(DIRECT)
    pool.app.work()
    found = pool.app.read()
    assert found.status is Status.FAILED
    assert found.error
    assert found.error.code == "upstreamForbidden"
    assert pool.calls == {"a": 1, "b": 1, "c": 1}


def test_pool_that_refuses_the_app_fails_each_generation_at_once() -> None:
    pool = PoolApp()
    for member in pool.members.values():
        member.outcomes = [refusal("upstreamForbidden")]
    for _ in range(3):
        pool.app.start(DIRECT)
    pool.app.work()
    assert pool.app.records.active == {}
    assert pool.calls == {"a": 3, "b": 3, "c": 3}  # not billed, and it shows when the app is accepted again


def test_refusal_is_not_the_throttle_that_callers_see() -> None:
    pool = PoolApp("ab")
    quotas = Quotas(pool.app.worker._ports)  # pyright: ignore[reportPrivateUsage]
    pool.app.throttling.pause(f"{DIRECT}@a", throttle(20, "upstreamForbidden"))
    assert quotas.current(DIRECT) is None
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(30))
    assert quotas.current(DIRECT) == throttle(30)
    pool.app.throttling.set_pace(f"{DIRECT}@b", Pace(5, None, NOON + seconds(9)))
    assert quotas.pace(DIRECT) == Pace(5, None, NOON + seconds(9))


def test_refused_input_does_not_fall_over() -> None:
    pool = PoolApp()
    for member in pool.members.values():
        member.outcomes = [refusal("contentFilter")]
    pool.app.start(DIRECT)
    pool.app.work()
    assert sum(pool.calls.values()) == 1
    assert pool.app.read().status is Status.FAILED


def test_deployment_that_refused_the_app_gets_no_calls_for_five_minutes() -> None:
    """All instances know: the timer gives no turns for it."""
    pool = PoolApp("ab")
    pool.members["a"].outcomes = [refusal("upstreamUnauthorized")]
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    for _ in range(20):
        pool.app.start(DIRECT)
    pool.app.work()
    assert pool.calls == {"a": 1, "b": 20}
    assert pool.app.throttling.paused[f"{DIRECT}@a"] == throttle(300, "upstreamUnauthorized")
    assert [one.status for one in pool.app.records.done.values() if one] == [Status.SUCCEEDED] * 20


def test_single_deployment_that_refuses_the_app_fails_as_before() -> None:
    app = FakeApp()
    app.direct.outcomes = [refusal("upstreamNotFound")]
    app.start(DIRECT)
    app.work()
    assert (app.read().status, app.direct.calls) == (Status.FAILED, [ID])


def test_crash_while_it_falls_over_makes_no_second_billed_call() -> None:
    """At each step: the refused call was not billed, the accepted one is made once."""
    steps = _steps_of_a_fall_over()
    for number in range(len(steps)):
        pool = PoolApp("ab")
        pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
        pool.members["a"].outcomes = [refusal("upstreamNotFound")]
        pool.app.start(DIRECT)
        pool.app.steps.taken.clear()
        pool.app.steps.fail_at = number
        with pytest.raises(Crash):
            pool.app.work()
        pool.configure("ab")
        pool.app.settle()
        assert pool.app.read().status is Status.SUCCEEDED, steps[number]
        assert pool.calls["b"] - pool.app.read().lost_calls <= 1


def _steps_of_a_fall_over() -> list[str]:
    pool = PoolApp("ab")
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["a"].outcomes = [refusal("upstreamNotFound")]
    pool.app.start(DIRECT)
    pool.app.steps.taken.clear()
    pool.app.work()
    assert pool.calls == {"a": 1, "b": 1}
    return list(pool.app.steps.taken)


def test_lost_call_may_be_repeated_by_another_deployment() -> None:
    pool = PoolApp("ab")
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["a"].outcomes = [Lost("status 504")]
    pool.app.start(DIRECT)
    pool.app.work()
    pool.app.throttling.pause(f"{DIRECT}@a", throttle(600))
    pool.app.settle()
    assert pool.calls == {"a": 1, "b": 1}
    assert (pool.app.read().status, pool.app.read().lost_calls) == (Status.SUCCEEDED, 1)


def test_pool_that_became_one_deployment_goes_on() -> None:
    pool = PoolApp("ab")
    pool.app.start(DIRECT)
    pool.app.configure({POLLED: pool.app.polled, DIRECT: pool.members["b"]})
    pool.app.work()
    assert pool.calls == {"a": 0, "b": 1}


def test_deployment_that_became_a_pool_goes_on() -> None:
    """Records of before name no deployment."""
    pool = PoolApp("ab")
    pool.app.configure({POLLED: pool.app.polled, DIRECT: pool.app.direct})
    pool.app.direct.during_call = crash
    pool.app.start(DIRECT)
    pool.app.start(DIRECT)
    with pytest.raises(Crash):
        pool.app.work()
    pool.configure("ab")
    pool.app.settle()
    assert sorted(one.lost_calls for one in pool.app.records.done.values() if one) == [0, 1]
    assert sum(pool.calls.values()) == 2


@pytest.mark.parametrize("left", ["b", "bc", "cb"])
def test_deployment_that_was_removed_during_its_call_is_a_lost_call(left: str) -> None:
    """The first of the pool is another one then."""
    pool = PoolApp()
    for name in "bc":
        pool.app.throttling.pause(f"{DIRECT}@{name}", throttle(-1))
    pool.members["a"].during_call = crash
    pool.app.start(DIRECT)
    with pytest.raises(Crash):
        pool.app.work()
    assert pool.app.read().deployment == "a"
    pool.configure(left)
    pool.app.settle()
    found = pool.app.read()
    assert (found.status, found.lost_calls) == (Status.SUCCEEDED, 1)
    assert pool.app.records.active == {}
    assert sum(pool.calls.values()) == 2


def test_429_of_a_deployment_that_was_removed_meanwhile_pauses_no_other() -> None:
    """An older instance got the 429, and a newer one has other settings."""
    pool = PoolApp("ab")
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["a"].outcomes = [Throttled("status 429", 600)]
    pool.app.start(DIRECT)
    pool.app.work()
    pool.configure("b")
    pool.app.settle()
    assert pool.app.read().status is Status.SUCCEEDED
    assert pool.calls == {"a": 1, "b": 1}


def test_pool_whose_deployments_all_refused_and_one_was_replaced_tries_it() -> None:
    pool = PoolApp("ab")
    pool.members["a"].outcomes = [refusal("upstreamForbidden")]
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["b"].outcomes = [Throttled("status 429", 60)]
    pool.app.start(DIRECT)
    pool.app.work()
    assert pool.app.read().refused_by == ("a",)
    pool.members |= {"c": FakeDirect(pool.app.steps, outcomes=[IMAGES])}
    pool.configure("ac")
    pool.app.settle()
    assert pool.app.read().status is Status.SUCCEEDED
    assert pool.calls == {"a": 1, "b": 1, "c": 1}


def test_only_deployment_left_that_refused_before_is_asked_again() -> None:
    """The settings may have been corrected."""
    pool = PoolApp("ab")
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["a"].outcomes = [refusal("upstreamForbidden"), IMAGES]
    pool.members["b"].outcomes = [Throttled("status 429", 60)]
    pool.app.start(DIRECT)
    pool.app.work()
    pool.configure("a")
    pool.burst.drain(seconds(600))
    assert pool.app.read().status is Status.SUCCEEDED
    assert pool.calls == {"a": 2, "b": 1}


def test_generation_that_fell_over_waits_for_the_others() -> None:
    """It is not failed while they are throttled, and does not call the one that refused it."""
    pool = PoolApp("ab")
    pool.members["a"].outcomes = [refusal("upstreamForbidden")]
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(-1))
    pool.members["a"].during_call = lambda: pool.app.throttling.pause(f"{DIRECT}@b", throttle(300))
    pool.app.start(DIRECT)
    pool.app.work()
    assert pool.app.read().waits
    pool.burst.drain(seconds(600))
    assert pool.app.clock.now >= NOON + seconds(300)
    assert pool.calls == {"a": 1, "b": 1}
    assert pool.app.read().status is Status.SUCCEEDED


def test_lost_call_that_must_not_be_repeated_does_not_fall_over() -> None:
    pool = PoolApp("ab")
    pool.app = FakeApp(repeat_lost_calls=False)
    for member in pool.members.values():
        member.outcomes = [Lost("status 504")]
    pool.configure("ab")
    pool.app.start(DIRECT)
    pool.app.settle()
    assert sum(pool.calls.values()) == 1
    found = pool.app.read()
    assert found.error
    assert found.error.code == "outcomeUnknown"


def test_turn_names_the_deployment() -> None:
    pool = PoolApp("ab")
    pool.app.start(DIRECT)
    pool.app.queue.messages.clear()
    pool.app.worker.advance_by_id(ID, has_minutes=True, turn=Turn("b"))
    assert pool.calls == {"a": 0, "b": 1}


def test_turn_at_a_deployment_that_is_paused_goes_to_another() -> None:
    pool = PoolApp("ab")
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(60))
    pool.app.start(DIRECT)
    pool.app.queue.messages.clear()
    pool.app.worker.advance_by_id(ID, has_minutes=True, turn=Turn("b"))
    assert pool.calls == {"a": 1, "b": 0}


def test_pace_of_a_pool_is_the_sum() -> None:
    pool = PoolApp("ab")
    quotas = Quotas(pool.app.worker._ports)  # pyright: ignore[reportPrivateUsage]
    pool.app.throttling.set_pace(f"{DIRECT}@a", Pace(10, None, NOON + seconds(15)))
    assert quotas.pace(DIRECT) is None  # no generation waits for deployment b
    pool.app.throttling.set_pace(f"{DIRECT}@b", Pace(5, None, NOON + seconds(9)))
    assert quotas.pace(DIRECT) == Pace(15, None, NOON + seconds(9))


def test_throttle_of_a_pool_is_the_first_to_end() -> None:
    pool = PoolApp("ab")
    quotas = Quotas(pool.app.worker._ports)  # pyright: ignore[reportPrivateUsage]
    pool.app.throttling.pause(f"{DIRECT}@a", throttle(30))
    assert quotas.current(DIRECT) is None
    pool.app.throttling.pause(f"{DIRECT}@b", throttle(20))
    assert quotas.current(DIRECT) == throttle(20)


@pytest.mark.parametrize("configured", [True, False])
def test_burst_uses_the_quotas_of_all_deployments(configured: bool) -> None:
    burst = Burst()
    quotas = [Quota(burst.app.clock) for _ in "abc"]
    members = [QuotaDirect(Steps(), quota=quota) for quota in quotas]
    limit = 10 if configured else None
    pool = [Member(name, f"{DIRECT}@{name}", one, limit) for name, one in zip("abc", members, strict=True)]
    burst.app.configure({POLLED: burst.app.polled, DIRECT: pool})
    burst.start(450, timeout=86_400)
    burst.drain(timedelta(hours=1))

    assert burst.outcomes() == {"succeeded": 450}
    last = max(quota.accepted[-1] for quota in quotas)
    assert 450 / (30 * (last - NOON).total_seconds() / 60) >= 0.9
    assert sum(quota.refused for quota in quotas) <= 50
    assert max(Counter(one for member in members for one in member.calls).values()) == 1
    assert Turn(None) == ANY_TURN


@pytest.mark.parametrize("configured", [True, False])
def test_burst_beside_a_deployment_that_refuses_the_app(configured: bool) -> None:
    """It takes no turns: the others go on as if it were not there."""
    burst = Burst()
    quota = Quota(burst.app.clock)
    broken = FakeDirect(Steps(), outcomes=[refusal("upstreamForbidden")])
    limit = 10 if configured else None
    works = QuotaDirect(Steps(), quota=quota)
    pool = [Member(name, f"{DIRECT}@{name}", one, limit) for name, one in (("a", broken), ("b", works))]
    burst.app.configure({POLLED: burst.app.polled, DIRECT: pool})
    burst.start(150, timeout=86_400)
    burst.drain(timedelta(hours=1))

    assert burst.outcomes() == {"succeeded": 150}
    assert 150 / (10 * (quota.accepted[-1] - NOON).total_seconds() / 60) >= 0.9
    assert quota.refused <= 17
    assert len(broken.calls) <= 8  # about one in five minutes
    assert burst.app.records.writes <= 6 * 150


def test_settings_that_are_corrected_count_at_once_when_all_deployments_refused_the_app() -> None:
    pool = PoolApp("ab")
    for member in pool.members.values():
        member.outcomes = [refusal("upstreamUnauthorized")]
    pool.app.start(DIRECT)
    pool.app.work()
    for key in ("a", "b"):  # two instances may note their refusals at the same moment
        refused = Throttle(pool.app.clock.now + seconds(300), "upstreamUnauthorized")
        pool.app.throttling.pause(f"{DIRECT}@{key}", refused)
    for member in pool.members.values():
        member.outcomes = [IMAGES]
    assert Quotas(pool.app.worker._ports).current(DIRECT) is None  # pyright: ignore[reportPrivateUsage]
    found = pool.app.start(DIRECT)
    pool.app.work()
    assert pool.app.read(found.id).status is Status.SUCCEEDED
