"""Pacing: while generations wait for a deployment's quota, the timer lets them begin one by one, oldest first.

A waiting generation costs nothing: no message and no write. The rate is the deployment's `requestsPerMinute`. Without
one it is learned: it grows until the service answers 429, then drops a little and grows slowly, as TCP does.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from imagegen.lifecycle.ports import Clock, Member, Pace, Ports, Turn
from imagegen.upstream.protocol import Throttle

_FIRST_RATE: Final = 6.0
_LOWEST_RATE: Final = 0.2
"""Calls a minute: after the very first 429, and after any number of them."""
_DECREASE: Final = 0.88
"""Factor of the rate at a 429."""
_DOUBLING_SECONDS: Final = 10.0
"""Time in which the rate doubles, from the first 429 to the second."""
_CLIMB: Final = 0.01
_CREEP: Final = 0.0012
"""Growth of the rate in a second: far from the rate of the last 429, and near it. 12 % take 106 s: at ten calls a
minute, one call in 18 is answered 429."""
_NEAR: Final = (0.9, 1.1)
"""What is near the rate of the last 429, as factors."""
_SLOW: Final = 10.0
"""Calls a minute. A lower rate grows more slowly, so that no more calls are refused there."""

_RECENT: Final = timedelta(seconds=60)
"""A deployment is paced for this long after a 429, or after the last generation that waited for it."""
_LEASE: Final = timedelta(seconds=15)
"""Time for which the timer says that only it lets generations begin. If it dies, workers go on without it."""
_LEASE_LEFT: Final = timedelta(seconds=8)
_CHANGE_WORTH_WRITING: Final = 0.1
"""Part of the rate."""
_AGAIN: Final = timedelta(seconds=20)
"""Time for a worker to begin a generation that has its turn, if the service refused calls meanwhile."""
_MESSAGE_LOST: Final = timedelta(minutes=10)
"""The same if it did not: the message of the turn is lost."""
_ROUNDING: Final = 1e-6
"""Six sixths of a turn are one."""
_LONGEST_STEP: Final = 5.0
"""Seconds between two passes that count. A slot that comes late does not let more begin."""
_WINDOW_SECONDS: Final = 10.0
"""The longest window in which the services count calls."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Which generations may begin now."""

    given: Mapping[str, Turn]
    """By the id of the generation."""
    next_at: datetime
    """When the next one may."""


