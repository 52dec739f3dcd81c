from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobClient, BlobLeaseClient, ContainerClient

from local.host.leases import DURATION, Lease

if TYPE_CHECKING:
    from collections.abc import Generator

    from local.azurite import Azurite


@pytest.fixture
def blob(azurite: Azurite) -> Generator[BlobClient]:
    with ContainerClient.from_connection_string(azurite.connection_string, "azure-webjobs-hosts") as container:
        with contextlib.suppress(ResourceExistsError):
            container.create_container()
        yield container.get_blob_client(f"locks/{uuid4().hex}")


def test_one_of_two_holds_it_until_it_is_released(blob: BlobClient) -> None:
    first, second = Lease(blob), Lease(blob)
    assert first.acquire()
    assert not second.acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    assert not first.held
    assert second.acquire()


def test_a_lease_that_was_not_renewed_in_time_is_not_held_by_our_own_clock(blob: BlobClient) -> None:
    now = 1000.0
    lease = Lease(blob, clock=lambda: now)
    assert lease.acquire()
    now += DURATION - 1
    assert lease.held
    now += 1
    assert not lease.held
    assert lease.renew()  # nobody took it meanwhile
    assert lease.held


def test_a_stolen_lease_cannot_be_renewed(blob: BlobClient) -> None:
    first, second = Lease(blob), Lease(blob)
    assert first.acquire()
    BlobLeaseClient(blob).break_lease(lease_break_period=0)
    assert second.acquire()
    assert not first.renew()
    assert not first.held
    assert second.renew()


def test_a_lease_on_a_deleted_blob_is_lost(blob: BlobClient) -> None:
    lease = Lease(blob)
    assert lease.acquire()
    BlobLeaseClient(blob).break_lease(lease_break_period=0)
    blob.delete_blob()
    assert not lease.renew()
