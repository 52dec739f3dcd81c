"""The mark of a live slot on a real Azurite."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.lifecycle.live_slot import Mark
from imagegen.storage.live_slot import BlobLiveSlot
from imagegen.storage.records import BlobRecords
from local.azurite import Azurite
from tests.app.generations import NOON, new, seconds

LATER = NOON + seconds(60)


class Account:
    def __init__(self, azurite: Azurite) -> None:
        self.service = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.name = f"s-{uuid4().hex}"

    def slot(self) -> BlobLiveSlot:
        return BlobLiveSlot(self.service, self.name)

    @property
    def container(self) -> ContainerClient:
        return self.service.get_container_client(self.name)


@pytest.fixture
def account(azurite: Azurite) -> Account:
    """Its container does not exist yet."""
    return Account(azurite)


def write(slot: BlobLiveSlot) -> str:
    return slot.write(NOON)


def claim(slot: BlobLiveSlot) -> str:
    return slot.replace(None, NOON)


@pytest.mark.parametrize("mark", [write, claim])
def test_mark_of_one_instance_is_read_by_all(account: Account, mark: Callable[[BlobLiveSlot], str]) -> None:
    assert account.slot().read() is None
    etag = mark(account.slot())
    assert account.slot().read() == Mark(etag, NOON)


def test_mark_is_replaced_only_if_it_is_the_one_that_was_found(account: Account) -> None:
    slot = account.slot()
    slot.write(NOON)
    found = slot.read()
    slot.replace(found, LATER)
    for old in (found, None):
        with pytest.raises(ConflictError):
            slot.replace(old, NOON)
    after = slot.read()
    assert after
    assert after.until == LATER


def test_cleared_mark_says_that_no_slot_is_live(account: Account) -> None:
    slot = account.slot()
    slot.clear(slot.write(NOON))
    cleared = slot.read()
    assert cleared
    assert cleared.until is None
    slot.replace(cleared, LATER)


def test_clear_leaves_the_mark_of_another_slot(account: Account) -> None:
    early, timer = account.slot(), account.slot()
    etag = early.write(NOON)
    timer.write(LATER)
    early.clear(etag)
    found = early.read()
    assert found
    assert found.until == LATER


def test_deleted_mark_is_no_error(account: Account) -> None:
    slot = account.slot()
    etag = slot.write(NOON)
    account.container.delete_blob("slot")
    slot.clear(etag)
    assert slot.read() is None


def test_mark_is_no_record(account: Account) -> None:
    account.slot().write(NOON)
    records = BlobRecords(account.service, account.name)
    assert records.list_active() == []
    records.create(new())
    assert len(records.list_active()) == 1
    assert not any(name.startswith(("done/", "keys/")) for name in account.container.list_blob_names())


@pytest.mark.parametrize("until", ["", "soon", "2026-11-23T12:00:00"])
def test_malformed_mark_counts_as_no_slot(account: Account, until: str) -> None:
    slot = account.slot()
    slot.write(NOON)
    account.container.get_blob_client("slot").set_blob_metadata({"until": until})
    found = slot.read()
    assert found
    assert found.until is None


def clear(slot: BlobLiveSlot) -> None:
    slot.clear("1")


@pytest.mark.parametrize(
    ("use", "doing"),
    [(BlobLiveSlot.read, "read slot"), (claim, "claim slot"), (write, "write slot"), (clear, "clear slot")],
)
def test_unreachable_storage_is_unavailable(use: Callable[[BlobLiveSlot], object], doing: str) -> None:
    service = BlobServiceClient("http://127.0.0.1:1/a", credential="c2VjcmV0")
    with pytest.raises(StorageUnavailableError, match=f"^{doing}$"):
        use(BlobLiveSlot(service, "b"))
