"""The mark of a live slot in Blob Storage. No request is repeated: a late answer is worth nothing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

from imagegen.errors import ConflictError
from imagegen.generation import format_time
from imagegen.lifecycle.live_slot import Mark
from imagegen.storage.clients import create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

_NAME: Final = "slot"
"""Outside of ``active/``, ``done/`` and ``keys/``: no listing returns it, and no lifecycle rule deletes it."""
_AT_ONCE: Final[dict[str, int]] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 0}


class BlobLiveSlot:
    """A blob whose metadata says until when a slot is live. Thread-safe."""

    def __init__(self, service: BlobServiceClient, container: str) -> None:
        self._container = service.get_container_client(container)
        self._blob = cast("Any", self._container.get_blob_client(_NAME))

    def read(self) -> Mark | None:
        with storage_errors("read slot"):
            try:
                found = self._blob.get_blob_properties(**_AT_ONCE)
            except ResourceNotFoundError:
                return None
        return Mark(str(found.etag), _time(cast("dict[str, str]", found.metadata or {}).get("until", "")))

    def replace(self, found: Mark | None, until: datetime) -> str:
        with storage_errors("claim slot"):
            try:
                return self._upload(until, **_condition(found))
            except (ResourceExistsError, ResourceModifiedError):
                raise ConflictError(_NAME) from None

    def write(self, until: datetime) -> str:
        with storage_errors("write slot"):
            return self._upload(until, overwrite=True)

    def clear(self, etag: str) -> None:
        with storage_errors("clear slot"):
            try:
                self._upload(None, **_condition(Mark(etag, None)))
            except ResourceModifiedError:
                return  # the mark of another slot

    def _upload(self, until: datetime | None, **condition: Any) -> str:
        metadata = {"until": format_time(until)} if until else {}
        try:
            written = self._blob.upload_blob(b"", metadata=metadata, **condition, **_AT_ONCE)
        except ResourceNotFoundError:
            create_container(self._container)
            written = self._blob.upload_blob(b"", metadata=metadata, **condition, **_AT_ONCE)
        return str(written["etag"])


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


def _condition(found: Mark | None) -> dict[str, Any]:
    if found is None:
        return {"overwrite": False}
    return {"overwrite": True, "etag": found.etag, "match_condition": MatchConditions.IfNotModified}
