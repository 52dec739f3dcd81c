"""The verbs: start, advance, cancel, delete. They ask ``moves`` what to do, do it, and write down what came of it.

Every write is conditional on the record that was read. Who loses that race walks away: the winner's move counts, and
the next tick goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Protocol

from imagegen import moves
from imagegen.errors import ConflictError, FieldProblem, ImageUnusableError, RequestError, StorageUnavailableError
from imagegen.events import log_event
from imagegen.generation import (
    FailedImage,
    Generation,
    GenerationError,
    GenerationRequest,
    KeyClaim,
    Status,
    StoredImage,
    Versioned,
)
from imagegen.idempotency import IdempotencyKey
from imagegen.upstream import (
    Accepted,
    Direct,
    Ended,
    ImageRefused,
    ImageSource,
    Lost,
    Polled,
    Produced,
    Throttled,
    Unavailable,
    Upstream,
    Working,
)

type Clock = Callable[[], datetime]
"""The time now, aware, UTC."""

SUBMIT_CLAIM = timedelta(seconds=45)
"""How long a start may take to submit before the timer does it instead."""

_VANISHED = ImageRefused(
    GenerationError(code="noImage", message="The image service no longer lists an image that it listed before.")
)

_TAKE_WAITS = (2.0, 5.0, 10.0)
"""Seconds between the tries to write an image that cannot be asked for again."""

_WATCH_SECONDS = 1.0
"""How often a caller who waits looks whether somebody else finished it."""

_WORTH_WRITING = timedelta(seconds=5)
"""A ``due`` that is nearer than this is kept in mind by the worker that polls, not written."""


class Store(Protocol):
    """Where records live."""

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new record under ``active/``; None when another one has this id."""
        ...

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done."""
        ...

    def read_active(self, generation_id: str) -> Versioned | None:
        """The record and its ETag while it needs work, else None."""
        ...

    def save(self, generation: Generation, etag: str) -> str:
        """Replace the record that has this ETag; returns the new one. Raises ConflictError."""
        ...

    def decide(self, generation: Generation) -> Generation | None:
        """Write this outcome, unless there is one; returns the one that is true, None when it was deleted."""
        ...

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Remove the record from the active ones if nobody wrote it since."""
        ...

    def bury(self, generation_id: str) -> None:
        """Replace the outcome with a tombstone."""
        ...

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """What this idempotency key stands for: the claim that came first."""
        ...

    def drop_key(self, key: str) -> None:
        """Forget an idempotency key."""
        ...

    def count_active(self) -> int:
        """How many records need work, more or less."""
        ...


class Images(Protocol):
    """Where images go."""

    def copy(self, source: ImageSource, generation_id: str, index: int) -> StoredImage:
        """Fetch, check and write one image. Raises ImageUnusableError."""
        ...

    def delete_all(self, generation_id: str) -> None:
        """Remove whatever images of this generation there are."""
        ...


class Brakes(Protocol):
    """What everybody was told about quotas."""

    def until(self, model: str) -> datetime | None:
        """When this deployment may be called again."""
        ...

    def pull(self, model: str, until: datetime) -> None:
        """Nobody calls before this time."""
        ...


class Queue(Protocol):
    """Who does the work that takes long."""

    def send(self, ids: Sequence[str]) -> None:
        """Ask a worker to take these. Raises StorageUnavailableError."""
        ...


