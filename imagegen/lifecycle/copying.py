"""Copies of images into storage, from an operation or from the response of a call."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.events import log_unusable_image
from imagegen.generation import FailedImage, GenerationError, Versioned
from imagegen.lifecycle import changes
from imagegen.lifecycle.changes import CopyFault, CopyResult
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.transitions import Copied
from imagegen.upstream.protocol import Answered, ImageRefused, ImageSource, Produced

_TAKE_WAITS: Final = (2.0, 5.0, 10.0)
"""Seconds between the tries to store an image of a response."""

_TAKE_BUDGET: Final = timedelta(minutes=12)
"""No image of a response is tried again after this time: host.json's functionTimeout is 30 minutes in all."""

_VANISHED: Final = ImageRefused(
    GenerationError(code="noImage", message="The image service no longer lists an image that it listed before.")
)


def copy_produced(ports: Ports, claimed: Versioned, produced: Produced) -> Copied:
    """Try each image that is not stored yet once. A later poll gives fresh URLs for the rest."""
    generation = claimed.generation
    known = generation.images or (None,) * len(produced.images)
    sources = produced.images
    results = tuple(
        image or _copy_once(ports, sources[index] if index < len(sources) else _VANISHED, generation.id, index)
        for index, image in enumerate(known)
    )
    return Copied(results, produced.expires)


def take_answered(ports: Ports, claimed: Versioned, answered: Answered) -> tuple[Versioned, Copied]:
    """Store the images of a response, one after the other. Return the record with the claim's latest ETag.

    The response comes only once, so a fault is retried here, within the claim.
    """
    results: list[CopyResult] = []
    stop_retrying = ports.clock() + _TAKE_BUDGET
    for index, source in enumerate(answered.images):
        claimed, result = _take(ports, claimed, source, index, stop_retrying)
        results.append(result)
    return claimed, Copied(tuple(results), usage=answered.usage)


def _take(
    ports: Ports, claimed: Versioned, source: ImageSource, index: int, stop_retrying: datetime
) -> tuple[Versioned, CopyResult]:
    for wait in _TAKE_WAITS:
        claimed = _extend_expiring_claim(ports, claimed)
        if ports.clock() >= stop_retrying:
            break
        try:
            result = _copy_once(ports, source, claimed.generation.id, index)
        except StorageUnavailableError:
            pass
        else:
            if not (isinstance(result, CopyFault) and result.retryable):
                return claimed, result
        ports.sleep(wait)
    claimed = _extend_expiring_claim(ports, claimed)
    return claimed, _copy_once(ports, source, claimed.generation.id, index)


def _extend_expiring_claim(ports: Ports, claimed: Versioned) -> Versioned:
    """Extend an expiring claim: a takeover would repeat a billed call."""
    now = ports.clock()
    if claimed.generation.due - now >= changes.LONGEST_TAKE:
        return claimed
    extended = changes.claim_extended(claimed.generation, now)
    return Versioned(extended, ports.records.save(extended, claimed.etag))


def _copy_once(ports: Ports, source: ImageSource, generation_id: str, index: int) -> CopyResult:
    if isinstance(source, ImageRefused):
        return FailedImage(error=source.error)
    try:
        return ports.images.copy(source, generation_id, index)
    except ImageUnusableError as error:
        log_unusable_image(generation_id, index, error)
        return CopyFault(GenerationError(code=error.code, message=error.message), retryable=error.again)
