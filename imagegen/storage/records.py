"""Generations in Blob Storage: a record is a blob that moves from ``active/`` to ``done/``.

A listing returns the name, ETag, ``due`` and ``status`` of all records, so that the timer needs one transaction.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Generation, KeyClaim, Versioned, done_key, format_time
from imagegen.lifecycle.ports import ActiveEntry, End
from imagegen.storage.active_listing import ActiveListing
from imagegen.storage.blob_requests import BlobRequests
from imagegen.storage.clients import TRIES, create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

_ACTIVE: Final = "active/"
_DONE: Final = "done/"
_KEYS: Final = "keys/"
_DELETED: Final = "deleted"
_JSON: Final = "application/json"
_TOMBSTONE: Final = "application/vnd.imagegen.tombstone+json"
_MOST_KEPT: Final = 500
_LONGEST_KEPT: Final = 8_192
"""Records that this process remembers after it wrote them, and the longest of them in bytes: 4 MB at most."""
_COUNT_CACHE_SECONDS: Final = 10.0
"""How long an instance uses its count of the active records."""


class BlobRecords:
    """The records of one app. Thread-safe.

    Parameters
    ----------
    monotonic
        Seconds of a clock that never goes back.
    """

    def __init__(
        self, service: BlobServiceClient, container: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._container = service.get_container_client(container)
        self._requests = BlobRequests(service, container)
        self._listing = ActiveListing(self._requests)
        self._count_lock = threading.Lock()
        self._count_failed: float | None = None
        """When the last count failed."""
        self._monotonic = monotonic
        self._written: OrderedDict[str, Versioned] = OrderedDict()
        """The last versions that this process wrote of running operations. It saves reads; nothing relies on it."""
        self._cached_count: tuple[float, Counter[str | None]] | None = None
        """When, and how many records waited for each model then. None: those that did not wait."""

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new record under ``active/``; None if another record has this id."""
        name = f"{_ACTIVE}{generation.id}"
        with storage_errors("create record"):
            try:
                etag = self._put_new(name, _content(generation), _metadata(generation))
            except ResourceExistsError:
                # Either this write, repeated after a lost response, or a parallel request with the same idempotency
                # key.
                existing = self._download(name)
                return existing if existing and existing.generation.token == generation.token else None
        if cached := self._cached_count:
            cached[1][generation.request.model] += 1
        return Versioned(generation, etag)

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done; None if it does not exist or was deleted.

        ``done/`` is read first, because an outcome wins over an active record that is still to be deleted. ``done/`` is
        read again if both were missing, because the record may have moved between the two reads.
        """
        done = f"{_DONE}{done_key(generation_id)}"
        try:
            for name in (done, f"{_ACTIVE}{generation_id}", done):
                if found := self._download(name):
                    return found.generation
        except _DeletedError:
            pass
        return None

    def read_active(self, generation_id: str) -> Versioned | None:
        """The record and its ETag; None if it is not active."""
        return self._download(f"{_ACTIVE}{generation_id}")

    def read_listed(self, entry: ActiveEntry) -> Versioned | None:
        """The record of an entry. A version that this process wrote needs no request."""
        written = self._written.get(entry.id)
        return written if written and written.etag == entry.etag else self.read_active(entry.id)

    def renew(self, generation: Generation, etag: str) -> str:
        """Save a renewed claim: at once or not at all. A late renewal is worth nothing, and another one follows."""
        return self.save(generation, etag, tries=1)

    def save(self, generation: Generation, etag: str, *, tries: int = TRIES) -> str:
        """Replace the active record that has this ETag. Returns the new ETag. Raises ConflictError."""
        name = f"{_ACTIVE}{generation.id}"
        with storage_errors("save record"):
            try:
                content = _content(generation)
                written = self._put(name, content, _json(_metadata(generation)), etag=etag, tries=tries)
            except ResourceNotFoundError:
                raise ConflictError(generation.id) from None
            except ResourceModifiedError:
                # It may be this write, repeated after a lost response.
                existing = self._download(name)
                if existing and existing.generation.to_json() == generation.to_json():
                    return existing.etag
                raise ConflictError(generation.id) from None
        # An operation only: a call may be claimed anew after the listing, and must be seen as it is.
        if generation.operation_location and len(content) <= _LONGEST_KEPT:
            self._written[generation.id] = Versioned(generation, written)
            while len(self._written) > _MOST_KEPT:
                self._written.popitem(last=False)
        return written

    def write_outcome(self, generation: Generation) -> Generation | None:
        """Write this outcome to ``done/`` unless there is one. Returns the winning outcome; None if it was deleted."""
        name = f"{_DONE}{generation.done_key}"
        with storage_errors("finish record"):
            try:
                self._put_new(name, _content(generation), _metadata(generation))
            except ResourceExistsError:
                # The first outcome wins. It may be this one, from before a lost response or a crash.
                try:
                    found = self._download(name)
                except _DeletedError:
                    return None
                if found is None:  # the retention rule deleted it just now: the next tick decides
                    raise StorageUnavailableError("finish record") from None
                return found.generation
        return generation

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Delete the record from ``active/`` if it still has this ETag."""
        self._written.pop(generation_id, None)
        with storage_errors("drop record"), suppress(ResourceNotFoundError, ResourceModifiedError):
            self._requests.send("DELETE", f"{_ACTIVE}{generation_id}", headers={"If-Match": etag})

    def write_tombstone(self, generation_id: str) -> None:
        """Replace the record in ``done/`` with a tombstone.

        The tombstone holds no content of the record. It keeps a late worker from writing an outcome, which would bring
        the generation back. The retention rule deletes it like any record. Its content type differs from that of a
        record, so a subscription to BlobCreated events can tell a deletion from a completion.
        """
        content = json.dumps({"id": generation_id, "status": _DELETED}).encode()
        with storage_errors("write tombstone"):
            self._put(f"{_DONE}{done_key(generation_id)}", content, _headers(_TOMBSTONE, {"status": _DELETED}))

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """Claim an idempotency key. Returns the first claim, which may be another one."""
        name = f"{_KEYS}{key}"
        with storage_errors("claim key"):
            try:
                self._put_new(name, claim.model_dump_json().encode(), {})
            except ResourceExistsError:
                with suppress(ResourceNotFoundError):  # deleted in between: claim it again
                    return KeyClaim.model_validate_json(self._requests.send("GET", name).content)
                return self.claim_key(key, claim)
        return claim

    def read_key(self, key: str) -> KeyClaim | None:
        """The claim of an idempotency key; None when no request has used it."""
        with storage_errors("read key"):
            try:
                return KeyClaim.model_validate_json(self._requests.send("GET", f"{_KEYS}{key}").content)
            except ResourceNotFoundError:
                return None

    def read_end(self, generation_id: str) -> End | None:
        """What stands in ``done/``; None if nothing does."""
        try:
            found = self._download(f"{_DONE}{done_key(generation_id)}")
        except _DeletedError:
            return End(None)
        return End(found.generation) if found else None

    def drop_key(self, key: str, generation_id: str) -> None:
        """Delete the claim of an idempotency key if it belongs to this generation."""
        name = f"{_KEYS}{key}"
        with storage_errors("drop key"), suppress(ResourceNotFoundError, ResourceModifiedError):
            found = self._requests.send("GET", name)
            # After an interrupted DELETE, the key may have started another generation.
            if KeyClaim.model_validate_json(found.content).id == generation_id:
                self._requests.send("DELETE", name, headers={"If-Match": found.headers["ETag"]})

    def list_active(self) -> list[ActiveEntry]:
        """All active records, oldest first."""
        with storage_errors("list records"):
            try:
                entries = list(self._listing.entries(_ACTIVE))
            except ResourceNotFoundError:
                entries = []  # no container: no generation was ever started
        self._cached_count = (self._monotonic(), Counter(entry.waits_for for entry in entries))
        return entries

    def check(self) -> None:
        """Raise StorageUnavailableError if the container cannot be read."""
        # A missing container is fine: the first write creates it.
        with storage_errors("check"), suppress(ResourceNotFoundError):
            self._requests.send("GET", query={"restype": "container"}, tries=2, read_seconds=5)

    def count_active(self) -> int:
        """Number of active records: those of a recent listing, and those that this instance created since."""
        return self._count().total()

    def count_waiting(self, model: str) -> int:
        """The same, of those that wait for a submit or a call of this model."""
        return self._count()[model]

    def _count(self) -> Counter[str | None]:
        if (count := self._recent_count()) is not None:
            return count
        asked = self._monotonic()
        with self._count_lock:  # a burst of requests makes one listing, which may fail for all of them
            if (count := self._recent_count()) is not None:
                return count
            if self._count_failed is not None and self._count_failed >= asked:
                raise StorageUnavailableError("count records")
            try:
                self.list_active()
                return self._recent_count() or Counter()
            except StorageUnavailableError:
                self._count_failed = self._monotonic()
                raise

    def _recent_count(self) -> Counter[str | None] | None:
        cached = self._cached_count
        return cached[1] if cached and self._monotonic() - cached[0] <= _COUNT_CACHE_SECONDS else None

    def _download(self, name: str) -> Versioned | None:
        with storage_errors("read record"):
            try:
                found = self._requests.send("GET", name)
                if found.headers.get("x-ms-meta-status") == _DELETED:
                    raise _DeletedError(name)
                return Versioned(Generation.model_validate_json(found.content), found.headers["ETag"])
            except ResourceNotFoundError:
                return None

    def _put(
        self, name: str, content: bytes, headers: dict[str, str], *, etag: str | None = None, tries: int = TRIES
    ) -> str:
        """Write a blob; with an ETag, only if the blob has it. Returns the new ETag."""
        condition = {"If-Match": etag} if etag else {}
        return self._requests.send("PUT", name, content=content, headers=headers | condition, tries=tries).headers[
            "ETag"
        ]

    def _put_new(self, name: str, content: bytes, metadata: dict[str, str]) -> str:
        headers = _json(metadata) | {"If-None-Match": "*"}
        try:
            return self._put(name, content, headers)
        except ResourceNotFoundError:
            # For a new blob, only the container can be missing.
            create_container(self._container)
            return self._put(name, content, headers)


def _content(generation: Generation) -> bytes:
    return json.dumps(generation.to_json(), ensure_ascii=False, separators=(",", ":")).encode()


def _json(metadata: dict[str, str]) -> dict[str, str]:
    return _headers(_JSON, metadata)


def _headers(content_type: str, metadata: dict[str, str]) -> dict[str, str]:
    named = {f"x-ms-meta-{name}": value for name, value in metadata.items()}
    return {"x-ms-blob-type": "BlockBlob", "x-ms-blob-content-type": content_type, **named}


def _metadata(generation: Generation) -> dict[str, str]:
    """What a listing shows of the record. Metadata are HTTP headers: ASCII only."""
    metadata = {"due": format_time(generation.due), "status": generation.status.value}
    if generation.waits and generation.request.model:
        metadata |= {
            "waits_for": quote(generation.request.model, safe=""),
            "deadline": format_time(generation.deadline),
        }
        if generation.queued:
            metadata["queued"] = "true"
    return metadata


class _DeletedError(Exception):
    """The blob is a tombstone."""
