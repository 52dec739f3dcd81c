"""Coming back later: told to by a quota, or because the service could not answer."""

from __future__ import annotations

import logging
from datetime import datetime

from imagegen.events import log_event
from imagegen.generation import Versioned
from imagegen.lifecycle import transitions as moves
from imagegen.lifecycle.finishing import Records
from imagegen.lifecycle.ports import Ports
from imagegen.upstream.protocol import Throttled, Unavailable


class Waiting:
    """Writes ``due`` later, and pulls the brake that all instances see."""

    def __init__(self, ports: Ports, records: Records) -> None:
        self._ports = ports
        self._records = records

    def while_paused(self, current: Versioned) -> Versioned | None:
        """Written down to wait, if everybody was told to."""
        now = self._ports.clock()
        until = self._ports.throttling.paused_until(current.generation.request.model or "")
        if until is None or until <= now:
            return None
        waiting = moves.throttled(current.generation, until, now, jitter=self._ports.jitter())
        return self._records.write(current, waiting)

    def throttled(self, current: Versioned, outcome: Throttled) -> Versioned:
        """We were told to wait: nobody else has to find out."""
        now = self._ports.clock()
        generation = current.generation
        until = moves.pause_until(outcome, generation.faults, now)
        log_event(
            "upstream.unavailable",
            level=logging.WARNING,
            id=generation.id,
            reason=outcome.reason,
            seconds=round((until - now).total_seconds()),
        )
        waiting = moves.throttled(generation, until, now, jitter=self._ports.jitter())
        # The record first: one that says "calling" without a call would later count as a lost answer.
        written = self._records.write(current, waiting.changed(faults=generation.faults + 1))
        self._ports.throttling.pause(generation.request.model or "", until)
        return written

    def for_upstream(self, current: Versioned, outcome: Unavailable, now: datetime) -> Versioned:
        """The service could not answer: nothing is decided."""
        waiting = moves.unavailable(current.generation, outcome, now, jitter=self._ports.jitter())
        log_event(
            "upstream.unavailable",
            level=logging.WARNING,
            id=waiting.id,
            reason=outcome.reason,
            faults=waiting.faults,
            seconds=round((waiting.due - now).total_seconds()),
        )
        return self._records.save(current, waiting)
