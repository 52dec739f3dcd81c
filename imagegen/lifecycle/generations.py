"""The actions of a caller: start, wait, cancel, delete."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.errors import (
    ConflictError,
    FieldProblem,
    KeyReusedError,
    QuotaUsedUpError,
    RequestError,
    StorageUnavailableError,
    TooManyActiveError,
)
from imagegen.events import log_event, log_stuck
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle import changes
from imagegen.lifecycle.finishing import finish
from imagegen.lifecycle.ports import End, Ports
from imagegen.lifecycle.quotas import Quotas
from imagegen.lifecycle.worker import Worker
from imagegen.upstream.protocol import Direct, Upstream

SUBMIT_CLAIM: Final = timedelta(seconds=45)
"""Time for a start to submit, or half of a timeout that is shorter. After it the timer submits instead."""

_QUIET_END: Final = timedelta(seconds=10)
"""The end of a wait, in which no work begins: a copy may take longer than the caller stays."""

_PART_FOR_WAITING: Final = 0.9
"""Of a timeout: a start is refused when the generation would wait longer for the quota of its model."""

_WATCH_SECONDS: Final = 1.0
"""Poll interval during ``Prefer: wait``."""


class Generations:
    """Starts generations, and carries out what their callers want.

    Parameters
    ----------
    new_id
        Makes a UUIDv7 for a moment.
    most_active
        Limit of unfinished generations.
    """

    def __init__(self, ports: Ports, worker: Worker, *, new_id: Callable[[datetime], str], most_active: int) -> None:
        self._ports = ports
        self._worker = worker
        self._quotas = Quotas(ports)
        self._new_id = new_id
        self._most_active = most_active

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        asked_seconds: int | None = None,
        key: IdempotencyKey | None = None,
        traceparent: str | None = None,
    ) -> Generation:
        """Write the record, then submit it or queue its call. Return the generation as it is after that.

        The record comes first, with its id as the ``Operation-Id`` of the submit: after any crash the timer submits
        the same operation again, and nothing is lost or billed twice.

        Parameters
        ----------
        asked_seconds
            The timeout in the caller's request, if any. Requests with different timeouts are different requests.
        traceparent
            W3C trace context of the caller.

        Raises
        ------
        RequestError
            When the model cannot do this, the key was used with another request, or too many generations are active.
            Nothing was written or billed.
        StorageUnavailableError
            When storage did not answer. The record may exist: the caller repeats the start with the same key.
        """
        upstream = self._choose(request.model)
        # The digest covers the request before defaults, so a changed default does not break a repeated request.
        digest = _digest(request, metadata, asked_seconds)
        request = upstream.complete(request)
        now = self._ports.clock()
        generation = Generation(
            id=self._new_id(now),
            token=secrets.token_urlsafe(16),
            created=now,
            last_action=now,
            deadline=now + timeout,
            due=now + min(SUBMIT_CLAIM, timeout / 2),
            queued=isinstance(upstream, Direct),
            request=request,
            metadata=metadata,
            key=key.name if key else None,
        )
        with self._ports.telemetry.span("generation.start", traceparent, model=request.model) as span:
            created = self._create(generation.changed(traceparent=span.traceparent), key, digest)
            crash_point(CrashPoint.RECORD_CREATED)
            if isinstance(created, Generation):
                span.ends_as("repeated", generation_id=created.id)
                return created
            span.ends_as("started", generation_id=created.generation.id)
            log_event(
                "generation.started", id=created.generation.id, model=request.model, n=request.n, size=request.size
            )
            return self._begin(created)

    def _create(self, generation: Generation, key: IdempotencyKey | None, digest: str) -> Versioned | Generation:
        """Write the record. Return it with its ETag, or the generation that another request with this key made."""
        if key is None:
            if refusal := self._refusal(generation):
                raise refusal
            created = self._ports.records.create(generation)
            return created or self._ports.records.read(generation.id) or generation
        while True:
            claimed = self._claim_key(key, KeyClaim(id=generation.id, digest=digest), self._refusal(generation))
            # A crash after this line leaves a key without a record. The next request with the key makes the record,
            # under the same id.
            crash_point(CrashPoint.KEY_CLAIMED)
            if found := self._create_under_key(generation.changed(id=claimed.id), own=claimed.id == generation.id):
                return found
            # The generation of this key was deleted a moment ago. Its key goes too, and this request claims it anew.
            self._ports.records.drop_key(key.name, claimed.id)
            generation = generation.changed(id=self._new_id(self._ports.clock()))

    def _claim_key(self, key: IdempotencyKey, claim: KeyClaim, refusal: RequestError | None) -> KeyClaim:
        records = self._ports.records
        if refusal is None:
            known = records.claim_key(key.name, claim)
        elif (known := records.read_key(key.name)) is None:
            raise refusal  # it leaves the key free. A known key is a repetition
        if known.digest != claim.digest:
            raise KeyReusedError(key.header)
        return known

    def _create_under_key(self, generation: Generation, *, own: bool) -> Versioned | Generation | None:
        """The record of a key: made here, or by another request. None when it was deleted."""
        records = self._ports.records
        if not own and (existing := records.read(generation.id)):
            return existing
        if not own and records.read_end(generation.id) == End(None):
            return None
        created = records.create(generation)
        # Another request with this key may have been faster: it submits, and this one does not. Its generation may
        # even have ended, or have been deleted, before this record was written.
        there = records.read(generation.id)
        if there is None and created:
            records.drop_active(generation.id, created.etag)
        return created if created and there and there.token == generation.token else there

    def _begin(self, created: Versioned) -> Generation:
        """Submit, or queue the call.

        The record exists, so the caller's start has succeeded, whatever fails from here: the timer goes on with it. An
        error would make the caller start, and pay for, another generation.
        """
        generation = created.generation
        try:
            if generation.queued:
                self._ports.queue.send([generation.id])
                crash_point(CrashPoint.MESSAGE_SENT)
                return generation
            generation = self._worker.run(created, is_new=True).generation
            if not generation.status.is_terminal:
                self._ports.request_slot(generation.due)
        except (StorageUnavailableError, ConflictError):
            pass
        except Exception as error:  # noqa: BLE001 - as the docstring says
            log_stuck(generation.id, error)
        return generation

    def _choose(self, model: str | None) -> Upstream:
        models = self._ports.models
        upstream = self._ports.upstream(model if model is not None else next(iter(models)))
        if upstream is None:
            names = ", ".join(f"'{name}'" for name in models)
            problem = FieldProblem("model", f"is not configured; leave it out or use one of {names}")
            raise RequestError.for_fields([problem])
        return upstream

    def _refusal(self, generation: Generation) -> RequestError | None:
        """Why the app cannot take this generation now."""
        if self._ports.records.count_active() >= self._most_active:
            return TooManyActiveError(self._most_active)
        model = generation.request.model or ""
        throttle, pace = self._quotas.current(model), self._quotas.pace(model)
        is_known = pace is not None and pace.ceiling is not None  # not while it is still being learned
        waiting = self._ports.records.count_waiting(model) if is_known else 0
        pause = (throttle.until - generation.created).total_seconds() if throttle else 0
        wait = max(0.0, pause) + (pace.seconds_for(waiting) if pace and is_known else 0)
        left = (generation.deadline - generation.created).total_seconds() * _PART_FOR_WAITING
        return QuotaUsedUpError(model, waiting, wait, wait - left) if wait > left else None

    def cancel(self, generation: Generation) -> Generation | None:
        """End the generation as `canceled`, unless it has ended. Return its outcome, None when it was deleted."""
        if generation.status.is_terminal:
            return generation
        active = self._ports.records.read_active(generation.id)
        canceled = changes.ended(
            active.generation if active else generation, Status.CANCELED, None, self._ports.clock()
        )
        # A claimed record stays active: its worker, or the timer after it, finds the outcome and removes the images
        # that it stored. Any other record is dropped here, unless another worker writes it at this moment.
        etag = active.etag if active and not active.generation.is_claimed else None
        return finish(self._ports, canceled, etag)

    def delete(self, generation: Generation) -> None:
        """Cancel if need be, then delete images, key and record. After a crash, the caller deletes again."""
        self.cancel(generation)
        self._ports.images.delete_all(generation.id)
        crash_point(CrashPoint.IMAGES_DELETED)
        if generation.key:
            self._ports.records.drop_key(generation.key, generation.id)
        crash_point(CrashPoint.KEY_DROPPED)
        # Last: it removes the token, without which the caller cannot repeat the delete.
        self._ports.records.write_tombstone(generation.id)
        log_event("generation.deleted", id=generation.id)

    def wait(self, generation: Generation, until: datetime) -> Generation:
        """Advance the generation, in parallel with the timer, until it ends or `until` comes. Return it as it is."""
        current = self._ports.records.read_active(generation.id)
        while current and not current.generation.status.is_terminal and (now := self._ports.clock()) < until:
            due = current.generation.due if until - now > _QUIET_END else until
            seconds = (min(due, until) - now).total_seconds()
            if seconds <= 0:
                try:
                    current = self._worker.run(current)
                except ConflictError:
                    current = self._ports.records.read_active(generation.id)
                continue
            self._ports.sleep(min(seconds, _WATCH_SECONDS))
            if seconds > _WATCH_SECONDS or current.generation.waits:
                # Another worker may be at work on it. Without a turn, its `due` is never written.
                current = self._ports.records.read_active(generation.id)
        return self._ports.records.read(generation.id) or generation


def _digest(request: GenerationRequest, metadata: dict[str, str], asked_seconds: int | None) -> str:
    """SHA-256 of a request: two requests with one idempotency key must be the same request."""
    content = [request.to_json(), metadata, asked_seconds]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
