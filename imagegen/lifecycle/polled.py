"""The moves of a model that answers 202 and is polled: submit, poll, copy. Each call of it is idempotent."""

from __future__ import annotations

from datetime import datetime
from itertools import zip_longest
from typing import Final

from imagegen.errors import ImageUnusableError
from imagegen.events import log_unusable_image
from imagegen.generation import FailedImage, Generation, GenerationError, StoredImage, Versioned
from imagegen.lifecycle import transitions as moves
from imagegen.lifecycle.backoff import Waiting
from imagegen.lifecycle.finishing import Records
from imagegen.lifecycle.ports import Ports
from imagegen.upstream.protocol import (
    Accepted,
    Ended,
    ImageRefused,
    ImageSource,
    Polled,
    Produced,
    Throttled,
    Unavailable,
    Working,
)

_VANISHED: Final = ImageRefused(
    GenerationError(code="noImage", message="The image service no longer lists an image that it listed before.")
)


class PolledMoves:
    """Makes them."""

    def __init__(self, ports: Ports, records: Records, waiting: Waiting) -> None:
        self._ports = ports
        self._records = records
        self._waiting = waiting

    def submit(self, current: Versioned, upstream: Polled) -> Versioned:
        if waiting := self._waiting.while_paused(current):
            return waiting
        generation = current.generation
        outcome = upstream.submit(generation)
        now = self._ports.clock()
        # A crash here loses the answer: the next submit carries the same Operation-Id and gets the same operation.
        match outcome:
            case Accepted():
                return self._records.save(current, moves.accepted(generation, outcome, now))
            case Throttled():
                return self._waiting.throttled(current, outcome)
            case Unavailable():
                return self._waiting.for_upstream(current, outcome, now)
            case Ended(status, error):
                return self._records.end(moves.ended(generation, status, error, now), current)

    def poll(self, current: Versioned, upstream: Polled) -> Versioned:
        generation = current.generation
        outcome = upstream.poll(generation, self._ports.clock())
        now = self._ports.clock()
        match outcome:
            case Produced():
                return self._copy(current, outcome)
            case Ended(_, GenerationError() as error):
                return self._records.end(moves.failed(generation, error, now), current)
            case Ended(status, _):
                return self._records.end(moves.ended(generation, status, None, now), current)
            case _ if now >= generation.deadline:
                return self._records.end(moves.past_deadline(generation, now), current)
            case Working():
                return self._records.save(current, moves.still_working(generation, outcome, now))
            case Unavailable():
                return self._waiting.for_upstream(current, outcome, now)

    def _copy(self, current: Versioned, produced: Produced) -> Versioned:
        now = self._ports.clock()
        sources = tuple(produced.images)
        if moves.is_hopeless(current.generation, now):
            return self._records.end(moves.copy_given_up(current.generation, len(sources), now), current)
        known = current.generation.images or (None,) * len(sources)
        missing = sum(image is None for image in known)
        # The claim: two ticks that both saw "succeeded" do not both fetch. Who dies while copying is overtaken when
        # `due` passes, and writing the same names again is harmless.
        claimed = self._records.write(current, moves.copy_claimed(current.generation, missing, now))
        images = tuple(
            image or self._copy_one(claimed.generation, source, index, produced.expires)
            for index, (image, source) in enumerate(zip_longest(known, sources[: len(known)], fillvalue=_VANISHED))
        )
        generation = claimed.generation.changed(images=images)
        now = self._ports.clock()
        if None in images:
            return self._records.write(claimed, moves.copied_in_part(generation, now))
        return self._records.end(moves.copied(generation, now), claimed)

    def _copy_one(
        self, generation: Generation, source: ImageSource, index: int, expires: datetime | None
    ) -> StoredImage | FailedImage | None:
        if isinstance(source, ImageRefused):
            return FailedImage(error=source.error)
        try:
            return self._ports.images.copy(source, generation.id, index)
        except ImageUnusableError as error:
            again = error.again and moves.may_copy_again(generation, expires, self._ports.clock())
            log_unusable_image(generation.id, index, error, again=again)
            return None if again else FailedImage(error=GenerationError(code=error.code, message=error.message))
