"""The moves of a model that answers with the images: ask a worker, call, take what came.

Its calls are not idempotent, so a claim is written before each: whoever finds one that ran out knows that the answer is
lost.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.events import log_event, log_unusable_image
from imagegen.generation import FailedImage, GenerationError, Status, StoredImage, Versioned
from imagegen.lifecycle import transitions as moves
from imagegen.lifecycle.backoff import Waiting
from imagegen.lifecycle.finishing import Records
from imagegen.lifecycle.ports import Ports
from imagegen.upstream.protocol import (
    Direct,
    Ended,
    ImageRefused,
    ImageSource,
    Lost,
    Produced,
    Throttled,
    Unavailable,
)

_TAKE_WAITS: Final = (2.0, 5.0, 10.0)
"""Seconds between the tries to write an image that cannot be asked for again."""


class DirectMoves:
    """Makes them."""

    def __init__(self, ports: Ports, records: Records, waiting: Waiting) -> None:
        self._ports = ports
        self._records = records
        self._waiting = waiting

    def enqueue(self, current: Versioned) -> Versioned:
        """Ask a worker."""
        # Written before it is sent: a message that nobody wrote down would be sent with every tick. A crash between
        # the two is a lost message, and costs the time until `due`.
        queued = self._records.write(current, moves.enqueued(current.generation, self._ports.clock()))
        self._ports.queue.send([queued.generation.id])
        return queued

    def call(self, current: Versioned, upstream: Direct, *, repeated: bool) -> Versioned:
        """Claim, call, and write down what came. Takes minutes."""
        if ended := self._ended_meanwhile(current):
            return ended
        if waiting := self._waiting.while_paused(current):
            return waiting
        claimed = self._records.write(current, moves.call_claimed(current.generation, self._ports.clock()))
        generation = claimed.generation
        if repeated:
            log_event(
                "generation.call_repeated",
                level=logging.WARNING,
                id=generation.id,
                lost_calls=generation.lost_calls,
                note="an earlier call may have been billed: this one may be billed twice",
            )
        # A crash from here on loses an answer that is paid for. The claim says so to whoever comes after it.
        outcome = upstream.generate(generation)
        now = self._ports.clock()
        match outcome:
            case Produced():
                return self._take(claimed, outcome)
            case Ended(status, error):
                return self._records.end(moves.ended(generation, status, error, now), claimed)
            case Throttled():
                return self._waiting.throttled(claimed, outcome)
            case Lost(reason):
                log_event("generation.call_lost", level=logging.WARNING, id=generation.id, reason=reason)
                return self._records.write(claimed, moves.call_lost(generation, now, jitter=self._ports.jitter()))
            case Unavailable():
                return self._waiting.for_upstream(claimed, outcome, now)

    def _ended_meanwhile(self, current: Versioned) -> Versioned | None:
        """Canceled or deleted, with the record left for whoever was at work on it: nobody must pay for it now."""
        there = self._ports.records.read(current.generation.id)
        if there and not there.status.is_terminal:
            return None
        if there is None or there.status is not Status.SUCCEEDED:
            self._ports.images.delete_all(current.generation.id)
        self._ports.records.drop_active(current.generation.id, current.etag)
        ended = there or moves.ended(current.generation, Status.CANCELED, None, self._ports.clock())
        return Versioned(ended, current.etag)

    def _take(self, claimed: Versioned, produced: Produced) -> Versioned:
        """Write the images of an answer, one after the other: it is the only chance to."""
        images: list[StoredImage | FailedImage] = []
        give_up = self._ports.clock() + moves.TAKE_BUDGET
        for index, source in enumerate(produced.images):
            claimed, image = self._take_one(claimed, source, index, give_up)
            images.append(image)
        generation = claimed.generation.changed(images=tuple(images), usage=produced.usage, calling=False)
        return self._records.end(moves.copied(generation, self._ports.clock()), claimed)

    def _take_one(
        self, claimed: Versioned, source: ImageSource, index: int, give_up: datetime
    ) -> tuple[Versioned, StoredImage | FailedImage]:
        if isinstance(source, ImageRefused):
            return claimed, FailedImage(error=source.error)
        # Neither can the answer be asked for again, nor its URLs: so we wait for them, within our claim.
        for wait in (*_TAKE_WAITS, None):
            claimed = self._still_ours(claimed)
            last = wait is None or self._ports.clock() >= give_up
            try:
                return claimed, self._ports.images.copy(source, claimed.generation.id, index)
            except StorageUnavailableError:
                if last:
                    raise
            except ImageUnusableError as error:
                if last or not error.again:
                    log_unusable_image(claimed.generation.id, index, error, again=False)
                    return claimed, FailedImage(error=GenerationError(code=error.code, message=error.message))
            self._ports.sleep(wait or 0)
        raise AssertionError("the last try returns or raises")

    def _still_ours(self, claimed: Versioned) -> Versioned:
        """Renew a claim that would run out during the next try: who overtakes us would call, and pay, again."""
        now = self._ports.clock()
        if claimed.generation.due - now >= moves.LONGEST_TAKE:
            return claimed
        return self._records.write(claimed, moves.claim_extended(claimed.generation, now))