class Lifecycle:
    """The state machine.

    Parameters
    ----------
    upstreams
        By the name of the deployment, the default first.
    repeat_lost_calls
        Whether a call that may have been billed is made again when its answer was lost.
    new_id
        Makes a UUIDv7 for a moment.
    most_active
        How many generations may be unfinished at once.
    jitter
        A random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        store: Store,
        images: Images,
        upstreams: Mapping[str, Upstream],
        brakes: Brakes,
        queue: Queue,
        repeat_lost_calls: bool,
        clock: Clock,
        new_id: Callable[[datetime], str],
        most_active: int,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._images = images
        self._upstreams = upstreams
        self._brakes = brakes
        self._queue = queue
        self._repeat_lost_calls = repeat_lost_calls
        self._clock = clock
        self._new_id = new_id
        self._most_active = most_active
        self._jitter = jitter
        self._sleep = sleep

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        key: IdempotencyKey | None = None,
    ) -> Generation:
        """Write the record, then submit. Returns the generation as it stands after that.

        The record is written first, with its id as the upstream's ``Operation-Id``: whatever dies after that line,
        the timer submits the same operation again and nothing is lost or billed twice.

        Raises
        ------
        RequestError
            When the model cannot do what is asked, the key stands for another request, or there is too much to do.
            Nothing was written or billed.
        StorageUnavailableError
            When there is no record. Nothing was billed.
        """
        upstream = self._choose(request.model)
        request = upstream.complete(request)
        direct = isinstance(upstream, Direct)
        now = self._clock()
        own_id = self._new_id(now)
        generation = Generation(
            id=own_id,
            token=secrets.token_urlsafe(16),
            created=now,
            last_action=now,
            deadline=now + timeout,
            due=now + SUBMIT_CLAIM,
            queued=direct,
            request=request,
            metadata=metadata,
            key=key.name if key else None,
        )
        if key:
            # The key is claimed before the record is written. A crash between the two leaves a key that names no
            # record: the next request with it makes the record, under the same id.
            claim = self._store.claim_key(key.name, KeyClaim(id=generation.id, digest=_digest(generation)))
            if claim.digest != _digest(generation):
                raise key.reused()
            if claim.id != own_id and (existing := self._store.read(claim.id)):
                return existing
            generation = generation.changed(id=claim.id)
        self._admit()
        created = self._store.create(generation)
        if created is None or generation.id != own_id:
            # Another request with this key may have been faster; then it submits, we do not.
            there = self._store.read(generation.id) or generation
            if created is None or there.token != generation.token:
                return there
        log_event("generation.started", id=generation.id, model=request.model, n=request.n, size=request.size)
        # The record is there, so the answer is that it was started, whatever goes wrong from here: the timer goes on
        # with it, and a caller who was told otherwise would start, and pay for, another one.
        try:
            if direct:
                self._queue.send([generation.id])
                return generation
            return self._advance(created).generation
        except StorageUnavailableError:
            return generation
        except Exception as error:  # noqa: BLE001 - as said
            log_event("generation.stuck", level=logging.ERROR, id=generation.id, error=type(error).__name__)
            return generation

    def _choose(self, model: str | None) -> Upstream:
        upstream = self._upstreams.get(model if model is not None else next(iter(self._upstreams)))
        if upstream is None:
            names = ", ".join(f"'{name}'" for name in self._upstreams)
            problem = FieldProblem("model", f"is not configured; leave it out or use one of {names}")
            raise RequestError.for_fields([problem])
        return upstream

    def _admit(self) -> None:
        if self._store.count_active() >= self._most_active:
            raise RequestError(
                status=429,
                code="tooManyRequests",
                message=f"{self._most_active} generations are active, the most that are taken at once "
                "(MAX_ACTIVE_GENERATIONS). Try again later.",
                retry_after=30,
            )

    def cancel(self, generation: Generation) -> Generation | None:
        """Make `canceled` the outcome, unless there is one. Returns it with its outcome; None if it was deleted."""
        if generation.status.is_terminal:
            return generation
        active = self._store.read_active(generation.id)
        outcome = moves.ended(active.generation if active else generation, Status.CANCELED, None, self._clock())
        # A record that is being copied stays active: its worker, or the timer after it, finds the outcome and removes
        # the images that it wrote. Any other record is dropped here, unless somebody writes it in this moment.
        return self._finish(outcome, active.etag if active and not active.generation.is_claimed else None)

    def delete(self, generation: Generation) -> None:
        """Cancel if need be, then remove images, key and record. After a crash anywhere in it, delete again."""
        self.cancel(generation)
        self._images.delete_all(generation.id)
        if generation.key:
            self._store.drop_key(generation.key)
        # Last, because the token goes with it: until here the caller can try again.
        self._store.bury(generation.id)
        log_event("generation.deleted", id=generation.id)

    def wait(self, generation: Generation, until: datetime) -> Generation:
        """Move it on, beside the timer, until it is finished or this time comes. Returns it as it stands then."""
        current = self._store.read_active(generation.id)
        while current and not current.generation.status.is_terminal and (now := self._clock()) < until:
            if (left := (min(current.generation.due, until) - now).total_seconds()) <= 0:
                after = self._advance(current)
                # Where ours was not the move that counted, what we hold is out of date.
                current = after if after is not current else self._store.read_active(generation.id)
                continue
            self._sleep(min(left, _WATCH_SECONDS))
            if left > _WATCH_SECONDS:
                # Somebody else may be at work on it.
                current = self._store.read_active(generation.id)
        return self._store.read(generation.id) or generation

    def advance(self, current: Versioned, *, may_call: bool = False) -> Versioned | None:
        """Make the next move of this generation. Returns it as it stands then, or None when it needs no more work.

        Parameters
        ----------
        may_call
            Whether there are minutes to make a call in; else a worker is asked to.

        Raises
        ------
        StorageUnavailableError
            When a write failed. The generation is as it was, or one step further; the next tick finds out.
        """
        after = self._advance(current, may_call=may_call)
        return None if after.generation.status.is_terminal else after

    def work(self, generation_id: str) -> None:
        """What a message asks for: the next move, if it is due or if nobody took it yet."""
        current = self._store.read_active(generation_id)
        if current and (current.generation.queued or current.generation.due <= self._clock()):
            self._advance(current, may_call=True)

    def _advance(self, current: Versioned, *, may_call: bool = False) -> Versioned:
        generation = current.generation
        upstream = self._upstreams.get(generation.request.model or "")
        now = self._clock()
        try:
            if upstream is None:
                return self._end(moves.model_removed(generation, now), current)
            direct = isinstance(upstream, Direct)
            repeat = self._repeat_lost_calls
            move = moves.next_move(generation, now, direct=direct, may_call=may_call, repeat_lost_calls=repeat)
            match move, upstream:
                case moves.Finish(finished), _:
                    return self._end(finished, current)
                case moves.Poll(), Polled():
                    return self._poll(current, upstream)
                case moves.Submit(), Polled():
                    return self._submit(current, upstream)
                case moves.Call(repeated), Direct():
                    return self._call(current, upstream, repeated=repeated)
                case _:
                    return self._enqueue(current)
        except ConflictError:
            # Somebody else moved it. What they wrote is true; ours was a repetition of an idempotent call.
            log_event("generation.overtaken", id=generation.id)
            return current

    def _enqueue(self, current: Versioned) -> Versioned:
        # Written before it is sent: a message that nobody wrote down would be sent with every tick. A crash between
        # the two is a lost message, and costs the time until `due`.
        queued = self._write(current, moves.enqueued(current.generation, self._clock()))
        self._queue.send([queued.generation.id])
        return queued

    def _is_braked(self, current: Versioned) -> Versioned | None:
        """Written down to wait, if everybody was told to."""
        now = self._clock()
        until = self._brakes.until(current.generation.request.model or "")
        if until is None or until <= now:
            return None
        return self._write(current, moves.throttled(current.generation, until, now, jitter=self._jitter()))

    def _throttled(self, current: Versioned, outcome: Throttled) -> Versioned:
        now = self._clock()
        generation = current.generation
        until = moves.brake_until(outcome, generation.faults, now)
        self._brakes.pull(generation.request.model or "", until)
        log_event(
            "upstream.unavailable",
            level=logging.WARNING,
            id=generation.id,
            reason=outcome.reason,
            seconds=round((until - now).total_seconds()),
        )
        waiting = moves.throttled(generation, until, now, jitter=self._jitter())
        return self._write(current, waiting.changed(faults=generation.faults + 1))

    def _call(self, current: Versioned, upstream: Direct, *, repeated: bool) -> Versioned:
        if repeated and (ended := self._ended_meanwhile(current)):
            return ended
        if waiting := self._is_braked(current):
            return waiting
        claimed = self._write(current, moves.call_claimed(current.generation, self._clock()))
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
        now = self._clock()
        match outcome:
            case Produced():
                return self._take(claimed, outcome)
            case Ended(status, error):
                return self._end(moves.ended(generation, status, error, now), claimed)
            case Throttled():
                return self._throttled(claimed, outcome)
            case Lost(reason):
                log_event("generation.call_lost", level=logging.WARNING, id=generation.id, reason=reason)
                return self._write(claimed, moves.call_lost(generation, now, jitter=self._jitter()))
            case Unavailable():
                return self._wait_for_upstream(claimed, outcome, now)

    def _ended_meanwhile(self, current: Versioned) -> Versioned | None:
        """Canceled or deleted while somebody called, who then died: what is left to do must not be another call."""
        there = self._store.read(current.generation.id)
        if there and not there.status.is_terminal:
            return None
        if there is None or there.status is not Status.SUCCEEDED:
            self._images.delete_all(current.generation.id)
        self._store.drop_active(current.generation.id, current.etag)
        return Versioned(there or moves.ended(current.generation, Status.CANCELED, None, self._clock()), current.etag)

    def _take(self, claimed: Versioned, produced: Produced) -> Versioned:
        """Write the images of an answer, one after the other: it is the only chance to."""
        images: list[StoredImage | FailedImage] = []
        for index, source in enumerate(produced.images):
            now = self._clock()
            if claimed.generation.due - now < moves.LONGEST_TAKE:
                # Who overtakes us now would call again, and be billed again.
                claimed = self._write(claimed, moves.claim_extended(claimed.generation, now))
            images.append(self._take_one(claimed.generation, source, index))
        generation = claimed.generation.changed(images=tuple(images), usage=produced.usage, calling=False)
        return self._end(moves.copied(generation, self._clock()), claimed)

    def _take_one(self, generation: Generation, source: ImageSource, index: int) -> StoredImage | FailedImage:
        if isinstance(source, ImageRefused):
            return FailedImage(error=source.error)
        for wait in (*_TAKE_WAITS, None):
            try:
                return self._images.copy(source, generation.id, index)
            except StorageUnavailableError:
                if wait is None:
                    raise
            except ImageUnusableError as error:
                if wait is None or not error.again:
                    _log_unusable(generation, index, error, again=False)
                    return FailedImage(error=GenerationError(code=error.code, message=error.message))
            # Neither can the answer be asked for again, nor its URLs: so we wait for them, within our claim.
            self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _submit(self, current: Versioned, upstream: Polled) -> Versioned:
        if waiting := self._is_braked(current):
            return waiting
        generation = current.generation
        outcome = upstream.submit(generation)
        now = self._clock()
        # A crash here loses the answer: the next submit carries the same Operation-Id and gets the same operation.
        match outcome:
            case Accepted():
                return self._save(current, moves.accepted(generation, outcome, now))
            case Throttled():
                return self._throttled(current, outcome)
            case Unavailable():
                return self._wait_for_upstream(current, outcome, now)
            case Ended(status, error):
                return self._end(moves.ended(generation, status, error, now), current)

    def _poll(self, current: Versioned, upstream: Polled) -> Versioned:
        generation = current.generation
        outcome = upstream.poll(generation, self._clock())
        now = self._clock()
        match outcome:
            case Produced():
                return self._copy(current, outcome)
            case Ended(_, GenerationError() as error):
                return self._end(moves.failed(generation, error, now), current)
            case Ended(status, _):
                return self._end(moves.ended(generation, status, None, now), current)
            case _ if now >= generation.deadline:
                return self._end(moves.past_deadline(generation, now), current)
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
        sources = tuple(produced.images)
        if moves.is_hopeless(current.generation, now):
            return self._end(moves.copy_given_up(current.generation, len(sources), now), current)
        known = current.generation.images or (None,) * len(sources)
        missing = sum(image is None for image in known)
        # The claim: two ticks that both saw "succeeded" do not both fetch. Who dies while copying is overtaken when
        # `due` passes, and writing the same names again is harmless.
        claimed = self._write(current, moves.copy_claimed(current.generation, missing, now))
        images = tuple(
            image or self._copy_one(claimed.generation, source, index, produced.expires)
            for index, (image, source) in enumerate(zip_longest(known, sources[: len(known)], fillvalue=_VANISHED))
        )
        generation = claimed.generation.changed(images=images)
        now = self._clock()
        if None in images:
            return self._write(claimed, moves.copied_in_part(generation, now))
        return self._end(moves.copied(generation, now), claimed)

    def _copy_one(
        self, generation: Generation, source: ImageSource, index: int, expires: datetime | None
    ) -> StoredImage | FailedImage | None:
        if isinstance(source, ImageRefused):
            return FailedImage(error=source.error)
        try:
            return self._images.copy(source, generation.id, index)
        except ImageUnusableError as error:
            again = error.again and moves.may_copy_again(generation, expires, self._clock())
            _log_unusable(generation, index, error, again=again)
            return None if again else FailedImage(error=GenerationError(code=error.code, message=error.message))

    def _save(self, current: Versioned, generation: Generation) -> Versioned:
        """Write what others must know; a near ``due`` alone is not worth a transaction."""
        before = current.generation
        if generation.changed(due=before.due) == before and generation.due - self._clock() < _WORTH_WRITING:
            return Versioned(generation, current.etag)
        return self._write(current, generation)

    def _write(self, current: Versioned, generation: Generation) -> Versioned:
        return Versioned(generation, self._store.save(generation, current.etag))

    def _end(self, generation: Generation, current: Versioned) -> Versioned:
        return Versioned(self._finish(generation, current.etag) or generation, current.etag)

    def _finish(self, generation: Generation, etag: str | None) -> Generation | None:
        """Write the outcome; returns the one that is true, None when the generation was deleted.

        Parameters
        ----------
        etag
            Of the active record, which is dropped; None leaves it for somebody else.
        """
        true = self._store.decide(generation)
        if true != generation:
            # Another outcome came first. Images that we wrote for ours must not stay behind it.
            log_event("generation.overtaken", id=generation.id, status=true.status if true else "deleted")
            if true is None or true.status is not Status.SUCCEEDED:
                self._images.delete_all(generation.id)
        else:
            _log_outcome(generation)
            if generation.status is not Status.SUCCEEDED and any(generation.images):
                self._images.delete_all(generation.id)
        # A crash before this line leaves both records: readers take the outcome, the next tick comes here again.
        if etag is not None:
            self._store.drop_active(generation.id, etag)
        return true


def _log_unusable(generation: Generation, index: int, error: ImageUnusableError, *, again: bool) -> None:
    log_event(
        "image.unusable",
        level=logging.WARNING,
        id=generation.id,
        index=index,
        code=error.code,
        reason=error.message,
        again=again,
    )


def _log_outcome(generation: Generation) -> None:
    log_event(
        f"generation.{generation.status}",
        level=logging.ERROR if generation.status is Status.FAILED else logging.INFO,
        id=generation.id,
        code=generation.error.code if generation.error else None,
        images=sum(isinstance(image, StoredImage) for image in generation.images) or None,
        seconds=round((generation.last_action - generation.created).total_seconds(), 1),
    )


def _digest(generation: Generation) -> str:
    """Of all that the caller said: two requests with one key must be the same request."""
    seconds = (generation.deadline - generation.created).total_seconds()
    said = [generation.request.to_json(), generation.metadata, seconds]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
