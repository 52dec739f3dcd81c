"""The verbs of a caller: start, wait, cancel, delete."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.errors import (
    ConflictError,
    FieldProblem,
    KeyReusedError,
    RequestError,
    StorageUnavailableError,
    TooManyActiveError,
)
from imagegen.events import log_event, place_of
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle import changes
from imagegen.lifecycle.finishing import finish
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.worker import Worker
from imagegen.upstream.protocol import Direct, Upstream

SUBMIT_CLAIM: Final = timedelta(seconds=45)
"""Time for a start to submit. After it the timer submits instead."""

_QUIET_END: Final = timedelta(seconds=10)
"""The end of a wait, in which no work begins: a copy may take longer than the caller stays."""

_WATCH_SECONDS: Final = 1.0
"""Poll interval during ``Prefer: wait``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a caller asks for."""

    request: GenerationRequest
    timeout: timedelta
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    timeout_seconds: int | None = None
    """The timeout in the caller's own request, if any: two requests are the same only if this is."""
    key: IdempotencyKey | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the caller's own words, before defaults: a changed default must not break a repetition."""
        said = [self.request.to_json(), self.metadata, self.timeout_seconds]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
    ) -> Generation:
        asked = Start(request=request, timeout=timeout, metadata=metadata, timeout_seconds=asked_seconds, key=key)
        return self._start(asked)

    def _start(self, start: Start) -> Generation:
        """Write the record, then submit it or queue its call. Return the generation as it is after that.

        The record comes first, with its id as the ``Operation-Id`` of the submit: after any crash the timer submits
        the same operation again, and nothing is lost or billed twice.

        Raises
        ------
        RequestError
            When the model cannot do this, the key was used with another request, or too many generations are active.
            Nothing was written or billed.
        StorageUnavailableError
            When the record could not be written. Nothing was billed.
        """
        upstream = self._choose(start.request.model)
        request = upstream.complete(start.request)
        now = self._ports.clock()
        generation = Generation(
            id=self._new_id(now),
            token=secrets.token_urlsafe(16),
            created=now,
            last_action=now,
            deadline=now + start.timeout,
            due=now + SUBMIT_CLAIM,
            queued=isinstance(upstream, Direct),
            request=request,
            metadata=start.metadata,
            key=start.key.name if start.key else None,
        )
        created = self._create(generation, start)
        crash_point(CrashPoint.RECORD_CREATED)
        if isinstance(created, Generation):
            return created
        log_event("generation.started", id=created.generation.id, model=request.model, n=request.n, size=request.size)
        return self._begin(created)

    def _create(self, generation: Generation, start: Start) -> Versioned | Generation:
        """Write the record. Return it with its ETag, or the generation that another request with this key made."""
        own_id = generation.id
        if start.key:
            # A crash after this line leaves a key without a record. The next request with the key makes the record,
            # under the same id.
            claim = self._ports.records.claim_key(start.key.name, KeyClaim(id=own_id, digest=start.digest))
            crash_point(CrashPoint.KEY_CLAIMED)
            if claim.digest != start.digest:
                raise KeyReusedError(start.key.header)
            if claim.id != own_id and (existing := self._ports.records.read(claim.id)):
                return existing
            generation = generation.changed(id=claim.id)
        self._admit(generation, owns_key=generation.id == own_id)
        created = self._ports.records.create(generation)
        if created and generation.id == own_id:
            return created
        # Another request with this key may have been faster. Then that request submits, and this one does not.
        there = self._ports.records.read(generation.id) or generation
        return created if created and there.token == generation.token else there

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
            return self._worker.run(created).generation
        except (StorageUnavailableError, ConflictError):
            return generation
        except Exception as error:  # noqa: BLE001 - as the docstring says
            name, place = type(error).__name__, place_of(error)
            log_event("generation.stuck", level=logging.ERROR, id=generation.id, error=name, at=place)
            return generation

    def _choose(self, model: str | None) -> Upstream:
        upstreams = self._ports.upstreams
        upstream = upstreams.get(model if model is not None else next(iter(upstreams)))
        if upstream is None:
            names = ", ".join(f"'{name}'" for name in upstreams)
            problem = FieldProblem("model", f"is not configured; leave it out or use one of {names}")
            raise RequestError.for_fields([problem])
        return upstream

    def _admit(self, generation: Generation, *, owns_key: bool) -> None:
        if self._ports.records.count_active() < self._most_active:
            return
        if generation.key and owns_key:
            # Nothing was started, so the key must stay free.
            self._ports.records.drop_key(generation.key, generation.id)
        raise TooManyActiveError(self._most_active)

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
            if seconds > _WATCH_SECONDS:
                # Another worker may be at work on it.
                current = self._ports.records.read_active(generation.id)
        return self._ports.records.read(generation.id) or generation
