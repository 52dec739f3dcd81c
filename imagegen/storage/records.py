"""Generations in Blob Storage: a record is a blob that moves from ``active/`` to ``done/``.

A listing returns the name, ETag, ``due`` and ``status`` of all records, so that the timer needs one transaction.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContentSettings

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Generation, KeyClaim, Versioned, done_key, format_time
from imagegen.lifecycle.ports import ActiveEntry
from imagegen.storage.active_listing import ActiveListing
from imagegen.storage.clients import create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobServiceClient

_ACTIVE: Final = "active/"
_DONE: Final = "done/"
_KEYS: Final = "keys/"
_DELETED: Final = "deleted"
_JSON: Final = ContentSettings(content_type="application/json")
_TOMBSTONE: Final = ContentSettings(content_type="application/vnd.imagegen.tombstone+json")
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
        self._listing = ActiveListing(service, container)
        self._count_lock = threading.Lock()
        self._count_failed: float | None = None
        """When the last count failed."""
        self._monotonic = monotonic
        self._cached_count: tuple[float, Counter[str | None]] | None = None
        """When, and how many records waited for each model then. None: those that did not wait."""

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new record under ``active/``; None if another record has this id."""
        blob = self._active_blob(generation.id)
        with storage_errors("create record"):
            try:
                etag = self._upload(blob, generation)
            except ResourceExistsError:
                # Either this write, which the SDK repeated after a lost response, or a parallel request with the same
                # idempotency key.
                existing = self._download(blob.blob_name)
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

    def renew(self, generation: Generation, etag: str) -> str:
        """Save a renewed claim: at once or not at all. A late renewal is worth nothing, and another one follows."""
        return self.save(generation, etag, connection_timeout=5, read_timeout=10, retry_total=0)

    def save(self, generation: Generation, etag: str, **limits: int) -> str:
        """Replace the active record that has this ETag. Returns the new ETag. Raises ConflictError.

        Parameters
        ----------
        limits
            Options of the SDK for this request.
        """
        blob = self._active_blob(generation.id)
        with storage_errors("save record"):
            try:
                return self._upload(blob, generation, etag=etag, **limits)
            except ResourceNotFoundError:
                raise ConflictError(generation.id) from None
            except ResourceModifiedError:
                # It may be this write, which the SDK repeated after a lost response.
                existing = self._download(blob.blob_name)
                if existing and existing.generation.to_json() == generation.to_json():
                    return existing.etag
                raise ConflictError(generation.id) from None

    def write_outcome(self, generation: Generation) -> Generation | None:
        """Write this outcome to ``done/`` unless there is one. Returns the winning outcome; None if it was deleted."""
        done = self._container.get_blob_client(f"{_DONE}{generation.done_key}")
        with storage_errors("finish record"):
            try:
                self._upload(done, generation)
            except ResourceExistsError:
                # The first outcome wins. It may be this one, from before a lost response or a crash.
                try:
                    found = self._download(done.blob_name)
                except _DeletedError:
                    return None
                if found is None:  # the retention rule deleted it just now: the next tick decides
                    raise StorageUnavailableError("finish record") from None
                return found.generation
        return generation

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Delete the record from ``active/`` if it still has this ETag."""
        with storage_errors("drop record"), suppress(ResourceNotFoundError, ResourceModifiedError):
            self._active_blob(generation_id).delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

    def write_tombstone(self, generation_id: str) -> None:
        """Replace the record in ``done/`` with a tombstone.

        The tombstone holds no content of the record. It keeps a late worker from writing an outcome, which would bring
        the generation back. The retention rule deletes it like any record. Its content type differs from that of a
        record, so a subscription to BlobCreated events can tell a deletion from a completion.
        """
        done = self._container.get_blob_client(f"{_DONE}{done_key(generation_id)}")
        with storage_errors("write tombstone"):
            done.upload_blob(
                json.dumps({"id": generation_id, "status": _DELETED}),
                overwrite=True,
                content_settings=_TOMBSTONE,
                metadata={"status": _DELETED},
            )

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """Claim an idempotency key. Returns the first claim, which may be another one."""
        blob = self._container.get_blob_client(f"{_KEYS}{key}")
        with storage_errors("claim key"):
            try:
                self._upload_new(blob, claim.model_dump_json().encode())
            except ResourceExistsError:
                with suppress(ResourceNotFoundError):  # deleted in between: claim it again
                    return KeyClaim.model_validate_json(blob.download_blob().readall())
                return self.claim_key(key, claim)
        return claim

    def read_key(self, key: str) -> KeyClaim | None:
        """The claim of an idempotency key; None when no request has used it."""
        with storage_errors("read key"):
            try:
                return KeyClaim.model_validate_json(self._container.download_blob(f"{_KEYS}{key}").readall())
            except ResourceNotFoundError:
                return None

    def was_deleted(self, generation_id: str) -> bool:
        """Whether a tombstone stands in ``done/``."""
        try:
            self._download(f"{_DONE}{done_key(generation_id)}")
        except _DeletedError:
            return True
        return False

    def drop_key(self, key: str, generation_id: str) -> None:
        """Delete the claim of an idempotency key if it belongs to this generation."""
        blob = self._container.get_blob_client(f"{_KEYS}{key}")
        with storage_errors("drop key"), suppress(ResourceNotFoundError, ResourceModifiedError):
            download = blob.download_blob()
            # After an interrupted DELETE, the key may have started another generation.
            if KeyClaim.model_validate_json(download.readall()).id == generation_id:
                blob.delete_blob(etag=str(download.properties.etag), match_condition=MatchConditions.IfNotModified)

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
            self._container.get_container_properties(read_timeout=5, retry_total=1)

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

    def _active_blob(self, generation_id: str) -> BlobClient:
        return self._container.get_blob_client(f"{_ACTIVE}{generation_id}")

    def _download(self, name: str) -> Versioned | None:
        with storage_errors("read record"):
            try:
                download = self._container.download_blob(name)
                if (download.properties.metadata or {}).get("status") == _DELETED:
                    raise _DeletedError(name)
                return Versioned(Generation.model_validate_json(download.readall()), str(download.properties.etag))
            except ResourceNotFoundError:
                return None

    def _upload(self, blob: BlobClient, generation: Generation, *, etag: str | None = None, **limits: int) -> str:
        """Replace the blob that has this ETag; without an ETag, create the blob. Returns the new ETag."""
        content = json.dumps(generation.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
        metadata = _metadata(generation)
        if etag is None:
            return self._upload_new(blob, content, metadata)
        written = cast("Any", blob).upload_blob(
            content,
            overwrite=True,
            content_settings=_JSON,
            metadata=metadata,
            etag=etag,
            match_condition=MatchConditions.IfNotModified,
            **limits,
        )
        return str(written["etag"])

    def _upload_new(self, blob: BlobClient, content: bytes, metadata: dict[str, str] | None = None) -> str:
        upload = partial(cast("Any", blob).upload_blob, content, content_settings=_JSON, metadata=metadata)
        try:
            return str(upload()["etag"])
        except ResourceNotFoundError:
            # For a new blob, only the container can be missing.
            create_container(self._container)
            return str(upload()["etag"])


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
