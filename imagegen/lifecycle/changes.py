"""The record after each transition. Pure functions: they decide nothing, and `transitions` chooses among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage
from imagegen.lifecycle import backoff
from imagegen.upstream.protocol import Accepted, Lost, Missing, Throttle, Unavailable, Working

CALL_CLAIM: Final = timedelta(seconds=90)
"""Lifetime of a claim to call. Its worker renews it every 30 s; after a crash the timer takes over within 90 s."""

MESSAGE_LOST: Final = timedelta(minutes=10)
"""A queue message that has not arrived after this time is lost. Sending one too early costs one transaction."""

MISSING_POLLS: Final = 5
MISSING_TIME: Final = timedelta(seconds=30)
"""An operation is gone after this many polls with 404, over at least this time. A gateway that restarts answers 404,
and so does the service right after a submit."""

_LOST_WAITS: Final = (10.0, 60.0)
"""Seconds before a lost call is repeated, the first and the second time. Three calls in a few seconds would all fail in
the same short outage of a gateway, and each may be billed."""

_STRANDED_WAIT: Final = timedelta(seconds=60)

COPY_TRIES: Final = 5
"""Tries to copy an image before its failure is final."""

LATE_POLLS: Final = 3
"""Failed polls in a row after which an operation past its deadline is given up. It is paid for, and may be ready."""

COPY_SECONDS_EACH: Final = 30
COPY_SECONDS_SLACK: Final = 10
"""Limit of the copy of one image, and of the remaining work of that step."""


type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""


@dataclass(frozen=True, slots=True)
class CopyFault:
    """One image was not stored."""

    error: GenerationError
    retryable: bool
    """Whether another try can succeed."""
    by_storage: bool = False
    """Whether storage did not take the image. Such a try does not count."""


type CopyResult = StoredImage | FailedImage | CopyFault


def queued(generation: Generation, now: datetime) -> Generation:
    """A message is on its way. After `due` the timer takes it for lost."""
    return generation.changed(queued=True, due=min(now + MESSAGE_LOST, max(generation.deadline, now)))


def accepted(generation: Generation, outcome: Accepted, now: datetime) -> Generation:
    """The service accepted the operation; `due` is the first poll."""
    return generation.changed(
        status=Status.RUNNING,
        operation_location=outcome.operation_location,
        submitted=now,
        last_action=now,
        faults=0,
        fault=None,
        due=now + timedelta(seconds=backoff.clamp(outcome.retry_after, default=backoff.SHORTEST_WAIT)),
    )


def still_working(generation: Generation, outcome: Working, now: datetime) -> Generation:
    age = (now - (generation.submitted or generation.created)).total_seconds()
    due = now + backoff.poll_wait(outcome.retry_after, age)
    return generation.changed(faults=0, fault=None, missing_polls=0, missing_since=None, due=due)


def missing(generation: Generation, outcome: Missing, now: datetime, *, jitter: float) -> Generation:
    """Poll again: a 404 alone does not say that the operation is gone."""
    return _retry_later(generation, "status 404", outcome.retry_after, now, jitter).changed(
        missing_polls=generation.missing_polls + 1, missing_since=generation.missing_since or now
    )


def is_gone(generation: Generation, now: datetime) -> bool:
    """Whether so many polls in a row did not find the operation that it no longer exists."""
    since = generation.missing_since
    return generation.missing_polls >= MISSING_POLLS and since is not None and now - since >= MISSING_TIME


def operation_gone(generation: Generation, now: datetime) -> Generation:
    message = "The image service has no such operation: it expired or was deleted."
    return failed(generation, GenerationError(code="operationNotFound", message=message), now)


def unavailable(generation: Generation, outcome: Unavailable, now: datetime, *, jitter: float) -> Generation:
    """Retry later: the service did nothing."""
    later = _retry_later(generation, outcome.cause, outcome.retry_after, now, jitter)
    return later.changed(missing_polls=0, missing_since=None)


def waiting(generation: Generation, until: datetime) -> Generation:
    """Wait for a turn. Not written: a burst of a thousand may wait for an hour."""
    return generation.changed(due=min(until, generation.deadline))


def paused(generation: Generation, throttle: Throttle, now: datetime) -> Generation:
    """Its call was refused with 429. Wait for the end of the throttle, but not past the deadline."""
    # Another member of its pool may take the call at once.
    due = now if generation.deployment else min(throttle.until, max(generation.deadline, now))
    fault = f"throttled by the image service: {throttle.reason}"
    return generation.changed(queued=False, calling=False, claim=None, deployment=None, fault=fault, due=due)


def fell_over(generation: Generation, error: GenerationError, now: datetime) -> Generation:
    """Its deployment refused the app. Another member of the pool takes the call."""
    return generation.changed(
        calling=False,
        claim=None,
        deployment=None,
        refused_by=tuple(dict.fromkeys((*generation.refused_by, generation.deployment or ""))),
        fault=error.message,
        due=now,
    )


def call_claimed(generation: Generation, now: datetime, *, claim: str) -> Generation:
    """Claim the generation for one call. The worker renews the claim until the images are stored."""
    return generation.changed(
        status=Status.RUNNING,
        queued=False,
        calling=True,
        claim=claim,
        submitted=generation.submitted or now,
        last_action=now,
        due=now + CALL_CLAIM,
    )


def claim_renewed(generation: Generation, now: datetime) -> Generation:
    return generation.changed(due=now + CALL_CLAIM)


def call_lost(generation: Generation, outcome: Lost, now: datetime, *, jitter: float) -> Generation:
    """The response of a call was lost. The service may have billed it."""
    # Half of the time that is left: a short deadline must leave room for the repeated call.
    left = (generation.deadline - now).total_seconds() / 2
    wait = min(left, _LOST_WAITS[min(generation.lost_calls, len(_LOST_WAITS) - 1)])
    later = _retry_later(generation, outcome.cause, wait, now, jitter)
    return later.changed(lost_calls=generation.lost_calls + 1)


def claim_expired(generation: Generation) -> Generation:
    """The worker of the call crashed: count a lost call, drop its claim."""
    fault = "the worker stopped during the call" if generation.calling else generation.fault
    lost = generation.lost_calls + generation.calling
    return generation.changed(calling=False, claim=None, fault=fault, lost_calls=lost)


def stranded(generation: Generation, now: datetime) -> Generation:
    """Look again in a minute. Not written: another instance may have the settings that this one lacks."""
    return generation.changed(due=min(now + _STRANDED_WAIT, max(generation.deadline, now)))


def copy_claimed(generation: Generation, images: int, now: datetime, *, claim: str) -> Generation:
    """Claim the copy of this many images. After `due` the timer takes over."""
    longest = COPY_SECONDS_EACH * images + COPY_SECONDS_SLACK
    attempts = generation.copy_attempts + 1
    due = now + timedelta(seconds=longest)
    return generation.changed(copy_attempts=attempts, claim=claim, missing_polls=0, missing_since=None, due=due)


def copied_in_part(
    generation: Generation, results: Sequence[CopyResult], expires: datetime | None, now: datetime
) -> Generation | None:
    """Keep the stored images and copy the others later. None when no image can be tried again.

    Parameters
    ----------
    expires
        When the service deletes the images.
    """
    by_storage = any(isinstance(result, CopyFault) and result.by_storage for result in results)
    faults = generation.faults + 1 if by_storage else 0
    wait = backoff.fault_wait(None, faults, jitter=0) if by_storage else backoff.copy_wait(generation.copy_attempts)
    retry_at = now + wait
    in_time = retry_at < generation.deadline and (expires is None or retry_at < expires)
    if (generation.copy_attempts >= COPY_TRIES and not by_storage) or not in_time:
        return None
    if not any(isinstance(result, CopyFault) and result.retryable for result in results):
        return None
    images = tuple(None if isinstance(one, CopyFault) and one.retryable else _final(one) for one in results)
    attempts = generation.copy_attempts - by_storage
    fault = next(result.error.message for result in results if isinstance(result, CopyFault) and result.retryable)
    return generation.changed(
        images=images,
        copy_attempts=attempts,
        faults=faults,
        fault=fault,
        claim=None,
        last_action=now,
        due=retry_at,
    )


def copied(generation: Generation, results: Sequence[CopyResult], now: datetime) -> Generation:
    """Every image has its result. One stored image makes a success; none makes a failure."""
    return _with_images(generation, [_final(result) for result in results], now)


def copy_abandoned(generation: Generation, images: int, now: datetime) -> Generation:
    """No copy came to an end. Keep the images that an earlier copy stored."""
    message = f"The images could not be copied: {generation.copy_attempts} tries did not come to an end."
    error = GenerationError(code="copyFailed", message=message)
    known = generation.images or (None,) * images
    return _with_images(generation, [image or FailedImage(error=error) for image in known], now)


def is_hopeless(generation: Generation, now: datetime) -> bool:
    """Whether the copy began so often without an end that the copy itself may crash the worker."""
    tries = generation.copy_attempts
    return tries >= 2 * COPY_TRIES or (tries >= COPY_TRIES and now >= generation.deadline)


def model_removed(generation: Generation, now: datetime) -> Generation:
    message = (
        f"The settings of the app no longer name the model '{generation.request.model}', and it was not put back "
        "before the deadline (timeoutSeconds). Start a new generation with another model."
    )
    return failed(generation, GenerationError(code="modelRemoved", message=message), now)


def outcome_unknown(generation: Generation, now: datetime, *, cause: str) -> Generation:
    """Fail: the images of a lost call may exist, and the call is not repeated.

    Parameters
    ----------
    cause
        Why not, in words that follow "The app did not call again".
    """
    lost = generation.lost_calls
    calls = "The response of the call was lost" if lost == 1 else f"The responses of {lost} calls were lost"
    it = "it" if lost == 1 else "each of them"
    message = (
        f"{calls}, and the image service may have billed {it}. The app did not call again {cause}. "
        "Start a new generation to get the images."
    )
    inner = {"message": generation.fault} if generation.fault else None
    error = GenerationError(code="outcomeUnknown", message=message, innererror=inner)
    return ended(generation, Status.FAILED, error, now)


def is_given_up(generation: Generation, now: datetime) -> bool:
    """Whether an operation that cannot be polled ends now, after one more failed poll."""
    return now >= generation.deadline and generation.faults + 1 >= LATE_POLLS


def past_deadline(generation: Generation, now: datetime) -> Generation:
    seconds = round((generation.deadline - generation.created).total_seconds())
    message = f"The generation was not finished within {seconds} seconds (timeoutSeconds)."
    if generation.submitted is None and not generation.fault:
        message += " No call had begun: the quota of the model was used up, or no worker was free."
    if generation.fault:
        message += f" The last problem: {generation.fault.removesuffix('.')}."
    return failed(generation, GenerationError(code="deadlineExceeded", message=message), now)


def api_changed(generation: Generation, now: datetime) -> Generation:
    message = (
        f"The settings of the model '{generation.request.model}' changed to an API that cannot poll this operation, "
        "and were not changed back before the deadline (timeoutSeconds). Start a new generation."
    )
    return failed(generation, GenerationError(code="modelChanged", message=message), now)


def failed(generation: Generation, error: GenerationError, now: datetime) -> Generation:
    """No more images will come. Images that are stored make a partial success."""
    if not any(isinstance(image, StoredImage) for image in generation.images):
        return ended(generation, Status.FAILED, error, now)
    return _with_images(generation, [image or FailedImage(error=error) for image in generation.images], now)


def ended(generation: Generation, status: Status, error: GenerationError | None, now: datetime) -> Generation:
    return generation.changed(status=status, error=error, claim=None, last_action=now, due=now)


def _retry_later(
    generation: Generation, fault: str, retry_after: float | None, now: datetime, jitter: float
) -> Generation:
    faults = generation.faults + 1
    due = now + backoff.fault_wait(retry_after, faults, jitter=jitter)
    if now < generation.deadline:
        due = min(due, generation.deadline)
    return generation.changed(faults=faults, fault=fault, calling=False, claim=None, queued=False, due=due)


def _with_images(generation: Generation, images: Sequence[StoredImage | FailedImage], now: datetime) -> Generation:
    generation = generation.changed(images=tuple(images), calling=False)
    if any(isinstance(image, StoredImage) for image in images):
        return ended(generation, Status.SUCCEEDED, None, now)
    reasons = [image.error for image in images if isinstance(image, FailedImage)]
    # A refusal tells the caller what to change, so it comes before a fault of the copy.
    error = next((reason for reason in reasons if reason.is_refusal), reasons[0])
    return ended(generation, Status.FAILED, error, now)


def _final(result: CopyResult) -> StoredImage | FailedImage:
    return FailedImage(error=result.error) if isinstance(result, CopyFault) else result
