"""CPU of one listing of 10,000 active records: the app's own, and that of the SDK: ``python -m bench.listing``.

The result is in docs/benchmarks.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from azure.storage.blob import BlobServiceClient

from imagegen.storage.records import BlobRecords
from local.azurite import azurite

COUNT, ROUNDS = 10_000, 5


def main() -> None:
    with azurite() as storage:
        service = BlobServiceClient.from_connection_string(storage.connection_string)
        container = service.get_container_client("generations")
        container.create_container()

        def create(number: int) -> None:
            metadata = {"due": "2026-11-25T12:00:00.000Z", "status": "running"}
            container.upload_blob(f"active/{number:036d}", b"{}", metadata=metadata)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(create, range(COUNT)))
        records = BlobRecords(service, "generations")
        ways: dict[str, Callable[[], int]] = {
            "app": lambda: len(records.list_active()),
            "SDK": lambda: sum(1 for _ in container.list_blobs(name_starts_with="active/", include=["metadata"])),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):  # in turns: both see the same load of the machine
            for name, listing in ways.items():
                seconds[name].append(_cpu_of(listing))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in seconds.items():
        print(f"{name}: {medians[name]:.2f} s ({min(found):.2f} to {max(found):.2f})")
    print(f"ratio: {medians['app'] / medians['SDK']:.2f}")


def _cpu_of(listing: Callable[[], int]) -> float:
    began = time.process_time()
    assert listing() == COUNT
    return time.process_time() - began


if __name__ == "__main__":
    main()
