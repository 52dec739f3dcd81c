"""What is in the storage account. It is read directly, without the proxy."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient
from azure.storage.queue import QueueClient

from imagegen.generation import Generation, KeyClaim, format_time
from imagegen.storage.work_queue import CALLS_QUEUE, POLLS_QUEUE, SLOTS_QUEUE

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_PAST: Final = format_time(datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Content:
    """The account at the end of a run."""

    active: frozenset[str]
    """Ids of the records under ``active/``."""
    done: dict[str, Generation]
    """Finished records by id, without tombstones."""
    keys: dict[str, str]
    """Id by the name of the idempotency key."""
    images: frozenset[str]
    """Names of blobs."""
    poisoned: int
    """Messages that the hosts stopped delivering."""


class Account:
    def __init__(self, connection_string: str) -> None:
        self._connection_string = connection_string
        self._service = BlobServiceClient.from_connection_string(connection_string)
        self._generations = self._service.get_container_client("generations")

    def active(self) -> frozenset[str]:
        return frozenset(name.removeprefix("active/") for name in _names(self._generations, "active/"))

    def read(self) -> Content:
        done = (self._generations.download_blob(name).readall() for name in _names(self._generations, "done/"))
        records = [Generation.model_validate_json(one) for one in done if json.loads(one)["status"] != "deleted"]
        keys = {
            name: KeyClaim.model_validate_json(self._generations.download_blob(name).readall()).id
            for name in _names(self._generations, "keys/")
        }
        images = frozenset(_names(self._service.get_container_client("images"), ""))
        return Content(self.active(), {one.id: one for one in records}, keys, images, self._poisoned())

    def break_timer_lease(self) -> None:
        """Let any host become the one that runs the timer. It replaces a wait of 15 s after a kill.

        While the old one lives, both run the timer for some seconds, which must be harmless too.
        """
        locks = self._service.get_container_client("azure-webjobs-hosts")
        for lock in _names(locks, "locks/"):
            with contextlib.suppress(HttpResponseError):  # not leased
                BlobLeaseClient(locks.get_blob_client(lock)).break_lease(0)

    def expire_claims(self) -> None:
        """End the claims and the lost messages of unfinished generations.

        Only while no host runs. It replaces a wait of up to ten minutes.
        """
        for name in _names(self._generations, "active/"):
            blob = self._generations.get_blob_client(name)
            content = json.loads(blob.download_blob().readall()) | {"due": _PAST}
            metadata = (blob.get_blob_properties().metadata or {}) | {"due": _PAST}
            blob.upload_blob(json.dumps(content), overwrite=True, metadata=metadata)

    def _poisoned(self) -> int:
        return sum(self._messages(f"{queue}-poison") for queue in (CALLS_QUEUE, POLLS_QUEUE, SLOTS_QUEUE))

    def _messages(self, name: str) -> int:
        queue = QueueClient.from_connection_string(self._connection_string, name)
        try:
            return queue.get_queue_properties().approximate_message_count or 0
        except ResourceNotFoundError:
            return 0


def _names(container: ContainerClient, prefix: str) -> list[str]:
    try:
        return list(container.list_blob_names(name_starts_with=prefix))
    except ResourceNotFoundError:  # no container
        return []
