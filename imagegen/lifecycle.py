"""The verbs: start and advance. They ask ``moves`` what to do, do it, and write down what came of it.

Every write is conditional on the record that was read. Who loses that race walks away: the winner's move counts, and
the next tick goes on from there.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from imagegen import moves
from imagegen.errors import ConflictError, ImageUnusableError, StorageUnavailableError
from imagegen.events import log_event
from imagegen.generation import (
    FailedImage,
    Generation,
    GenerationError,
    GenerationRequest,
    Status,
    StoredImage,
    Versioned,
)
from imagegen.upstream import Accepted, Ended, ImageRefused, ImageSource, Produced, Unavailable, Upstream, Working

type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""

SUBMIT_CLAIM = timedelta(seconds=45)
"""How long a start may take to submit before the timer does it instead."""

_WORTH_WRITING = timedelta(seconds=5)
"""A ``due`` that is nearer than this is kept in mind by the worker that polls, not written."""


class Store(Protocol):
    """Where records live."""

    def create(self, generation: Generation) -> str:
        """Write a new record under ``active/``; returns its ETag."""
        ...

    def save(self, generation: Generation, etag: str) -> str:
        """Replace the record that has this ETag; returns the new one. Raises ConflictError."""
        ...

    def finish(self, generation: Generation) -> Generation:
        """Move the record to ``done/``, unless another outcome is there; returns the one that is true."""
        ...


class Images(Protocol):
    """Where images go."""

    def copy(self, source: ImageSource, generation_id: str, index: int) -> StoredImage:
        """Fetch, check and write one image. Raises ImageUnusableError."""
        ...

    def delete_all(self, generation_id: str) -> None:
        """Remove whatever images of this generation there are."""
        ...


class Lifecycle:
    """The state machine.

    Parameters
    ----------
    new_id
        Makes a UUIDv7 for a moment.
    jitter
        A random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        store: Store,
        images: Images,
        upstream: Upstream,
        clock: Clock,
        new_id: Callable[[datetime], str],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._images = images
        self._upstream = upstream
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter

    def start(self, request: GenerationRequest, *, metadata: dict[str, str], timeout: timedelta) -> Generation:
        """Write the record, then submit. Returns the generation as it stands after that.

        The record is written first, with its id as the upstream's ``Operation-Id``: whatever dies after that line,
        the timer submits the same operation again and nothing is lost or billed twice.

        Raises
        ------
        RequestError
            When the model cannot do what is asked. Nothing was written or billed.
        StorageUnavailableError
            When there is no record. Nothing was billed.
        """
        request = self._upstream.complete(request)
        now = self._clock()
        generation = Generation(
            id=self._new_id(now),
            token=secrets.token_urlsafe(16),
            created=now,
            last_action=now,
            deadline=now + timeout,
            due=now + SUBMIT_CLAIM,
            request=request,
            metadata=metadata,
        )
        etag = self._store.create(generation)
        log_event("generation.started", id=generation.id, model=request.model, n=request.n, size=request.size)
        try:
            return self._advance(Versioned(generation, etag)).generation
        except StorageUnavailableError:
            # The record is there, so the answer is that it was started: the timer goes on with it.
            return generation

    def advance(self, current: Versioned) -> Versioned | None:
        """Make the next move of this generation. Returns it as it stands then, or None when it needs no more work.

        Raises
        ------
        StorageUnavailableError
            When a write failed. The generation is as it was, or one step further; the next tick finds out.
        """
        after = self._advance(current)
        return None if after.generation.status.is_terminal else after

    def _advance(self, current: Versioned) -> Versioned:
        try:
            match moves.next_move(current.generation, self._clock()):
                case moves.Submit():
                    return self._submit(current)
                case moves.Poll():
                    return self._poll(current)
                case moves.Finish(generation):
                    return self._finish(generation)
        except ConflictError:
            # Somebody else moved it. What they wrote is true; ours was a repetition of an idempotent call.
            log_event("generation.overtaken", id=current.generation.id)
            return current

    def _submit(self, current: Versioned) -> Versioned:
        generation = current.generation
        outcome = self._upstream.submit(generation)
        now = self._clock()
        # A crash here loses the answer: the next submit carries the same Operation-Id and gets the same operation.
        match outcome:
            case Accepted():
                return self._save(current, moves.accepted(generation, outcome, now))
            case Unavailable():
                return self._wait_for_upstream(current, outcome, now)
            case Ended(status, error):
                return self._finish(moves.ended(generation, status, error, now))

    def _poll(self, current: Versioned) -> Versioned:
        generation = current.generation
        outcome = self._upstream.poll(generation, self._clock())
        now = self._clock()
        match outcome:
            case Produced():
                return self._copy(current, outcome)
            case Ended(status, error):
                return self._finish(moves.ended(generation, status, error, now))
            case _ if now >= generation.deadline:
                return self._finish(moves.past_deadline(generation, now))
            case Working():
                return self._save(current, moves.still_working(generation, outcome, now))
            case Unavailable():
                return self._wait_for_upstream(current, outcome, now)

    def _wait_for_upstream(self, current: Versioned, outcome: Unavailable, now: datetime) -> Versioned:
        waiting = moves.unavailable(current.generation, outcome, now, jitter=self._jitter())
        log_event(
            "upstream.unavailable",
            level=logging.WARNING,
            id=waiting.id,
            reason=outcome.reason,
            faults=waiting.faults,
            seconds=round((waiting.due - now).total_seconds()),
        )
        return self._save(current, waiting)

    def _copy(self, current: Versioned, produced: Produced) -> Versioned:
        now = self._clock()
        known = current.generation.images or (None,) * len(produced.images)
        missing = sum(image is None for image in known)
        # The claim: two ticks that both saw "succeeded" do not both fetch. Who dies while copying is overtaken when
        # `due` passes, and writing the same names again is harmless.
        claimed = self._write(current, moves.copy_claimed(current.generation, missing, now))
        images = tuple(
            image or self._copy_one(claimed.generation, source, index, produced.expires)
            for index, (image, source) in enumerate(zip(known, produced.images, strict=False))
        )
        generation = claimed.generation.changed(images=images)
        now = self._clock()
        if None in images:
            return self._write(claimed, moves.copied_in_part(generation, now))
        return self._finish(moves.copied(generation, now))

    def _copy_one(
        self, generation: Generation, source: ImageSource, index: int, expires: datetime | None
    ) -> StoredImage | FailedImage | None:
        if isinstance(source, ImageRefused):
            return FailedImage(error=source.error)
        try:
            return self._images.copy(source, generation.id, index)
        except ImageUnusableError as error:
            again = error.again and moves.may_copy_again(generation, expires, self._clock())
            log_event(
                "image.unusable",
                level=logging.WARNING,
                id=generation.id,
                index=index,
                code=error.code,
                reason=error.message,
                tries=generation.copy_attempts,
                again=again,
            )
            return None if again else FailedImage(error=GenerationError(code=error.code, message=error.message))

    def _save(self, current: Versioned, generation: Generation) -> Versioned:
        """Write what others must know; a near ``due`` alone is not worth a transaction."""
        before = current.generation
        if generation.changed(due=before.due) == before and generation.due - self._clock() < _WORTH_WRITING:
            return Versioned(generation, current.etag)
        return self._write(current, generation)

    def _write(self, current: Versioned, generation: Generation) -> Versioned:
        return Versioned(generation, self._store.save(generation, current.etag))

    def _finish(self, generation: Generation) -> Versioned:
        true = self._store.finish(generation)
        if true != generation:
            # Another outcome came first. Images that we wrote for ours must not stay behind it.
            log_event("generation.overtaken", id=generation.id, status=true.status)
            if true.status is not Status.SUCCEEDED:
                self._images.delete_all(generation.id)
            return Versioned(true, "")
        seconds = (generation.last_action - generation.created).total_seconds()
        log_event(
            f"generation.{generation.status}",
            level=logging.ERROR if generation.status is Status.FAILED else logging.INFO,
            id=generation.id,
            code=generation.error.code if generation.error else None,
            images=sum(isinstance(image, StoredImage) for image in generation.images) or None,
            seconds=round(seconds, 1),
        )
        return Versioned(true, "")
