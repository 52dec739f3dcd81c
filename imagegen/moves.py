"""What to do next, and what a generation becomes by it: decisions only.

Nothing in here acts, waits or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage
from imagegen.upstream import Accepted, Unavailable, Working

SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds. What upstream says in Retry-After is held between these."""

COPY_TRIES: Final = 5
"""How often the copy of an image is tried before its failure is final."""

COPY_SECONDS_EACH: Final = 30
COPY_SECONDS_SLACK: Final = 10
"""How long a worker may take to copy one image, and for all the rest of that move."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Send the request upstream."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask upstream how it is doing."""


@dataclass(frozen=True, slots=True)
class Finish:
    """This is how the generation ends."""

    generation: Generation


def next_move(generation: Generation, now: datetime) -> Submit | Poll | Finish:
    """What this generation needs.

    A deadline that has passed keeps us from starting work, but not from looking once more at work that upstream has
    accepted: where the timer was down, the images may have been ready for long, and they are paid for.
    """
    if generation.operation_location is not None:
        return Poll()
    if now >= generation.deadline:
        return Finish(past_deadline(generation, now))
    return Submit()


def accepted(generation: Generation, outcome: Accepted, now: datetime) -> Generation:
    """Upstream took it: from here on there is something to poll."""
    return generation.changed(
        status=Status.RUNNING,
        operation_location=outcome.operation_location,
        submitted=now,
        last_action=now,
        faults=0,
        due=now + timedelta(seconds=_wait(outcome.retry_after, SHORTEST_WAIT)),
    )


def still_working(generation: Generation, outcome: Working, now: datetime) -> Generation:
    """Poll again when told; where nothing is told, the longer it has taken the later, to a tenth of its age."""
    age = (now - (generation.submitted or generation.created)).total_seconds()
    wait = _wait(outcome.retry_after, min(10.0, max(SHORTEST_WAIT, age / 10)))
    return generation.changed(faults=0, due=now + timedelta(seconds=wait))


def unavailable(generation: Generation, outcome: Unavailable, now: datetime, *, jitter: float) -> Generation:
    """Upstream could not answer: wait as told, else twice as long with each failure in a row.

    Parameters
    ----------
    jitter
        0 to 1: how much to add of a quarter of the wait, so that many do not come back at the same moment.
    """
    faults = generation.faults + 1
    wait = _wait(outcome.retry_after, min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(faults - 1, 10)))
    return generation.changed(faults=faults, due=now + timedelta(seconds=wait * (1 + jitter / 4)))


def copy_claimed(generation: Generation, images: int, now: datetime) -> Generation:
    """Set ``due`` to when the copy must be over: others keep off until then, and take over after it."""
    longest = COPY_SECONDS_EACH * images + COPY_SECONDS_SLACK
    return generation.changed(copy_attempts=generation.copy_attempts + 1, due=now + timedelta(seconds=longest))


def may_copy_again(generation: Generation, expires: datetime | None, now: datetime) -> bool:
    """Whether an image that could not be copied this time is worth another try."""
    retry_at = now + _copy_wait(generation)
    return (
        generation.copy_attempts < COPY_TRIES
        and retry_at < generation.deadline
        and (expires is None or retry_at < expires)
    )


def copied_in_part(generation: Generation, now: datetime) -> Generation:
    """Some images are still to be copied: keep what there is, and come back."""
    return generation.changed(last_action=now, due=now + _copy_wait(generation))


def copied(generation: Generation, now: datetime) -> Generation:
    """Every image has its outcome. One that is there makes a success; none makes a failure, with the first reason."""
    if any(isinstance(image, StoredImage) for image in generation.images):
        return ended(generation, Status.SUCCEEDED, None, now)
    reasons = [image.error for image in generation.images if isinstance(image, FailedImage)]
    # A refusal tells the caller what to change: it says more than "could not be copied".
    error = next((reason for reason in reasons if reason.is_refusal), reasons[0])
    return ended(generation, Status.FAILED, error, now)


def past_deadline(generation: Generation, now: datetime) -> Generation:
    seconds = round((generation.deadline - generation.created).total_seconds())
    message = f"The generation was not finished within {seconds} seconds (timeoutSeconds)."
    return ended(generation, Status.FAILED, GenerationError(code="deadlineExceeded", message=message), now)


def ended(generation: Generation, status: Status, error: GenerationError | None, now: datetime) -> Generation:
    return generation.changed(status=status, error=error, last_action=now, due=now)


def _wait(told: float | None, otherwise: float) -> float:
    return otherwise if told is None else min(LONGEST_WAIT, max(SHORTEST_WAIT, told))


def _copy_wait(generation: Generation) -> timedelta:
    # Claims count too that ended without a verdict on the image (storage was away), so that there may be very many.
    return timedelta(seconds=2.0 ** min(generation.copy_attempts - 1, COPY_TRIES))
