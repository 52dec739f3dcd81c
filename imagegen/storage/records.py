"""Generations in Blob Storage: a record is a blob that moves from ``active/`` to ``done/``.

A listing shows name, ETag, ``due`` and ``status`` of all records at once, so that one transaction tells the timer
everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContentSettings

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Generation, KeyClaim, Versioned, done_key, format_time
from imagegen.lifecycle.ports import ActiveEntry
from imagegen.storage.clients import create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobServiceClient

_ACTIVE: Final = "active/"
_DONE: Final = "done/"
_KEYS: Final = "keys/"
_DELETED: Final = "deleted"
_JSON: Final = ContentSettings(content_type="application/json")
_COUNT_SECONDS: Final = 10.0
"""How long a count of the active records is taken as true."""


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
        self._monotonic = monotonic
        self._counted: tuple[float, int] | None = None

    def create(self, generation: Generation) -> Versioned | None:
        """Write a new record under ``active/``; None when another one has this id."""
        blob = self._active(generation.id)
        with storage_errors("create record"):
            try:
                etag = self._put(blob, generation)
            except ResourceExistsError:
                # Either it is ours, where the answer was lost and the SDK tried again; or the same idempotency key
                # brought two requests here at once.
                there = self._get(blob.blob_name)
                return there if there and there.generation.token == generation.token else None
        if self._counted:
            self._counted = (self._counted[0], self._counted[1] + 1)
        return Versioned(generation, etag)

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done; None when there is none, or when it was deleted.

        ``done/`` is asked first, and wins: between its creation and the removal of ``active/`` both are there. And it
        is asked again when neither was: the record may have moved between the two reads.
        """
        done = f"{_DONE}{done_key(generation_id)}"
        try:
            for name in (done, f"{_ACTIVE}{generation_id}", done):
                if found := self._get(name):
                    return found.generation
        except _DeletedError:
            pass
        return None

    def read_active(self, generation_id: str) -> Versioned | None:
        """The record and its ETag while it needs work, else None."""
        return self._get(f"{_ACTIVE}{generation_id}")

    def save(self, generation: Generation, etag: str) -> str:
        blob = self._active(generation.id)
        with storage_errors("save record"):
            try:
                return self._put(blob, generation, etag=etag)
            except ResourceNotFoundError:
                raise ConflictError(generation.id) from None
            except ResourceModifiedError:
                # It may be our own write, whose answer was lost, and which the SDK sent again.
                there = self._get(blob.blob_name)
                if there and there.generation.to_json() == generation.to_json():
                    return there.etag
                raise ConflictError(generation.id) from None

    def write_outcome(self, generation: Generation) -> Generation | None:
        """Write this outcome to ``done/``, unless there is one; returns the one that is true, None when deleted."""
        done = self._container.get_blob_client(f"{_DONE}{generation.done_key}")
        with storage_errors("finish record"):
            try:
                self._put(done, generation)
            except ResourceExistsError:
                # First outcome wins. It may be our own, where an answer was lost or where we died after this.
                try:
                    found = self._get(done.blob_name)
                except _DeletedError:
                    return None
                if found is None:  # buried or expired in this moment: the next tick finds out
                    raise StorageUnavailableError("finish record") from None
                return found.generation
        return generation

    def drop_active(self, generation_id: str, etag: str) -> None:
        """Remove the record from ``active/`` if nobody wrote it since."""
        with storage_errors("drop record"), suppress(ResourceNotFoundError, ResourceModifiedError):
            self._active(generation_id).delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

    def write_tombstone(self, generation_id: str) -> None:
        """Put a tombstone where the finished record was.

        It holds nothing of what was deleted. It stays so that a worker that comes late finds an outcome there, and
        does not bring the generation back; the rule that ends old records ends it too.
        """
        done = self._container.get_blob_client(f"{_DONE}{done_key(generation_id)}")
        with storage_errors("write_tombstone record"):
            done.upload_blob(
                json.dumps({"id": generation_id, "status": _DELETED}),
                overwrite=True,
                content_settings=_JSON,
                metadata={"status": _DELETED},
            )

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        """What this idempotency key stands for: the claim that came first."""
        blob = self._container.get_blob_client(f"{_KEYS}{key}")
        with storage_errors("claim key"):
            try:
                self._upload_new(blob, claim.model_dump_json().encode())
            except ResourceExistsError:
                with suppress(ResourceNotFoundError):  # deleted meanwhile: the claim is ours to make again
                    return KeyClaim.model_validate_json(blob.download_blob().readall())
                return self.claim_key(key, claim)
        return claim

    def drop_key(self, key: str, generation_id: str) -> None:
        blob = self._container.get_blob_client(f"{_KEYS}{key}")
        with storage_errors("drop key"), suppress(ResourceNotFoundError, ResourceModifiedError):
            download = blob.download_blob()
            # It may stand for another one by now, which was started after this one's DELETE died half-way.
            if KeyClaim.model_validate_json(download.readall()).id == generation_id:
                blob.delete_blob(etag=str(download.properties.etag), match_condition=MatchConditions.IfNotModified)

    def list_active(self) -> list[ActiveEntry]:
        """All records that need work, oldest first."""
        with storage_errors("list records"):
            try:
                entries = list(self._list_active())
            except ResourceNotFoundError:
                entries = []  # no container yet: nothing was ever started
        self._counted = (self._monotonic(), len(entries))
        return entries

    def _list_active(self) -> Iterator[ActiveEntry]:
        for blob in self._container.list_blobs(name_starts_with=_ACTIVE, include=["metadata"]):
            yield ActiveEntry(
                id=blob.name.removeprefix(_ACTIVE),
                etag=f'"{str(blob.etag).strip(chr(34))}"',
                due=_due(blob.metadata or {}),
                status=(blob.metadata or {}).get("status", ""),
            )

    def check(self) -> None:
        """Raises StorageUnavailableError when the records are out of reach."""
        # No container yet is fine: the first write makes it.
        with storage_errors("check"), suppress(ResourceNotFoundError):
            self._container.get_container_properties()

    def count_active(self) -> int:
        """How many records need work: exact at the last listing, and what this instance created since."""
        if self._counted is None or self._monotonic() - self._counted[0] > _COUNT_SECONDS:
            return len(self.list_active())
        return self._counted[1]

    def _active(self, generation_id: str) -> BlobClient:
        return self._container.get_blob_client(f"{_ACTIVE}{generation_id}")

    def _get(self, name: str) -> Versioned | None:
        with storage_errors("read record"):
            try:
                download = self._container.download_blob(name)
                if (download.properties.metadata or {}).get("status") == _DELETED:
                    raise _DeletedError(name)
                return Versioned(Generation.model_validate_json(download.readall()), str(download.properties.etag))
            except ResourceNotFoundError:
                return None

    def _put(self, blob: BlobClient, generation: Generation, *, etag: str | None = None) -> str:
        """Write where this ETag is, or, without one, where nothing is."""
        content = json.dumps(generation.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
        metadata = {"due": format_time(generation.due), "status": generation.status.value}
        if etag is None:
            return self._upload_new(blob, content, metadata)
        written = cast("Any", blob).upload_blob(
            content,
            overwrite=True,
            content_settings=_JSON,
            metadata=metadata,
            etag=etag,
            match_condition=MatchConditions.IfNotModified,
        )
        return str(written["etag"])

    def _upload_new(self, blob: BlobClient, content: bytes, metadata: dict[str, str] | None = None) -> str:
        upload = partial(cast("Any", blob).upload_blob, content, content_settings=_JSON, metadata=metadata)
        try:
            return str(upload()["etag"])
        except ResourceNotFoundError:
            # No container yet: nothing else can be missing where a new blob is written.
            create_container(self._container)
            return str(upload()["etag"])


class _DeletedError(Exception):
    """A tombstone stands where a record was asked for."""


def _due(metadata: Mapping[str, str | None]) -> datetime:
    """Now, where it cannot be read: somebody should look at such a record, and it must not hide the others."""
    try:
        due = datetime.fromisoformat(metadata.get("due") or "")
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return due if due.tzinfo else due.replace(tzinfo=UTC)
