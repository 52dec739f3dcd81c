"""Effects: what the worker does between two decisions of `transitions`."""

from __future__ import annotations

import logging
from typing import Final

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.events import log_event, log_stuck
from imagegen.generation import Generation, GenerationError, Status
from imagegen.lifecycle.copying import copy_produced, take_answered
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.transitions import (
    AlreadyEnded,
    Call,
    ContinuingEffect,
    Copy,
    Enqueue,
    Leave,
    Outcome,
    Pause,
    Poll,
    Rest,
    Submit,
    Take,
    TryNext,
    Wait,
)
from imagegen.telemetry import Retry
from imagegen.upstream.protocol import Direct, Ended, Lost, Missing, Polled, Throttled, Unavailable

_SPANS: Final[dict[type, str]] = {
    Submit: "upstream.submit",
    Poll: "upstream.poll",
    Call: "upstream.call",
    Copy: "images.copy",
    Take: "images.copy",
}
_RETRIES: Final[dict[type, Retry]] = {
    Throttled: "throttled",
    Unavailable: "unavailable",
    Missing: "missing",
    Lost: "lost",
}


class Effects:
    """Carries out effects. Thread-safe."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def carry_out(self, effect: ContinuingEffect, generation: Generation) -> Outcome | None:
        """Carry out an effect, in a span if it takes time. Return its outcome, if there is more to decide."""
        if (name := _SPANS.get(type(effect))) is None:
            return self._try(effect, generation)
        model = generation.request.model
        with self._ports.telemetry.span(name, generation.traceparent, model=model, generation_id=generation.id) as span:
            outcome = self._try(effect, generation)
            span.ends_as(type(outcome).__name__, failed=isinstance(outcome, Ended) and outcome.error is not None)
        match outcome:
            case Throttled() | Unavailable() | Missing() | Lost():
                self._ports.telemetry.count_retry(model, _RETRIES[type(outcome)])
            case _:
                pass
        return outcome

    def _try(self, effect: ContinuingEffect, generation: Generation) -> Outcome | None:
        """Carry out an effect. Past the deadline, a defect of the app ends the generation."""
        try:
            return self._do(effect, generation)
        except (ConflictError, StorageUnavailableError):
            raise
        except Exception as error:
            if self._ports.clock() < generation.deadline or not isinstance(effect, Submit | Poll | Copy):
                raise  # and again at the next tick
            log_stuck(generation.id, error)
            message = "The app failed at this generation until its deadline. Its log has the reason under the id."
            return Ended(Status.FAILED, GenerationError(code="internalError", message=message))

    def _do(self, effect: ContinuingEffect, generation: Generation) -> Outcome | None:
        member = self._ports.member(generation)
        match effect, member.upstream if member else None:
            case Submit(), Polled() as upstream:
                submitted = upstream.submit(generation)
                crash_point(CrashPoint.OPERATION_SUBMITTED)
                return submitted
            case Poll(), Polled() as upstream:
                polled = upstream.poll(generation, self._ports.clock())
                crash_point(CrashPoint.OPERATION_POLLED)
                return polled
            case Call(), Direct() as upstream:
                self._log_repeated_call(generation)
                return self._call(upstream, generation)
            case Copy(produced), _:
                crash_point(CrashPoint.COPY_CLAIMED)
                return copy_produced(self._ports, generation, produced)
            case Take(answered), _:
                # Also after a cancel or another outcome: the images of two calls have different names, and `finish`
                # removes those that the winner does not list.
                return take_answered(self._ports, generation, answered)
            case Enqueue(), _:
                # Sent after it was written: a crash in between is a lost message, and costs the time until `due`.
                self._ports.queue.send([generation.id])
                crash_point(CrashPoint.MESSAGE_SENT)
                return None
            case Pause(throttle, deployment) | TryNext(throttle, deployment), _:
                key = self._ports.key_of(generation.request.model, deployment)
                self._ports.throttling.pause(key, throttle)
                crash_point(CrashPoint.PAUSE_WRITTEN)
                return None
            case Rest() | Leave() | Wait(), _:
                return None
            case Submit() | Poll() | Call(), upstream:
                raise TypeError(f"{type(effect).__name__} does not fit {type(upstream).__name__}")

    def find_end(self, generation: Generation) -> AlreadyEnded | None:
        """Whether a cancel, a delete or another worker has ended the generation.

        If its active record was dropped or changed, the conditional write of the claim fails.
        """
        end = self._ports.records.read_end(generation.id)
        return AlreadyEnded(end.outcome) if end else None

    def _call(self, upstream: Direct, generation: Generation) -> Outcome:
        crash_point(CrashPoint.CALL_CLAIMED)
        try:
            answered = upstream.generate(generation)
        except Exception as error:  # noqa: BLE001 - a defect of the app must not repeat a call that may be billed
            log_stuck(generation.id, error)
            message = (
                "The app failed during the call, and the service may have billed it. The app did not repeat it. "
                "Its log has the reason under the id of the generation."
            )
            return Ended(Status.FAILED, GenerationError(code="outcomeUnknown", message=message))
        crash_point(CrashPoint.CALL_ANSWERED)
        return answered

    def _log_repeated_call(self, generation: Generation) -> None:
        if generation.lost_calls:
            log_event(
                "generation.call_repeated",
                level=logging.WARNING,
                id=generation.id,
                lost_calls=generation.lost_calls,
                note="an earlier call may have been billed: this one may be billed twice",
            )
