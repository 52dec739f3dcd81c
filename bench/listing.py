"""CPU of one listing of 10,000 active records: the app's own, and that of the SDK."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from azure.storage.blob import BlobServiceClient

from bench.services import Options, in_turns, spread, table
from imagegen.storage.records import BlobRecords
from local.azurite import azurite


def section(options: Options) -> str:
    count = 50 * options.generations
    with azurite() as storage:
        service = BlobServiceClient.from_connection_string(storage.connection_string)
        container = service.get_container_client("generations")
        container.create_container()

        def create(number: int) -> None:
            metadata = {"due": "2026-11-25T12:00:00.000Z", "status": "running"}
            container.upload_blob(f"active/{number:036d}", b"{}", metadata=metadata)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(create, range(count)))
        records = BlobRecords(service, "generations")
        ways: dict[str, Callable[[], int]] = {
            "app": lambda: len(records.list_active()),
            "SDK": lambda: sum(1 for _ in container.list_blobs(name_starts_with="active/", include=["metadata"])),
        }
        found = in_turns({name: partial(_cpu_of, listing, count) for name, listing in ways.items()}, options.rounds)
    ratios = [ours / sdk for ours, sdk in zip(found["app"], found["SDK"], strict=True)]
    rows = [[name, spread(seconds)] for name, seconds in found.items()]
    text = f"The timer lists all active records once a second. CPU of one listing of {count:,} records:"
    return f"{text}\n\n{table(['', 'CPU s'], rows)}\n\nRatio: {spread(ratios)}."


def _cpu_of(listing: Callable[[], int], count: int) -> float:
    began = time.process_time()
    assert listing() == count
    return time.process_time() - began
