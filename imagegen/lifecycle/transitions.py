"""The state machine: `transition` maps a state and an outcome to the next record and what the worker does next.

This module only decides. It does not act, wait, log or read a clock. `changes` makes the records, `worker` acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from imagegen.generation import Generation, GenerationError, Status
from imagegen.lifecycle import backoff, changes
from imagegen.lifecycle.changes import CopyResult
from imagegen.upstream.protocol import (
    Accepted,
    Answered,
    Ended,
    Lost,
    Missing,
    Produced,
    Throttle,
    Throttled,
    Unavailable,
    Working,
)

MOST_LOST_CALLS: Final = 3
"""Lost responses of one generation before it fails."""

REFUSAL_LASTS: Final = timedelta(minutes=5)
"""Time for which a deployment of a pool that refused the app, with 401, 403 or 404, takes no calls."""


class State(Enum):
    """What an active record waits for."""

    WAITING = auto()
    """A submit or a call. No operation is running."""
    CALLING = auto()
    """The response of a call. A worker has claimed the record until `due`."""
    ACCEPTED = auto()
    """The end of an operation that the service accepted, and the copy of its images."""


def state_of(generation: Generation) -> State:
    if generation.operation_location is not None:
        return State.ACCEPTED
    return State.CALLING if generation.calling else State.WAITING


# --- Outcomes: what happened. Those of the image service are in `upstream.protocol`.


@dataclass(frozen=True, slots=True)
class DueForPolled:
    """The record is due, and its model is polled."""

    repeat_lost_calls: bool
    """Whether a call whose response was lost may be repeated (and billed twice)."""
    wait_until: datetime | None
    """The generation has no turn before this time, which may have passed."""


@dataclass(frozen=True, slots=True)
class FellOver:
    """A deployment of a pool refused the app. Nothing was billed, and another deployment may take the call."""

    error: GenerationError


@dataclass(frozen=True, slots=True)
class DueForDirect:
    """The record is due, and its model answers with the images."""

    repeat_lost_calls: bool
    wait_until: datetime | None
    has_minutes: bool
    """Whether this worker can spend the minutes of a call."""
    deployment: str | None = None
    """The member of a pool that takes the call."""


@dataclass(frozen=True, slots=True)
class DueWithoutModel:
    """The record is due, and the settings no longer name its model."""


@dataclass(frozen=True, slots=True)
class AlreadyEnded:
    """A cancel or a delete ended the generation before its call or submit was made."""

    winner: Generation | None
    """The outcome in ``done/``; None when the generation was deleted."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Every missing image was tried once."""

    results: tuple[CopyResult, ...]
    expires: datetime | None = None
    """When the service deletes the images."""
    usage: dict[str, int] | None = None
    """Tokens, where the service counts them."""


type Due = DueForPolled | DueForDirect | DueWithoutModel
type Outcome = (
    Due
    | AlreadyEnded
    | FellOver
    | Accepted
    | Working
    | Produced
    | Missing
    | Answered
    | Ended
    | Throttled
    | Unavailable
    | Lost
    | Copied
)


# --- Effects: what the worker does after it has written the record.


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing. The record's `due` says when to look again."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing, and no write: this instance cannot do the work. `due` says when it looks again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, and no write: the quota of the model is used up. The timer gives the generation its turn."""


@dataclass(frozen=True, slots=True)
class TryNext:
    """Tell all workers that a deployment refuses the app, then begin again with another one of the pool."""

    throttle: Throttle
    deployment: str | None


@dataclass(frozen=True, slots=True)
class Submit:
    """Start the operation. Idempotent: the generation's id is its ``Operation-Id``."""


@dataclass(frozen=True, slots=True)
class Poll:
    """GET the operation-location."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Send a queue message: this worker cannot spend the minutes of a call."""


@dataclass(frozen=True, slots=True)
class Call:
    """Make a call that is billed each time. The record holds the claim."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the images that an operation produced. Can be repeated."""

    produced: Produced


@dataclass(frozen=True, slots=True)
class Take:
    """Store the images of a response. They come only once."""

    answered: Answered


@dataclass(frozen=True, slots=True)
class Pause:
    """Tell all workers not to call the deployment for a while."""

    throttle: Throttle
    deployment: str | None = None
    """The member of a pool that was throttled."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the record to ``done/`` and drop the active one. The first outcome wins."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop the active record: ``done/`` holds the outcome, or a tombstone."""

    winner: Generation | None


type ContinuingEffect = Rest | Leave | Wait | TryNext | Submit | Poll | Enqueue | Call | Copy | Take | Pause
type EndingEffect = Finish | Drop
type Effect = ContinuingEffect | EndingEffect


@dataclass(frozen=True, slots=True)
class Step:
    """A transition: the record to write, and the effect that follows the write."""

    generation: Generation
    effect: Effect


class ImpossibleOutcomeError(Exception):
    """An outcome that cannot occur in this state: a defect of the worker."""


