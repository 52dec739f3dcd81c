"""Generations in Blob Storage: a record is a blob that moves from ``active/`` to ``done/``.

A listing shows name, ETag, ``due`` and ``status`` of all records at once, so that one transaction tells the timer
everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import ContentSettings

from imagegen.errors import ConflictError
from imagegen.generation import Generation, Versioned, done_key, format_time
from imagegen.storage import create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobServiceClient

_ACTIVE: Final = "active/"
_DONE: Final = "done/"
_JSON: Final = ContentSettings(content_type="application/json")
_COUNT_SECONDS: Final = 10.0
"""How long a count of the active records is taken as true."""


@dataclass(frozen=True, slots=True)
class ActiveEntry:
    """What a listing tells of an active record."""

    id: str
    etag: str
    due: datetime


class BlobStore:
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

    def create(self, generation: Generation) -> str:
        blob = self._active(generation.id)
        with storage_errors("create record"):
            try:
                return self._put(blob, generation)
            except ResourceExistsError:
                # The id is new, so what is there is ours: an answer was lost, and the SDK tried again.
                return str(blob.get_blob_properties().etag)
            finally:
                if self._counted:
                    self._counted = (self._counted[0], self._counted[1] + 1)

    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done; None when there is none.

        ``done/`` is asked first, and wins: between its creation and the removal of ``active/`` both are there. And it
        is asked again when neither was: the record may have moved between the two reads.
        """
        done = f"{_DONE}{done_key(generation_id)}"
        for name in (done, f"{_ACTIVE}{generation_id}", done):
            if found := self._get(name):
                return found.generation
        return None

    def read_active(self, generation_id: str) -> Versioned | None:
        """The record and its ETag while it needs work, else None."""
        return self._get(f"{_ACTIVE}{generation_id}")

    def save(self, generation: Generation, etag: str) -> str:
        with storage_errors("save record"):
            try:
                return self._put(self._active(generation.id), generation, etag=etag)
            except (ResourceModifiedError, ResourceNotFoundError):
                raise ConflictError(generation.id) from None

    def finish(self, generation: Generation) -> Generation:
        done = self._container.get_blob_client(f"{_DONE}{generation.done_key}")
        with storage_errors("finish record"):
            try:
                self._put(done, generation)
                true = generation
            except ResourceExistsError:
                # First outcome wins. It may be our own, where an answer was lost or where we died before the next line.
                found = self._get(done.blob_name)
                true = found.generation if found else generation
            # A crash before this line leaves both blobs: readers take done/, the next tick comes here again.
            with suppress(ResourceNotFoundError):  # somebody who saw the same outcome was faster
                self._active(generation.id).delete_blob()
        return true

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
            due = (blob.metadata or {}).get("due")
            yield ActiveEntry(
                id=blob.name.removeprefix(_ACTIVE),
                etag=f'"{str(blob.etag).strip(chr(34))}"',
                # Whoever wrote a record without a due time, somebody should look at it now.
                due=datetime.fromisoformat(due) if due else datetime.min.replace(tzinfo=UTC),
            )

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
                return Versioned(Generation.model_validate_json(download.readall()), str(download.properties.etag))
            except ResourceNotFoundError:
                return None

    def _put(self, blob: BlobClient, generation: Generation, *, etag: str | None = None) -> str:
        """Write where this ETag is, or, without one, where nothing is."""
        try:
            return self._put_once(blob, generation, etag)
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", None) != "ContainerNotFound":
                raise
            create_container(self._container)
            return self._put_once(blob, generation, etag)

    def _put_once(self, blob: BlobClient, generation: Generation, etag: str | None) -> str:
        condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}
        written = cast("Any", blob).upload_blob(
            json.dumps(generation.to_json(), ensure_ascii=False, separators=(",", ":")).encode(),
            overwrite=etag is not None,
            content_settings=_JSON,
            metadata={"due": format_time(generation.due), "status": generation.status.value},
            **condition,
        )
        return str(written["etag"])
