"""Which deployment of a model takes the next call, and how long a generation waits for it.

Several deployments with one name are a pool: three regions have three quotas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from imagegen.generation import Generation
from imagegen.lifecycle.pacing import Gate
from imagegen.lifecycle.ports import Member, Pace, Ports, Turn
from imagegen.upstream.protocol import Throttle

_TURN_WAIT: Final = timedelta(seconds=1)
"""After it, the timer sees a new record that waits for a turn."""
_CLOCK_DIFFERENCE: Final = timedelta(seconds=3)
"""Between two instances."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Choice:
    """The deployment that takes the next call of a generation."""

    address: str | None
    """Of a member of a pool; None for the only deployment of a model."""
    wait_until: datetime | None
    """The generation has no turn before this time, which may have passed."""


class Quotas:
    """The quotas of all models. One for each process. Thread-safe."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._gate = Gate(ports.clock)

    def choose(self, generation: Generation, turn: Turn | None) -> Choice:
        """The deployment for the next call: the one that was throttled longest ago.

        Parameters
        ----------
        turn
            What the timer gave the generation. None: it waits while earlier ones wait.
        """
        now = self._ports.clock()
        waits: list[datetime] = []
        for member in self._candidates(generation, turn):
            wait_until = self._wait_until(member, has_turn=turn is not None, now=now)
            if wait_until is None or wait_until <= now:
                return Choice(member.address, wait_until)
            waits.append(wait_until)
        return Choice(None, min(waits))

    def has_another(self, generation: Generation) -> bool:
        """Whether the model has a deployment that has not refused the app, for this generation or another one."""
        tried = {*generation.refused_by, generation.deployment}
        # Without a read of storage, which may fail: the refusal is known here only.
        return any(member.address not in tried for member in self._ports.members(generation.request.model))

    def current(self, model: str) -> Throttle | None:
        """The throttle of the model: of its deployment that can be called first. None if one was never throttled."""
        found = [self._ports.throttle(member) for member in self._ports.working_members(model)]
        throttles = [one for one in found if one]
        return min(throttles, key=lambda one: one.until) if throttles and len(throttles) == len(found) else None

    def pace(self, model: str) -> Pace | None:
        """The pace of all deployments of the model together. None if generations do not wait for each of them."""
        now = self._ports.clock()
        found: list[Pace] = []
        for member in self._ports.working_members(model):
            pace = self._ports.throttling.pace(member.key)
            configured = member.requests_per_minute
            if pace and pace.until > now:
                found.append(replace(pace, ceiling=pace.ceiling or configured))
            elif configured:
                found.append(Pace(configured, configured, now))
            else:
                return None
        if not found:
            return None
        ceilings = [one.ceiling for one in found if one.ceiling]
        ceiling = math.fsum(ceilings) if len(ceilings) == len(found) else None
        return Pace(math.fsum(one.per_minute for one in found), ceiling, min(one.until for one in found))

    def _candidates(self, generation: Generation, turn: Turn | None) -> list[Member]:
        members = list(self._ports.working_members(generation.request.model))
        if len(members) > 1:
            members.sort(key=lambda member: self._rank(member, generation, turn))
        return members

    def _rank(self, member: Member, generation: Generation, turn: Turn | None) -> tuple[bool, bool, datetime, float]:
        throttle = self._ports.throttle(member)
        return (
            member.address in generation.refused_by,
            turn is None or member.address != turn.address,
            throttle.until if throttle else _LONG_AGO,
            self._ports.jitter(),
        )

    def _wait_until(self, member: Member, *, has_turn: bool, now: datetime) -> datetime | None:
        """How long the quota of a deployment keeps a generation waiting."""
        throttle = self._ports.throttle(member)
        if has_turn:  # the timer's clock may be ahead
            return throttle.until - _CLOCK_DIFFERENCE if throttle else None
        if throttle and throttle.until > now:
            return throttle.until
        pace = self._ports.throttling.pace(member.key)
        is_paced = pace is not None and pace.until > now
        return None if not is_paced and self._gate.lets_begin(member) else now + _TURN_WAIT
