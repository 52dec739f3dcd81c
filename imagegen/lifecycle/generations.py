"""The verbs: start, advance, cancel, delete, wait. They ask ``moves`` what to do, and have it done."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from imagegen.errors import (
    ConflictError,
    FieldProblem,
    KeyReusedError,
    RequestError,
    StorageUnavailableError,
    TooManyActiveError,
)
from imagegen.events import log_event
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle import transitions as moves
from imagegen.lifecycle.backoff import Waiting
from imagegen.lifecycle.direct import DirectMoves
from imagegen.lifecycle.finishing import Records
from imagegen.lifecycle.polled import PolledMoves
from imagegen.lifecycle.ports import Ports
from imagegen.upstream.protocol import Direct, Polled, Upstream

SUBMIT_CLAIM = timedelta(seconds=45)
"""How long a start may take to submit before the timer does it instead."""

_LAST_SECONDS = timedelta(seconds=10)
"""Of a wait: no move is begun in them, because a copy may take longer than the caller will stay."""

_WATCH_SECONDS = 1.0
"""How often a caller who waits looks whether somebody else finished it."""


class Lifecycle:
    """The state machine.

    Parameters
    ----------
    new_id
        Makes a UUIDv7 for a moment.
    most_active
        How many generations may be unfinished at once.
    """

    def __init__(self, ports: Ports, *, new_id: Callable[[datetime], str], most_active: int) -> None:
        self._ports = ports
        self._new_id = new_id
        self._most_active = most_active
        self._records = Records(ports)
        waiting = Waiting(ports, self._records)
        self._polled = PolledMoves(ports, self._records, waiting)
        self._direct = DirectMoves(ports, self._records, waiting)

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        asked_seconds: int | None = None,
        key: IdempotencyKey | None = None,
    ) -> Generation:
        """Write the record, then submit. Returns the generation as it stands after that.

        The record is written first, with its id as the upstream's ``Operation-Id``: whatever dies after that line,
        the timer submits the same operation again and nothing is lost or billed twice.

        Parameters
        ----------
        asked_seconds
            The timeout that the caller asked for, if any: part of what makes two requests the same.

        Raises
        ------
        RequestError
            When the model cannot do what is asked, the key stands for another request, or there is too much to do.
            Nothing was written or billed.
        StorageUnavailableError
            When there is no record. Nothing was billed.
        """
        upstream = self._choose(request.model)
        digest = _digest(request, metadata, asked_seconds)
        request = upstream.complete(request)
        direct = isinstance(upstream, Direct)
        now = self._ports.clock()
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
            claim = self._ports.records.claim_key(key.name, KeyClaim(id=generation.id, digest=digest))
            if claim.digest != digest:
                raise KeyReusedError(key.header)
            if claim.id != own_id and (existing := self._ports.records.read(claim.id)):
                return existing
            generation = generation.changed(id=claim.id)
        self._admit(generation, is_ours=generation.id == own_id)
        created = self._ports.records.create(generation)
        if created is None or generation.id != own_id:
            # Another request with this key may have been faster; then it submits, we do not.
            there = self._ports.records.read(generation.id) or generation
            if created is None or there.token != generation.token:
                return there
        log_event("generation.started", id=generation.id, model=request.model, n=request.n, size=request.size)
        # The record is there, so the answer is that it was started, whatever goes wrong from here: the timer goes on
        # with it, and a caller who was told otherwise would start, and pay for, another one.
        try:
            if direct:
                self._ports.queue.send([generation.id])
                return generation
            return self._advance(created).generation
        except StorageUnavailableError:
            return generation
        except Exception as error:  # noqa: BLE001 - as said
            log_event("generation.stuck", level=logging.ERROR, id=generation.id, error=type(error).__name__)
            return generation

    def _choose(self, model: str | None) -> Upstream:
        upstream = self._ports.upstreams.get(model if model is not None else next(iter(self._ports.upstreams)))
        if upstream is None:
            names = ", ".join(f"'{name}'" for name in self._ports.upstreams)
            problem = FieldProblem("model", f"is not configured; leave it out or use one of {names}")
            raise RequestError.for_fields([problem])
        return upstream

    def _admit(self, generation: Generation, *, is_ours: bool) -> None:
        if self._ports.records.count_active() >= self._most_active:
            if generation.key and is_ours:
                # Nothing was started: the key must not stand for it.
                self._ports.records.drop_key(generation.key, generation.id)
            raise TooManyActiveError(self._most_active)

    def cancel(self, generation: Generation) -> Generation | None:
        """Make `canceled` the outcome, unless there is one. Returns it with its outcome; None if it was deleted."""
        if generation.status.is_terminal:
            return generation
        active = self._ports.records.read_active(generation.id)
        outcome = moves.ended(active.generation if active else generation, Status.CANCELED, None, self._ports.clock())
        # A record that is being copied stays active: its worker, or the timer after it, finds the outcome and removes
        # the images that it wrote. Any other record is dropped here, unless somebody writes it in this moment.
        return self._records.finish(outcome, active.etag if active and not active.generation.is_claimed else None)

    def delete(self, generation: Generation) -> None:
        """Cancel if need be, then remove images, key and record. After a crash anywhere in it, delete again."""
        self.cancel(generation)
        self._ports.images.delete_all(generation.id)
        if generation.key:
            self._ports.records.drop_key(generation.key, generation.id)
        # Last, because the token goes with it: until here the caller can try again.
        self._ports.records.write_tombstone(generation.id)
        log_event("generation.deleted", id=generation.id)

    def wait(self, generation: Generation, until: datetime) -> Generation:
        """Move it on, beside the timer, until it is finished or this time comes. Returns it as it stands then."""
        current = self._ports.records.read_active(generation.id)
        while current and not current.generation.status.is_terminal and (now := self._ports.clock()) < until:
            due = current.generation.due if until - now > _LAST_SECONDS else until
            if (left := (min(due, until) - now).total_seconds()) <= 0:
                after = self._advance(current)
                # Where ours was not the move that counted, what we hold is out of date.
                current = after if after is not current else self._ports.records.read_active(generation.id)
                continue
            self._ports.sleep(min(left, _WATCH_SECONDS))
            if left > _WATCH_SECONDS:
                # Somebody else may be at work on it.
                current = self._ports.records.read_active(generation.id)
        return self._ports.records.read(generation.id) or generation

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

    def work(self, generation_id: str, *, may_call: bool = True) -> None:
        """What a message asks for: the next move, if it is due or if nobody took it yet."""
        current = self._ports.records.read_active(generation_id)
        if current and (current.generation.queued or current.generation.due <= self._ports.clock()):
            self._advance(current, may_call=may_call)

    def _advance(self, current: Versioned, *, may_call: bool = False) -> Versioned:
        generation = current.generation
        upstream = self._ports.upstreams.get(generation.request.model or "")
        now = self._ports.clock()
        try:
            if upstream is None:
                return self._records.end(moves.model_removed(generation, now), current)
            direct = isinstance(upstream, Direct)
            repeat = self._ports.repeat_lost_calls
            move = moves.next_move(generation, now, direct=direct, may_call=may_call, repeat_lost_calls=repeat)
            match move, upstream:
                case moves.Finish(finished), _:
                    return self._records.end(finished, current)
                case moves.Poll(), Polled():
                    return self._polled.poll(current, upstream)
                case moves.Submit(), Polled():
                    return self._polled.submit(current, upstream)
                case moves.Call(repeated), Direct():
                    return self._direct.call(current, upstream, repeated=repeated)
                case _:
                    return self._direct.enqueue(current)
        except ConflictError:
            # Somebody else moved it. What they wrote is true; ours was a repetition of an idempotent call.
            log_event("generation.overtaken", id=generation.id)
            return current


def _digest(request: GenerationRequest, metadata: dict[str, str], seconds: int | None) -> str:
    """Of what the caller said, before any default: two requests with one key must be the same request."""
    said = [request.to_json(), metadata, seconds]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
