"""The worker: writes what `transitions` decides, has `effects` do it, until the generation rests or ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, repeat
from typing import Final

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.events import log_event, log_stuck
from imagegen.generation import Generation, GenerationError, Status, Versioned
from imagegen.lifecycle.claims import ClaimKeeper, KeptClaim
from imagegen.lifecycle.effects import Effects
from imagegen.lifecycle.finishing import drop, finish
from imagegen.lifecycle.ports import ANY_TURN, Ports, Turn
from imagegen.lifecycle.quotas import Choice, Quotas
from imagegen.lifecycle.transitions import (
    Call,
    ContinuingEffect,
    Drop,
    Due,
    DueForDirect,
    DueForPolled,
    DueWithoutModel,
    FellOver,
    Finish,
    Leave,
    Outcome,
    Pause,
    Rest,
    Step,
    Submit,
    Take,
    TryNext,
    Wait,
    transition,
)
from imagegen.upstream.protocol import Direct, Ended, Lost, Missing, Throttled, Unavailable

_WORTH_WRITING: Final = timedelta(seconds=5)
"""A nearer `due` stays in the memory of the worker that polls. It is not worth a transaction."""

_CAUSE: Final[dict[type, str]] = {
    DueWithoutModel: "the settings do not name its model",
    DueForDirect: "its model was changed to an API that cannot poll its operation",
}

_OUTAGE_GRACE: Final = timedelta(seconds=30)
"""Time after a failure of storage in which a claim may be renewed late: its worker could not write either."""
_LONGEST_INVOCATION: Final = timedelta(minutes=30)
"""functionTimeout of host.json: a worker that has not renewed its claim for this long does not live."""

_WRITE_WAITS: Final = (2.0, 5.0, 10.0)
"""Seconds between the tries of a write that only this worker can make. The last one repeats."""
_CLAIM_BUDGET: Final = timedelta(seconds=60)
_OUTCOME_BUDGET: Final = timedelta(minutes=12)
"""Limits of those tries: before a call, and after it."""


class Worker:
    """Advances generations. Thread-safe. All threads of a process share one, because it remembers outages."""

    def __init__(self, ports: Ports, keeper: ClaimKeeper | None = None) -> None:
        self._ports = ports
        self._keeper = keeper or ClaimKeeper(ports.records, ports.clock, on_outage=self.note_outage)
        self._effects = Effects(ports)
        self._quotas = Quotas(ports)
        self._no_takeover_before = datetime.min.replace(tzinfo=UTC)

    def note_outage(self) -> None:
        """Remember that storage did not answer: claims of living workers may be renewed late."""
        self._no_takeover_before = self._ports.clock() + _OUTAGE_GRACE

    def advance_by_id(self, generation_id: str, *, has_minutes: bool, turn: Turn | None = None) -> None:
        """Advance the generation of a queue message, if it is due or still waits for this message.

        Parameters
        ----------
        turn
            What the timer gave the generation. None: it waits while earlier ones wait.

        Raises
        ------
        StorageUnavailableError
            When storage does not answer. The message comes again.
        """
        try:
            current = self._ports.records.read_active(generation_id)
            is_asked = current and (current.generation.queued or (turn and current.generation.waits))
            if current and (is_asked or current.generation.due <= self._ports.clock()):
                after = self.advance(current, turn, has_minutes=has_minutes)
                if has_minutes and after and after.generation.waits:
                    self._ports.request_slot(after.generation.due)
        except StorageUnavailableError:
            self.note_outage()
            raise
        except Exception as error:  # noqa: BLE001 - the timer advances the generation later
            log_stuck(generation_id, error)

    def advance(
        self, current: Versioned, turn: Turn | None = ANY_TURN, *, has_minutes: bool = False
    ) -> Versioned | None:
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
            after = self.run(current, has_minutes=has_minutes, turn=turn)
        except ConflictError:
            return None
        return None if after.generation.status.is_terminal else after

    def run(
        self, current: Versioned, *, has_minutes: bool = False, turn: Turn | None = None, is_new: bool = False
    ) -> Versioned:
        """Advance a due generation. Return its record as it is now, ended or not.

        Parameters
        ----------
        is_new
            Whether this worker created the record just now: no cancel can have ended it.

        Raises
        ------
        ConflictError
            When another worker changed the record. Its change is valid, this one is dropped.
        """
        if current.generation.calling:
            spared_until = min(self._no_takeover_before, current.generation.due + _LONGEST_INVOCATION)
            if self._ports.clock() < spared_until:
                return Versioned(current.generation.changed(due=spared_until), current.etag)
        try:
            return self._run(current, partial(self._due, has_minutes=has_minutes, turn=turn), is_new=is_new)
        except StorageUnavailableError:
            self.note_outage()
            raise
        except ConflictError:
            log_event("generation.overtaken", id=current.generation.id)
            raise

    def _run(self, current: Versioned, due: Callable[[Generation], Due], *, is_new: bool) -> Versioned:
        claim = self._ports.new_claim()
        outcome: Outcome = due(current.generation)
        with ExitStack() as stack:
            kept: KeptClaim | None = None
            while True:
                step = self._decide(current.generation, outcome, claim, is_new=is_new)
                # Before the write, which may fail: a lost call must leave a trace.
                self._log_outcome(outcome, step)
                if kept and not isinstance(step.effect, Take):
                    current = kept.release()
                match step.effect:
                    case Finish() if kept and kept.lost and step.generation.status is not Status.SUCCEEDED:
                        # Another worker calls again. Its images must not be dropped because this call failed.
                        raise ConflictError(current.generation.id)
                    case Finish():
                        end = partial(finish, self._ports, step.generation, current.etag)
                        # What a call gave is known here only.
                        winner = self._repeat(end, _OUTCOME_BUDGET) if kept else end()
                        return Versioned(winner or step.generation, current.etag)
                    case Drop(winner):
                        drop(self._ports, current.generation.id, winner, current.etag)
                        return Versioned(step.generation, current.etag)
                    case Leave() | Wait() | Take():
                        current = Versioned(step.generation, current.etag)
                    case Call():
                        # A write whose answer was lost may stand: a claim without a call would count as a lost call.
                        current = self._repeat(partial(self._write, current, step), _CLAIM_BUDGET)
                    case _:
                        write = partial(self._write, current, step)
                        current = self._repeat(write, _OUTCOME_BUDGET) if kept else write()
                # A crash from here on repeats the effect, with one exception: a call is not idempotent. The claim in
                # the record says that a call was made, and that its response is lost.
                if isinstance(step.effect, Call | TryNext):
                    kept = stack.enter_context(self._keeper.keep(current)) if isinstance(step.effect, Call) else None
                more = self._carry_out(step.effect, current.generation, due)
                if more is None:
                    return current
                outcome = more

    def _carry_out(
        self, effect: ContinuingEffect, generation: Generation, due: Callable[[Generation], Due]
    ) -> Outcome | None:
        outcome = self._effects.carry_out(effect, generation)
        match outcome:
            case None if isinstance(effect, TryNext):
                return due(generation)
            case Ended(_, GenerationError(is_of_deployment=True) as error) if self._quotas.has_another(generation):
                return FellOver(error)
            case _:
                return outcome

    def _decide(self, generation: Generation, outcome: Outcome, claim: str, *, is_new: bool) -> Step:
        step = self._step(generation, outcome, claim)
        if is_new or not isinstance(step.effect, Call | Submit):
            return step
        # A worker that is late must not pay for a generation that was canceled or deleted meanwhile. It looks before it
        # claims: if storage fails at this read, nothing was written. A claim without a call would count as a lost call.
        # After the read, which may take long, it decides anew: the claim begins now.
        return self._step(generation, self._effects.find_end(generation) or outcome, claim)

    def _step(self, generation: Generation, outcome: Outcome, claim: str) -> Step:
        return transition(generation, outcome, self._ports.clock(), jitter=self._ports.jitter(), claim=claim)

    def _repeat[T](self, write: Callable[[], T], budget: timedelta) -> T:
        """Repeat a write until storage answers, or until this time is over."""
        give_up = self._ports.clock() + budget
        for wait in chain(_WRITE_WAITS, repeat(_WRITE_WAITS[-1])):
            try:
                return write()
            except StorageUnavailableError:
                self.note_outage()
                if self._ports.clock() >= give_up:
                    raise
            self._ports.sleep(wait)
        raise AssertionError("the waits are endless")

    def _due(self, generation: Generation, *, has_minutes: bool, turn: Turn | None) -> Due:
        """Collect the facts that decide how a due generation goes on."""
        upstream = self._ports.upstream(generation.request.model)
        direct = isinstance(upstream, Direct)
        if upstream is None:
            return DueWithoutModel()
        repeat = self._ports.repeat_lost_calls
        may_call = generation.operation_location is None and (has_minutes or not direct)
        choice = self._quotas.choose(generation, turn) if may_call else Choice(None, None)
        if direct:
            return DueForDirect(repeat, choice.wait_until, has_minutes, choice.address)
        return DueForPolled(repeat, choice.wait_until)

    def _write(self, current: Versioned, step: Step) -> Versioned:
        """Write what other workers must know. Raises ConflictError when one of them changed the record."""
        before, generation = current.generation, step.generation
        now = self._ports.clock()
        # A stored `due` that has passed is as good as one in a moment. One that lies ahead would hide the record.
        near = isinstance(step.effect, Rest) and generation.due - now < _WORTH_WRITING and before.due <= now
        if generation == before or (near and generation.changed(due=before.due) == before):
            return Versioned(generation, current.etag)
        written = Versioned(generation, self._ports.records.save(generation, current.etag))
        crash_point(CrashPoint.RECORD_WRITTEN)
        return written

    def _log_outcome(self, outcome: Outcome, step: Step) -> None:
        generation = step.generation
        match outcome:
            case Throttled() | Unavailable() | Missing():
                resumes = step.effect.throttle.until if isinstance(step.effect, Pause) else generation.due
                log_event(
                    "upstream.unavailable",
                    level=logging.WARNING,
                    id=generation.id,
                    reason="status 404" if isinstance(outcome, Missing) else outcome.cause,
                    faults=generation.faults,
                    seconds=round((resumes - self._ports.clock()).total_seconds()),
                )
            case FellOver(error):
                log_event(
                    "generation.fell_over",
                    level=logging.WARNING,
                    id=generation.id,
                    deployment=generation.refused_by[-1],
                    code=error.code,
                )
            case Lost(reason):
                log_event("generation.call_lost", level=logging.WARNING, id=generation.id, reason=reason)
            case _:
                pass
        if isinstance(step.effect, Leave):
            log_event(
                "generation.stranded",
                level=logging.WARNING,
                id=generation.id,
                model=generation.request.model,
                cause=_CAUSE[type(outcome)],
            )
