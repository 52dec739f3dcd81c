"""Writes the record that `transitions` decides, carries out the effect, and repeats until the generation rests."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from imagegen.errors import ConflictError
from imagegen.events import log_event
from imagegen.generation import Generation, Versioned
from imagegen.lifecycle.copying import copy_produced, take_answered
from imagegen.lifecycle.finishing import drop, finish
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.transitions import (
    AlreadyEnded,
    Call,
    ContinuingEffect,
    Copy,
    Drop,
    Due,
    DueForDirect,
    DueForPolled,
    DueWithoutModel,
    Enqueue,
    Finish,
    Leave,
    Outcome,
    Pause,
    Poll,
    Rest,
    Step,
    Submit,
    Take,
    transition,
)
from imagegen.upstream.protocol import Direct, Lost, Polled, Throttled, Unavailable

_WORTH_WRITING: Final = timedelta(seconds=5)
"""A change of `due` alone is not written if it is nearer than this: the worker that polls remembers it."""


class Worker:
    """Advances generations. Thread-safe: it has no state of its own."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def advance_by_id(self, generation_id: str, *, has_minutes: bool) -> None:
        """Advance the generation of a queue message, if it is due or still waits for this message.

        Raises
        ------
        StorageUnavailableError
            When storage does not answer. The message comes again.
        """
        current = self._ports.records.read_active(generation_id)
        if current and (current.generation.queued or current.generation.due <= self._ports.clock()):
            self.advance(current, has_minutes=has_minutes)

    def advance(self, current: Versioned, *, has_minutes: bool = False) -> Versioned | None:
        """Advance a due generation. Return its record, None when it ended or another worker changed it.

        Parameters
        ----------
        has_minutes
            Whether this worker can spend the minutes of a call. If not, it sends a queue message.

        Raises
        ------
        StorageUnavailableError
            When a write failed. The record is unchanged or one step further; the next tick goes on.
        """
        try:
            after = self.run(current, has_minutes=has_minutes)
        except ConflictError:
            return None
        return None if after.generation.status.is_terminal else after

    def run(self, current: Versioned, *, has_minutes: bool = False) -> Versioned:
        """Advance a due generation. Return its record as it is now, ended or not.

        Raises
        ------
        ConflictError
            When another worker changed the record. Its change is valid, this one is dropped.
        """
        try:
            return self._run(current, has_minutes=has_minutes)
        except ConflictError:
            log_event("generation.overtaken", id=current.generation.id)
            raise

    def _run(self, current: Versioned, *, has_minutes: bool) -> Versioned:
        outcome: Outcome = self._due(current.generation, has_minutes=has_minutes)
        while True:
            step = transition(current.generation, outcome, self._ports.clock(), jitter=self._ports.jitter())
            # Before the write, which may fail: a lost call must leave a trace.
            self._log_outcome(outcome, step)
            match step.effect:
                case Finish():
                    winner = finish(self._ports, step.generation, current.etag)
                    return Versioned(winner or step.generation, current.etag)
                case Drop(winner):
                    drop(self._ports, current.generation.id, winner, current.etag)
                    return Versioned(step.generation, current.etag)
                case Leave():
                    return Versioned(step.generation, current.etag)
                case _:
                    current = self._write(current, step)
            # A crash from here on repeats the effect, with one exception: a call is not idempotent. The claim in the
            # record says that a call was made, and that its response is lost.
            current, more = self._do(step.effect, current)
            if more is None:
                return current
            outcome = more

    def _due(self, generation: Generation, *, has_minutes: bool) -> Due | AlreadyEnded:
        """Collect the facts that decide how a due generation goes on."""
        upstream = self._ports.upstreams.get(generation.request.model or "")
        if upstream is None:
            return DueWithoutModel()
        repeat = self._ports.repeat_lost_calls
        if not isinstance(upstream, Direct):
            return DueForPolled(repeat, self._paused_until(generation))
        if not has_minutes:
            return DueForDirect(repeat, None, has_minutes=False)
        if generation.operation_location is None:
            # A late worker must not pay for a generation that was canceled or deleted.
            there = self._ports.records.read(generation.id)
            if there is None or there.status.is_terminal:
                return AlreadyEnded(there)
        return DueForDirect(repeat, self._paused_until(generation), has_minutes=True)

    def _paused_until(self, generation: Generation) -> datetime | None:
        """End of the deployment's throttle, if the generation needs a submit or a call."""
        if generation.operation_location is not None:
            return None
        return self._ports.throttling.paused_until(generation.request.model or "")

    def _write(self, current: Versioned, step: Step) -> Versioned:
        """Write what other workers must know. Raises ConflictError when one of them changed the record."""
        before, generation = current.generation, step.generation
        near = isinstance(step.effect, Rest) and generation.due - self._ports.clock() < _WORTH_WRITING
        if generation == before or (near and generation.changed(due=before.due) == before):
            return Versioned(generation, current.etag)
        return Versioned(generation, self._ports.records.save(generation, current.etag))

    def _do(  # noqa: C901 - one case for each effect
        self, effect: ContinuingEffect, current: Versioned
    ) -> tuple[Versioned, Outcome | None]:
        """Carry out an effect. Return the record, and the outcome if there is more to decide."""
        generation = current.generation
        match effect, self._ports.upstreams.get(generation.request.model or ""):
            case Submit(), Polled() as upstream:
                return current, upstream.submit(generation)
            case Poll(), Polled() as upstream:
                return current, upstream.poll(generation, self._ports.clock())
            case Call(), Direct() as upstream:
                if generation.lost_calls:
                    log_event(
                        "generation.call_repeated",
                        level=logging.WARNING,
                        id=generation.id,
                        lost_calls=generation.lost_calls,
                        note="an earlier call may have been billed: this one may be billed twice",
                    )
                return current, upstream.generate(generation)
            case Copy(produced), _:
                return current, copy_produced(self._ports, current, produced)
            case Take(answered), _:
                return take_answered(self._ports, current, answered)
            case Enqueue(), _:
                # Sent after it was written: a crash in between is a lost message, and costs the time until `due`.
                self._ports.queue.send([generation.id])
                return current, None
            case Pause(until), _:
                self._ports.throttling.pause(generation.request.model or "", until)
                return current, None
            case Rest(), _:
                return current, None
            case Submit() | Poll() | Call(), upstream:
                raise TypeError(f"{type(effect).__name__} does not fit {type(upstream).__name__}")

    def _log_outcome(self, outcome: Outcome, step: Step) -> None:
        generation = step.generation
        match outcome:
            case Throttled(reason) | Unavailable(reason):
                resumes = step.effect.until if isinstance(step.effect, Pause) else generation.due
                log_event(
                    "upstream.unavailable",
                    level=logging.WARNING,
                    id=generation.id,
                    reason=reason,
                    faults=generation.faults,
                    seconds=round((resumes - self._ports.clock()).total_seconds()),
                )
            case Lost(reason):
                log_event("generation.call_lost", level=logging.WARNING, id=generation.id, reason=reason)
            case DueForDirect() if isinstance(step.effect, Leave):
                log_event(
                    "generation.api_changed",
                    level=logging.WARNING,
                    id=generation.id,
                    model=generation.request.model,
                    note="its model cannot poll its operation",
                )
            case _:
                pass
