"""The whole app as processes (host, emulator, Azurite), called over HTTP."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient, BlobServiceClient

from imagegen.generation import format_time
from local.azurite import Azurite
from local.stack import Stack, isolated_stack

PATIENCE = 300.0
"""Seconds. Only a failing test waits so long."""


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    with isolated_stack("--speed", "0.2", POLL_SCHEDULE="*/2 * * * * *") as running:
        yield running


def until[T](look: Callable[[], T | None], *, what: str) -> T:
    """Repeat `look` until it returns something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    pytest.fail(f"No {what} in {PATIENCE:.0f} s")


def start(base_url: str, prompt: str, **fields: Any) -> requests.Response:
    """POST a generation and check that the answer is 202."""
    answer = requests.post(f"{base_url}/generations", json={"prompt": prompt, **fields}, timeout=30)
    assert answer.status_code == 202, answer.text
    return answer


def result(location: str) -> requests.Response:
    """Follow Location until it is no longer 202."""

    def look() -> requests.Response | None:
        answer = requests.get(location, timeout=30)
        return None if answer.status_code == 202 else answer

    return until(look, what="result")


def expire_claims(storage: Azurite, generation_id: str) -> None:
    """End what a killed host holds: its lease on the timer, and its claim on this generation."""
    client = BlobServiceClient.from_connection_string(storage.connection_string)
    locks = client.get_container_client("azure-webjobs-hosts")
    for lock in locks.list_blobs(name_starts_with="locks/"):
        with contextlib.suppress(HttpResponseError):  # not leased
            BlobLeaseClient(locks.get_blob_client(lock.name)).break_lease(0)
    blob = client.get_blob_client("generations", f"active/{generation_id}")
    past = format_time(datetime(2026, 1, 1, tzinfo=UTC))
    content = json.loads(blob.download_blob().readall()) | {"due": past}
    metadata = (blob.get_blob_properties().metadata or {}) | {"due": past}
    blob.upload_blob(json.dumps(content), overwrite=True, metadata=metadata)


def operations_of(stack: Stack) -> dict[str, Any]:
    """Return the counters of the emulator by operation id, which is the generation id."""
    return requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["by_operation"]
