from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobClient, BlobLeaseClient, ContainerClient

from local.azurite import Azurite
from local.host.leases import DURATION, Lease
from local.host.listeners import Stop


@pytest.fixture
def blob(azurite: Azurite) -> Generator[BlobClient]:
    with ContainerClient.from_connection_string(azurite.connection_string, "azure-webjobs-hosts") as container:
        with contextlib.suppress(ResourceExistsError):
            container.create_container()
        yield container.get_blob_client(f"locks/{uuid4().hex}")


def test_one_of_two_hosts_holds_lease_until_release(blob: BlobClient) -> None:
    first, second = Lease(blob), Lease(blob)
    assert first.acquire()
    assert not second.acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    assert not first.held
    assert second.acquire()


def test_lease_expires_by_own_clock_and_can_be_renewed(blob: BlobClient) -> None:
    now = 1000.0
    lease = Lease(blob, clock=lambda: now)
    assert lease.acquire()
    now += DURATION - 1
    assert lease.held
    now += 1
    assert not lease.held
    assert lease.acquire()  # no other host acquired it meanwhile
    assert lease.held


def test_lease_of_another_host_cannot_be_renewed(blob: BlobClient) -> None:
    first, second = Lease(blob), Lease(blob)
    assert first.acquire()
    BlobLeaseClient(blob).break_lease(lease_break_period=0)
    assert second.acquire()
    assert not first.acquire()
    assert not first.held
    assert second.acquire()


def test_lease_on_deleted_blob_is_lost(blob: BlobClient) -> None:
    lease = Lease(blob)
    assert lease.acquire()
    BlobLeaseClient(blob).break_lease(lease_break_period=0)
    blob.delete_blob()
    assert not lease.acquire()
    assert not lease.held


def test_stop_releases_lease(blob: BlobClient) -> None:
    first, second = Lease(blob), Lease(blob)

    async def keep_until_held() -> None:
        stop = Stop()
        keeping = asyncio.create_task(first.keep(stop))
        async with asyncio.timeout(10):
            while not first.held:
                await asyncio.sleep(0.01)
        stop.set()
        await keeping

    asyncio.run(keep_until_held())
    assert not first.held
    assert second.acquire()