def transition(  # noqa: C901 - the table: one case for each pair
    generation: Generation, outcome: Outcome, now: datetime, *, jitter: float, claim: str
) -> Step:
    """Decide what the generation becomes and what the worker does next.

    Every pair of state and outcome has its line here. The type checker reports a missing pair.

    Parameters
    ----------
    jitter
        Random, 0 to 1.
    claim
        Random name of the worker that asks.
    """
    late = now >= generation.deadline
    match state_of(generation), outcome:
        # The record is due.
        case State.WAITING | State.CALLING, DueForPolled() | DueForDirect():
            return _begin(generation, outcome, now, claim)
        case State.ACCEPTED, DueForPolled():
            # Also past the deadline: the operation is paid for, and its images may be ready.
            return Step(generation, Poll())
        case State.ACCEPTED, DueForDirect():
            # The API of the deployment was changed. The old one may come back until the deadline.
            if late:
                return Step(changes.api_changed(generation, now), Finish())
            return Step(changes.stranded(generation, now), Leave())
        case _, DueWithoutModel():
            # A slip in the settings, or an instance that is older or newer than the one that started it.
            if late:
                return Step(changes.model_removed(generation, now), Finish())
            return Step(changes.stranded(generation, now), Leave())

        # A submit.
        case State.WAITING, Accepted():
            return Step(changes.accepted(generation, outcome, now), Rest())

        # A poll.
        case State.ACCEPTED, Produced():
            return _copy(generation, outcome, now, claim)
        case State.ACCEPTED, Working():
            if late:
                return Step(changes.past_deadline(generation, now), Finish())
            return Step(changes.still_working(generation, outcome, now), Rest())
        case State.ACCEPTED, Missing():
            missing = changes.missing(generation, outcome, now, jitter=jitter)
            if changes.is_gone(missing, now):
                return Step(changes.operation_gone(generation, now), Finish())
            if changes.is_given_up(generation, now):
                return Step(changes.past_deadline(generation, now), Finish())
            return Step(missing, Rest())
        case State.ACCEPTED, Unavailable() if changes.is_given_up(generation, now):
            return Step(changes.past_deadline(generation, now), Finish())
        case State.ACCEPTED, Copied():
            part = changes.copied_in_part(generation, outcome.results, outcome.expires, now)
            return Step(part, Rest()) if part else Step(changes.copied(generation, outcome.results, now), Finish())

        # A call.
        case State.WAITING | State.CALLING, AlreadyEnded(winner):
            return Step(winner or changes.ended(generation, Status.CANCELED, None, now), Drop(winner))
        case State.CALLING, Answered():
            return Step(generation, Take(outcome))
        case State.CALLING, Lost():
            return Step(changes.call_lost(generation, outcome, now, jitter=jitter), Rest())
        case State.CALLING, Copied():
            taken = changes.copied(generation.changed(usage=outcome.usage), outcome.results, now)
            return Step(taken, Finish())

        # Any of them.
        case _, Ended():
            return _end(generation, outcome, now)
        case _, Unavailable():
            return Step(changes.unavailable(generation, outcome, now, jitter=jitter), Rest())
        case State.WAITING | State.CALLING, Throttled():
            throttle = Throttle(backoff.pause_until(outcome.retry_after, generation.faults, now), outcome.cause)
            waiting = changes.paused(generation, throttle, now)
            # The record first: a record with `calling` and no call would count as a lost call.
            pause = Pause(throttle, generation.deployment)
            return Step(waiting.changed(faults=generation.faults + 1), pause)
        case State.CALLING, FellOver(error):
            refuses = Throttle(now + REFUSAL_LASTS, error.code)
            return Step(changes.fell_over(generation, error, now), TryNext(refuses, generation.deployment))

        case (
            (State.WAITING, Working() | Produced() | Missing() | Answered() | Lost() | Copied() | FellOver())
            | (State.CALLING, Accepted() | Working() | Produced() | Missing())
            | (State.ACCEPTED, Accepted() | Answered() | Lost() | Throttled() | AlreadyEnded() | FellOver())
        ):
            raise ImpossibleOutcomeError(f"{type(outcome).__name__} in state {state_of(generation).name}")


def _begin(generation: Generation, due: DueForPolled | DueForDirect, now: datetime, claim: str) -> Step:
    """Start, or start again, the work of a model."""
    # A claim that has expired: the worker crashed during its call, and the response is lost.
    generation = changes.claim_expired(generation)
    lost = generation.lost_calls
    late = now >= generation.deadline
    if lost and (cause := _end_of_calls(lost, late=late, repeat=due.repeat_lost_calls)):
        return Step(changes.outcome_unknown(generation, now, cause=cause), Finish())
    if late:
        return Step(changes.past_deadline(generation, now), Finish())
    if isinstance(due, DueForDirect) and not due.has_minutes:
        return Step(changes.queued(generation, now), Enqueue())
    if due.wait_until and due.wait_until > now:
        # The `due` of a start hides its record from the timer, so that only the start submits. A queued one is seen.
        is_hidden = generation.due > now and not generation.queued
        return Step(changes.waiting(generation, due.wait_until), Rest() if is_hidden else Wait())
    if isinstance(due, DueForDirect):
        return Step(changes.call_claimed(generation.changed(deployment=due.deployment), now, claim=claim), Call())
    return Step(generation, Submit())


def _end_of_calls(lost: int, *, late: bool, repeat: bool) -> str | None:
    """Why lost calls are not repeated; None if the next call may be made."""
    if not repeat:
        return "because the app has the setting REPEAT_LOST_CALLS=false"
    if lost >= MOST_LOST_CALLS:
        return f"after {lost} lost responses"
    return "because the deadline (timeoutSeconds) had passed" if late else None


def _copy(generation: Generation, produced: Produced, now: datetime, claim: str) -> Step:
    images = len(produced.images)
    if changes.is_hopeless(generation, now):
        return Step(changes.copy_abandoned(generation, images, now), Finish())
    known = generation.images or (None,) * images
    # The claim: two workers that saw "succeeded" must not both download.
    return Step(changes.copy_claimed(generation, known.count(None), now, claim=claim), Copy(produced))


def _end(generation: Generation, outcome: Ended, now: datetime) -> Step:
    if outcome.error and state_of(generation) is State.ACCEPTED:
        return Step(changes.failed(generation, outcome.error, now), Finish())
    return Step(changes.ended(generation, outcome.status, outcome.error, now), Finish())
