"""What to do next, and what a generation becomes by it: decisions only.

Nothing in here acts, waits or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage
from imagegen.upstream.protocol import Accepted, Throttled, Unavailable, Working

SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds. What upstream says in Retry-After is held between these."""

_LONGEST_PAUSE: Final = 3_600.0

LONGEST_CALL: Final = timedelta(seconds=330)
"""How long one call of an API that answers with the images may take: 250 s are seen."""

CALL_SLACK: Final = timedelta(seconds=30)
"""From the end of a call to the renewal of its claim, at most."""

LONGEST_TAKE: Final = timedelta(seconds=240)
"""How long one try to write an image of its answer may take: a fetch, and three tries of storage."""

TAKE_BUDGET: Final = timedelta(minutes=12)
"""When no image of an answer is tried again: host.json's functionTimeout is 30 minutes, all in all."""

MESSAGE_LOST: Final = timedelta(minutes=10)
"""When a message that asked for work must have been lost. Sent again too early, it costs a transaction alone."""

MOST_LOST_CALLS: Final = 3
"""Answers of one generation that may be lost before it fails."""

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
class Call:
    """Call an API that answers with the images."""

    repeated: bool
    """Whether an earlier call may have been billed."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Ask a worker to make the call: it is too long for whoever is here."""


@dataclass(frozen=True, slots=True)
class Finish:
    """This is how the generation ends."""

    generation: Generation


def next_move(
    generation: Generation, now: datetime, *, direct: bool, may_call: bool, repeat_lost_calls: bool
) -> Submit | Poll | Call | Enqueue | Finish:
    """What this generation needs.

    A deadline that has passed keeps us from starting work, but not from looking once more at work that upstream has
    accepted: where the timer was down, the images may have been ready for long, and they are paid for.

    Parameters
    ----------
    direct
        Whether its model answers with the images.
    may_call
        Whether whoever is here has the minutes that this takes.
    repeat_lost_calls
        Whether a call whose answer was lost may be made again.
    """
    if generation.operation_location is not None:
        return Poll()
    # Whoever called did not come back within the time that it may take: the answer is lost.
    lost = generation.calling or generation.lost_calls > 0
    if lost and (not repeat_lost_calls or generation.lost_calls + generation.calling >= MOST_LOST_CALLS):
        return Finish(outcome_unknown(generation, now))
    if now >= generation.deadline:
        return Finish(past_deadline(generation, now))
    if not direct:
        return Submit()
    return Call(repeated=lost) if may_call else Enqueue()


def enqueued(generation: Generation, now: datetime) -> Generation:
    """A message is on its way. `due` is when it must have been lost."""
    return generation.changed(queued=True, due=min(now + MESSAGE_LOST, max(generation.deadline, now)))


def call_claimed(generation: Generation, now: datetime) -> Generation:
    """Set `due` to when the call, and the copy of its images, must be over."""
    return generation.changed(
        status=Status.RUNNING,
        queued=False,
        calling=True,
        lost_calls=generation.lost_calls + generation.calling,
        submitted=generation.submitted or now,
        last_action=now,
        due=now + LONGEST_CALL + CALL_SLACK,
    )


def claim_extended(generation: Generation, now: datetime) -> Generation:
    """There is still an image to take."""
    return generation.changed(due=now + 2 * LONGEST_TAKE)


def call_lost(generation: Generation, now: datetime, *, jitter: float) -> Generation:
    """No answer came, and the call may have been billed."""
    lost = unavailable(generation, Unavailable("lost"), now, jitter=jitter)
    return lost.changed(calling=False, lost_calls=generation.lost_calls + 1)


def throttled(generation: Generation, until: datetime, now: datetime, *, jitter: float) -> Generation:
    """Wait until the brake is off, and not all at that moment: spread over as long again, a minute at most."""
    spread = min(LONGEST_WAIT, max(SHORTEST_WAIT, (until - now).total_seconds()))
    due = max(until, now) + timedelta(seconds=spread * jitter)
    # Not beyond the deadline: it is then that somebody must look, brake or not.
    return generation.changed(queued=False, calling=False, due=min(due, max(generation.deadline, now)))


def pause_until(outcome: Throttled, faults: int, now: datetime) -> datetime:
    """Until when nobody calls: as told, however long; else twice as long with each time in a row."""
    otherwise = min(LONGEST_WAIT, 5 * 2.0 ** min(faults, 10))
    told = otherwise if outcome.retry_after is None else min(_LONGEST_PAUSE, outcome.retry_after)
    return now + timedelta(seconds=max(SHORTEST_WAIT, told))


def model_removed(generation: Generation, now: datetime) -> Generation:
    message = f"The model '{generation.request.model}' was removed from the app's settings before it was finished."
    return failed(generation, GenerationError(code="modelRemoved", message=message), now)


def outcome_unknown(generation: Generation, now: datetime) -> Generation:
    message = (
        "The answer of the image service was lost, and the call may have been billed. It was not made again "
        "(REPEAT_LOST_CALLS, or too many lost answers). Start a new generation if you want the images."
    )
    return ended(generation, Status.FAILED, GenerationError(code="outcomeUnknown", message=message), now)


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
    due = now + timedelta(seconds=wait * (1 + jitter / 4))
    return generation.changed(faults=faults, calling=False, queued=False, due=due)


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


def is_hopeless(generation: Generation, now: datetime) -> bool:
    """Whether the copy was begun so often, and never came to an end, that it will not: it may be what kills us."""
    tries = generation.copy_attempts
    return tries >= 2 * COPY_TRIES or (tries >= COPY_TRIES and now >= generation.deadline)


def copy_given_up(generation: Generation, images: int, now: datetime) -> Generation:
    message = f"The images could not be copied: {generation.copy_attempts} tries did not come to an end."
    error = GenerationError(code="copyFailed", message=message)
    known = generation.images or (None,) * images
    return copied(generation.changed(images=tuple(image or FailedImage(error=error) for image in known)), now)


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
    return failed(generation, GenerationError(code="deadlineExceeded", message=message), now)


def failed(generation: Generation, error: GenerationError, now: datetime) -> Generation:
    """Nothing more will come. Images that are there already count, and make it a success in part."""
    if not any(isinstance(image, StoredImage) for image in generation.images):
        return ended(generation, Status.FAILED, error, now)
    images = tuple(image or FailedImage(error=error) for image in generation.images)
    return copied(generation.changed(images=images), now)


def ended(generation: Generation, status: Status, error: GenerationError | None, now: datetime) -> Generation:
    return generation.changed(status=status, error=error, last_action=now, due=now)


def _wait(told: float | None, otherwise: float) -> float:
    return otherwise if told is None else min(LONGEST_WAIT, max(SHORTEST_WAIT, told))


def _copy_wait(generation: Generation) -> timedelta:
    # Claims count too that ended without a verdict on the image (storage was away), so that there may be very many.
    return timedelta(seconds=2.0 ** min(generation.copy_attempts - 1, COPY_TRIES))
