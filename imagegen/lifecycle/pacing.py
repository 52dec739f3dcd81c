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
from typing import Final, Protocol

from imagegen.upstream.protocol import Throttle

type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""

_FIRST_RATE: Final = 6.0
_LOWEST_RATE: Final = 0.2
"""Calls a minute: after the very first 429, and after any number of them."""
_DECREASE: Final = 0.88
"""Factor of the rate at a 429."""
_DOUBLING_SECONDS: Final = 10.0
"""Time in which the rate doubles, from the first 429 to the second."""
_CLIMB: Final = 0.01
_CREEP: Final = 0.0015
"""Growth of the rate in a second: far from the rate of the last 429, and near it. 12 % take 85 s: at ten calls a
minute, one call in 14 is answered 429."""
_NEAR: Final = (0.9, 1.1)
"""What is near the rate of the last 429, as factors."""
_SLOW: Final = 10.0
"""Calls a minute. A lower rate grows more slowly, so that one call in 14 is refused there too."""

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
class Pace:
    """How fast a deployment takes calls, as all instances see it."""

    per_minute: float
    ceiling: float | None
    """The rate at the last 429."""
    until: datetime
    """Until then, only generations that the timer gives a turn may begin."""

    def seconds_for(self, calls: int) -> float:
        """Time in which so many calls begin."""
        return 60 * calls / self.per_minute


class Throttles(Protocol):
    """The throttles and paces of the deployments, shared by all instances. Each method raises
    StorageUnavailableError."""

    def current(self, model: str) -> Throttle | None: ...
    def pace(self, model: str) -> Pace | None: ...
    def set_pace(self, model: str, pace: Pace) -> None: ...


