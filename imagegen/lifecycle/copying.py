"""Copies of images into storage, from an operation or from the response of a call."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Final

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.events import log_event, log_unusable_image, place_of
from imagegen.generation import FailedImage, Generation, GenerationError
from imagegen.lifecycle.changes import CopyFault, CopyResult
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.transitions import Copied
from imagegen.upstream.protocol import Answered, ImageRefused, ImageSource, Produced

_TAKE_WAITS: Final = (2.0, 5.0, 10.0)
"""Seconds between the tries to store an image of a response."""

_TAKE_BUDGET: Final = timedelta(minutes=12)
_TAKE_END: Final = timedelta(minutes=15)
"""After these times, no image of a response is tried again, and none for the first time: the functionTimeout of
host.json is 30 minutes for the call, its images and the outcome."""

_VANISHED: Final = ImageRefused(
    GenerationError(code="noImage", message="The image service no longer lists an image that it listed before.")
)


def copy_produced(ports: Ports, generation: Generation, produced: Produced) -> Copied:
    """Try each image that is not stored yet once. A later poll gives fresh URLs for the rest."""
    known = generation.images or (None,) * len(produced.images)
    sources = (*produced.images, *repeat(_VANISHED, len(known)))
    results = tuple(
        image or _copy_or_wait(ports, sources[index], generation.id, index) for index, image in enumerate(known)
    )
    return Copied(results, produced.expires)


def _copy_or_wait(ports: Ports, source: ImageSource, generation_id: str, index: int) -> CopyResult:
    try:
        return _copy_once(ports, source, generation_id, index)
    except StorageUnavailableError:
        error = GenerationError(code="internalError", message="Storage did not take this image.")
        return CopyFault(error, retryable=True, by_storage=True)


def take_answered(ports: Ports, generation: Generation, answered: Answered) -> Copied:
    """Store the images of a response, one after the other.

    The response comes only once and is paid for. So a fault is retried here, while the claim is kept; and an error
    of one image, expected or not, is an error of that image.
    """
    results: list[CopyResult] = []
    began = ports.clock()
    sources = iter(answered.images)
    while True:
        try:
            source = next(sources)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - the rest of the response cannot be read: what is stored counts
            results.append(_unexpected(generation.id, len(results), error))
            break
        results.append(_take(ports, source, generation, len(results), began))
    return Copied(tuple(results), usage=answered.usage)


def _take(ports: Ports, source: ImageSource, generation: Generation, index: int, began: datetime) -> CopyResult:
    if ports.clock() >= began + _TAKE_END:
        return _unexpected(generation.id, index, TimeoutError())
    for tries, wait in enumerate(chain(_TAKE_WAITS, repeat(_TAKE_WAITS[-1]))):
        last = ports.clock() >= began + _TAKE_BUDGET
        try:
            result = _copy_once(ports, source, generation.id, index, call=generation.lost_calls)
        except StorageUnavailableError as error:
            if last:
                # Another call would be billed, and would probably fail to store its images too.
                return _unexpected(generation.id, index, error)
        except Exception as error:  # noqa: BLE001 - a second call would cost more than one image
            return _unexpected(generation.id, index, error)
        else:
            # Minutes of waiting help storage, not the URL of an image.
            if last or tries == len(_TAKE_WAITS) or not (isinstance(result, CopyFault) and result.retryable):
                return result
        ports.sleep(wait)
    raise AssertionError("the waits are endless")


def _unexpected(generation_id: str, index: int, error: Exception) -> CopyFault:
    name, place = type(error).__name__, place_of(error)
    log_event("image.failed", level=logging.ERROR, id=generation_id, index=index, error=name, at=place)
    message = "The app failed to store this image. Its log has the reason under the id of the generation."
    return CopyFault(GenerationError(code="internalError", message=message), retryable=False)


def _copy_once(ports: Ports, source: ImageSource, generation_id: str, index: int, *, call: int = 0) -> CopyResult:
    if isinstance(source, ImageRefused):
        return FailedImage(error=source.error)
    try:
        stored = ports.images.copy(source, generation_id, index, call)
    except ImageUnusableError as error:
        log_unusable_image(generation_id, index, error)
        return CopyFault(GenerationError(code=error.code, message=error.message), retryable=error.again)
    crash_point(CrashPoint.IMAGE_STORED)
    return stored
