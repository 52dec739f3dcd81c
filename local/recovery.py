"""What a run left unfinished. Only for storage that no other process uses: its lock is held."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from imagegen.storage.records import BlobRecords

if TYPE_CHECKING:
    from imagegen.generation import Generation


@dataclass(frozen=True)
class Unfinished:
    """Numbers of generations."""

    generations: int
    cut_calls: int
    """Those whose call had no response yet when the run ended."""


def recover(connection_string: str, container: str) -> Unfinished:
    """End what the workers of the last run held, and return what they left unfinished.

    A claim protects a worker that may still live. Here none does: without this, the app would wait 90 s for the end of
    a claim, ten minutes for a queue message that was lost, and 15 s for the lease on the timer.
    """
    with BlobServiceClient.from_connection_string(connection_string) as service:
        _break_leases(service)
        records = BlobRecords(service, container)
        active = records.list_active()
        cut_calls = 0
        for entry in active:
            with contextlib.suppress(ValueError):  # not a record: the app logs it
                found = records.read_active(entry.id)
                cut_calls += found is not None and found.generation.calling
                if found and _is_held(found.generation):
                    records.save(found.generation.changed(due=datetime.now(UTC)), found.etag)
    return Unfinished(len(active), cut_calls)


def _is_held(generation: Generation) -> bool:
    return generation.claim is not None or generation.calling or generation.queued


def _break_leases(service: BlobServiceClient) -> None:
    hosts = service.get_container_client("azure-webjobs-hosts")
    with contextlib.suppress(ResourceNotFoundError):  # the first run
        for lock in hosts.list_blobs(name_starts_with="locks/"):
            with contextlib.suppress(HttpResponseError):  # not leased
                BlobLeaseClient(hosts.get_blob_client(lock.name)).break_lease(0)