@dataclass(frozen=True, slots=True)
class Turns:
    """Which generations may begin now."""

    ids: tuple[str, ...]
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
    given: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Generations with a turn that have not begun, and when each may get another."""

    def refuse(self) -> None:
        """The service answered 429."""
        first = self.ceiling is None and math.isinf(self.limit)
        self.ceiling = self.rate
        self.rate = max(_LOWEST_RATE, self.rate / 2 if first else self.rate * _DECREASE)

    def grow(self, seconds: float) -> None:
        """Generations waited for so long, and no call was refused."""
        if self.limit < math.inf:  # the quota is known
            factor = 1 + _CLIMB * seconds
        elif self.ceiling is None:
            factor = 2.0 ** (seconds / _DOUBLING_SECONDS)
        else:
            is_near = _NEAR[0] <= self.rate / self.ceiling <= _NEAR[1]
            factor = 1 + (_CREEP if is_near else _CLIMB) * min(1.0, self.rate / _SLOW) * seconds
        self.rate = min(self.limit, self.rate * factor)


class Pacer:
    """Gives turns. One for each process: the timer's slots share it. Thread-safe.

    Parameters
    ----------
    send
        Sends a message that gives a generation its turn. Returns False if its model needs no worker with minutes.
    configured
        `requestsPerMinute` of the deployments that have one.
    """

    def __init__(
        self, throttles: Throttles, clock: Clock, *, send: Callable[[str, str], bool], configured: Mapping[str, int]
    ) -> None:
        self._throttles = throttles
        self._clock = clock
        self._send = send
        self._configured = configured
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()

    def turns(self, model: str, waiting: Sequence[str]) -> Turns | None:
        """Which of these generations may begin now. None: the deployment is not paced, all may.

        Parameters
        ----------
        waiting
            Ids of the generations that wait for the deployment, oldest first.

        Raises
        ------
        StorageUnavailableError
        """
        with self._lock:
            now = self._clock()
            throttle = self._throttles.current(model)
            lane = self._lane(model, throttle, now)
            if lane is None:
                return None
            self._look(lane, throttle, now, has_demand=bool(waiting))
            if waiting:
                # Before the turns are given: if it fails, none of them is lost.
                self._tell(model, lane, now)
            ids = self._give(lane, waiting, now)
            if throttle and lane.pausing:
                return Turns(ids, throttle.until)
            return Turns(ids, now + timedelta(seconds=max(0.0, 1 - lane.turns) * 60 / lane.rate))

    def tell(self, model: str, generation_id: str) -> bool:
        """Tell a worker with minutes that a generation has its turn. Return False if the slot itself can begin it."""
        return self._send(model, generation_id)

    def take_back(self, model: str, generation_id: str) -> None:
        """This generation could not be told that it has its turn: another one gets it, and it waits a moment."""
        with self._lock:
            if lane := self._lanes.get(model):
                lane.turns += 1
                lane.given[generation_id] = self._clock() + _AGAIN

    def _lane(self, model: str, throttle: Throttle | None, now: datetime) -> _Lane | None:
        lane, stored = self._lanes.get(model), self._throttles.pace(model)
        is_new = lane is None or now - lane.at > _RECENT
        if lane and not is_new:
            return lane
        configured = self._configured.get(model)
        throttled = throttle is not None and now - throttle.until < _RECENT
        in_use = stored is not None and now - stored.until < _RECENT
        if not (configured or throttled or in_use):
            self._lanes.pop(model, None)
            return None
        limit = float(configured) if configured else math.inf
        self._lanes[model] = lane = _Lane(
            rate=min(limit, stored.per_minute if stored else limit if configured else _FIRST_RATE),
            limit=limit,
            ceiling=stored.ceiling if stored else None,
            at=now,
            # Another timer may have given the last turn a moment ago.
            turns=0.0 if stored and stored.until > now else 1.0,
            refused_until=throttle.until if throttle else datetime.min.replace(tzinfo=UTC),
        )
        return lane

    def _look(self, lane: _Lane, throttle: Throttle | None, now: datetime, *, has_demand: bool) -> None:
        """Change the rate by what happened since the last pass."""
        seconds = min(_LONGEST_STEP, (now - lane.at).total_seconds())
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
        lane.turns = min(max(1 + each_second, 4 * each_second), lane.turns + each_second * seconds)

    def _give(self, lane: _Lane, waiting: Sequence[str], now: datetime) -> tuple[str, ...]:
        there = set(waiting)
        lane.given = {id_: again for id_, again in lane.given.items() if id_ in there and again > now}
        if lane.pausing:
            return ()
        ids = tuple([one for one in waiting if one not in lane.given][: int(lane.turns + _ROUNDING)])
        lane.turns -= len(ids)
        lane.given |= dict.fromkeys(ids, now + _MESSAGE_LOST)
        return ids

    def _tell(self, model: str, lane: _Lane, now: datetime) -> None:
        """Tell all instances that the deployment is paced, if they do not know it."""
        stored = self._throttles.pace(model)
        lasts = stored and stored.until - now >= _LEASE_LEFT
        if stored and lasts and abs(stored.per_minute - lane.rate) < _CHANGE_WORTH_WRITING * stored.per_minute:
            return
        self._throttles.set_pace(model, Pace(lane.rate, lane.ceiling, now + _LEASE))


class Gate:
    """Lets the first calls of a deployment begin without the timer: as many as its `requestsPerMinute` allows.

    One for each process. Several instances may let more begin than the quota: then the service answers 429.
    Thread-safe.
    """

    def __init__(self, configured: Mapping[str, int], clock: Clock) -> None:
        self._configured = configured
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[datetime, float]] = {}
        """By model: when, and how many turns there were then."""

    def lets_begin(self, model: str) -> bool:
        """Whether a call may begin now. It counts as begun."""
        rate = self._configured.get(model)
        if rate is None:
            return True
        most = max(1.0, rate * _WINDOW_SECONDS / 60)
        with self._lock:
            now = self._clock()
            at, turns = self._turns.get(model, (now, most))
            turns = min(most, turns + rate / 60 * (now - at).total_seconds())
            self._turns[model] = (now, turns - 1 if turns >= 1 else turns)
            return turns >= 1