@dataclass(slots=True)
class _Lane:
    """What the timer knows about one deployment. If it is lost, the stored `Pace` is enough."""

    rate: float
    """Calls a minute."""
    limit: float
    """The configured rate; infinite without one."""
    ceiling: float | None
    at: datetime
    """Of the last pass."""
    turns: float
    """That may begin now; a fraction grows into a turn."""
    refused_until: datetime
    """End of the last throttle that was seen."""
    pausing: bool = False
    begun: int = 0
    """Turns since the last refusal."""
    told: Pace | None = None
    """What this process stored last."""
    given: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Generations with a turn that have not begun, and when each may get another."""

    def refuse(self) -> None:
        """The service answered 429."""
        begun, self.begun = self.begun, 0
        if begun < 2 and self.ceiling is not None:
            return  # not even the first call after a pause was accepted: that says nothing about the rate
        first = self.ceiling is None and math.isinf(self.limit)
        self.ceiling = self.rate
        self.rate = max(_LOWEST_RATE, self.rate / 2 if first else self.rate * _DECREASE)

    def forget(self, waiting: Sequence[str], now: datetime) -> None:
        """Forget the turns of generations that have begun, or may get another."""
        there = set(waiting)
        self.given = {id_: again for id_, again in self.given.items() if id_ in there and again > now}

    def next_at(self, now: datetime) -> datetime:
        """When the next generation may begin."""
        if self.pausing:
            return self.refused_until
        return now + timedelta(seconds=max(0.0, 1 - self.turns) * 60 / self.rate)

    def grow(self, seconds: float) -> None:
        """Generations waited for so long, and no call was refused."""
        if self.limit < math.inf:  # the quota is known
            factor = 1 + _CLIMB * seconds
        elif self.ceiling is None:
            factor = 2.0 ** (seconds / _DOUBLING_SECONDS)
        else:
            is_near = _NEAR[0] <= self.rate / self.ceiling <= _NEAR[1]
            factor = 1 + (_CREEP * min(1.0, self.rate / _SLOW) if is_near else _CLIMB) * seconds
        self.rate = min(self.limit, self.rate * factor)


class Pacer:
    """Gives turns. One for each process: the timer's slots share it. Thread-safe.

    Parameters
    ----------
    send
        Sends a message that gives a generation its turn. Returns False if its model needs no worker with minutes.
    """

    def __init__(self, ports: Ports, *, send: Callable[[str, str, Turn], bool]) -> None:
        self._ports = ports
        self._send = send
        self._lanes: dict[str, _Lane] = {}
        """By the key of the deployment's throttle."""
        self._lock = threading.Lock()

    def turns(self, model: str, waiting: Sequence[str]) -> Turns | None:
        """Which of these generations may begin now. None: the model is not paced, all may.

        Parameters
        ----------
        waiting
            Ids of the generations that wait for the model, oldest first.

        Raises
        ------
        StorageUnavailableError
        """
        with self._lock:
            now = self._ports.clock()
            lanes: list[tuple[Member, _Lane]] = []
            for member in self._ports.working_members(model):
                if (lane := self._lane(member, now)) is None:
                    return None  # it takes what comes, until it answers 429
                self._look(lane, self._ports.throttle(member), now, has_demand=bool(waiting))
                lane.forget(waiting, now)
                lanes.append((member, lane))
            if waiting:
                # Before the turns are given: if it fails, none of them is lost.
                for member, lane in lanes:
                    self._tell(member.key, lane, now)
            has_turn = {id_ for _, lane in lanes for id_ in lane.given}
            given: dict[str, Turn] = {}
            for member, lane in lanes:
                ids = self._give(lane, [one for one in waiting if one not in has_turn and one not in given], now)
                given |= dict.fromkeys(ids, Turn(member.address))
            next_at = [lane.next_at(now) for _, lane in lanes]
            return Turns(given, min(next_at)) if next_at else None

    def tell(self, model: str, generation_id: str, turn: Turn) -> bool:
        """Tell a worker with minutes that a generation has its turn. Return False if the slot itself can begin it."""
        return self._send(model, generation_id, turn)

    def take_back(self, generation_id: str) -> None:
        """This generation could not be told that it has its turn: another one gets it, and it waits a moment."""
        with self._lock:
            for lane in self._lanes.values():
                if generation_id in lane.given:
                    lane.turns += 1
                    lane.given[generation_id] = self._ports.clock() + _AGAIN

    def _lane(self, member: Member, now: datetime) -> _Lane | None:
        """What is known about a deployment. None: it is not paced."""
        key, configured = member.key, member.requests_per_minute
        throttle, stored = self._ports.throttling.current(key), self._ports.throttling.pace(key)
        lane = self._lanes.get(key)
        is_new = lane is None or now - lane.at > max(_RECENT, timedelta(seconds=120 / lane.rate))
        # What another instance stored meanwhile is newer: it has counted the last 429s, and given turns.
        is_stale = lane is not None and stored is not None and lane.told is not None and stored.until > lane.told.until
        if lane and not is_new and not is_stale:
            return lane
        throttled = throttle is not None and now - throttle.until < _RECENT
        in_use = stored is not None and now - stored.until < _RECENT
        if not (configured or throttled or in_use):
            self._lanes.pop(key, None)
            return None
        limit = float(configured) if configured else math.inf
        self._lanes[key] = lane = _Lane(
            rate=min(limit, stored.per_minute if stored else limit if configured else _FIRST_RATE),
            limit=limit,
            ceiling=stored.ceiling if stored else None,
            at=now,
            # Another timer may have given the last turn a moment ago.
            turns=0.0 if stored and stored.until > now else 1.0,
            refused_until=throttle.until if throttle else datetime.min.replace(tzinfo=UTC),
            told=stored,
        )
        return lane

    def _look(self, lane: _Lane, throttle: Throttle | None, now: datetime, *, has_demand: bool) -> None:
        """Change the rate by what happened since the last pass."""
        passed = (now - lane.at).total_seconds()
        seconds = min(_LONGEST_STEP, passed)
        lane.at = now
        if throttle and throttle.until > lane.refused_until:
            lane.refused_until = throttle.until
            if not lane.pausing:  # several calls at once may be refused: that is one refusal
                lane.refuse()
            # Workers may have found the pause, and left generations that had their turn.
            lane.given = {id_: min(again, now + _AGAIN) for id_, again in lane.given.items()}
            lane.turns = 0.0
        was_pausing, lane.pausing = lane.pausing, throttle is not None and throttle.until > now
        if lane.pausing:
            return
        if was_pausing:
            lane.turns = 1.0  # the end of Retry-After is a promise
            return
        if has_demand:
            lane.grow(seconds)
        each_second = lane.rate / 60
        lane.turns = min(max(1 + each_second, 4 * each_second), lane.turns + each_second * passed)

    def _give(self, lane: _Lane, waiting: Sequence[str], now: datetime) -> Sequence[str]:
        if lane.pausing:
            return ()
        ids = waiting[: int(lane.turns + _ROUNDING)]
        lane.turns -= len(ids)
        lane.begun += len(ids)
        lane.given |= dict.fromkeys(ids, now + _MESSAGE_LOST)
        return ids

    def _tell(self, key: str, lane: _Lane, now: datetime) -> None:
        """Tell all instances that the deployment is paced, if they do not know it."""
        stored = self._ports.throttling.pace(key)
        lasts = stored and stored.until - now >= _LEASE_LEFT
        if stored and lasts and abs(stored.per_minute - lane.rate) < _CHANGE_WORTH_WRITING * stored.per_minute:
            return
        pace = Pace(lane.rate, lane.ceiling, now + _LEASE)
        self._ports.throttling.set_pace(key, pace)
        lane.told = pace


class Gate:
    """Lets the first calls of a deployment begin without the timer: as many as its `requestsPerMinute` allows.

    One for each process. Several instances may let more begin than the quota: then the service answers 429.
    Thread-safe.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[datetime, float]] = {}
        """By the key of the deployment's throttle: when, and how many turns there were then."""

    def lets_begin(self, member: Member) -> bool:
        """Whether a call may begin now. It counts as begun."""
        key, rate = member.key, member.requests_per_minute
        if rate is None:
            return True
        most = max(1.0, rate * _WINDOW_SECONDS / 60)
        with self._lock:
            now = self._clock()
            at, turns = self._turns.get(key, (now, most))
            turns = min(most, turns + rate / 60 * (now - at).total_seconds())
            self._turns[key] = (now, turns - 1 if turns >= 1 else turns)
            return turns >= 1
