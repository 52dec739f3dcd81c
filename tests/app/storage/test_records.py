"""Records on a real Azurite: what is written, who wins, and what is found in between."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, StorageStreamDownloader

from imagegen.app import new_generation_id
from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Generation, KeyClaim, Status, Versioned, done_key
from imagegen.settings import SettingsError, read_settings
from imagegen.storage.clients import client_options, open_storage
from imagegen.storage.records import BlobRecords
from local.azurite import Azurite
from tests.app.generations import ID, NOON, PROMPT, TOKEN, new, running, seconds, stored

DONE = running().changed(status=Status.SUCCEEDED, images=(stored(0), stored(1)))


@pytest.fixture
def container(azurite: Azurite) -> ContainerClient:
    """Named, not made: the store makes what it needs."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    return service.get_container_client(f"g-{uuid4().hex}")


@pytest.fixture
def store(azurite: Azurite, container: ContainerClient) -> BlobRecords:
    settings = read_settings(
        {
            "AzureWebJobsStorage": azurite.connection_string,
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
    return BlobRecords(open_storage(settings, connections=4), container.container_name)


def create(store: BlobRecords, generation: Generation) -> Versioned:
    created = store.create(generation)
    assert created is not None
    return created


def names(container: ContainerClient) -> list[str]:
    return list(container.list_blob_names())


FULL = running(
    faults=2,
    copy_attempts=1,
    images=(stored(0), None),
    metadata={"order": "4711"},
    key="0" * 64,
    due=NOON + seconds(0.25),
)


@pytest.mark.parametrize("generation", [new(), FULL, DONE])
def test_what_was_written_is_what_is_read(store: BlobRecords, generation: Generation) -> None:
    created = create(store, generation)
    assert store.read(ID) == generation
    assert store.read_active(ID) == created


def test_a_record_is_json_that_a_person_can_read(store: BlobRecords, container: ContainerClient) -> None:
    create(store, FULL.changed(request=FULL.request.model_copy(update={"prompt": "Zürich \U0001f5fc"})))
    blob = container.get_blob_client(f"active/{ID}")
    properties = blob.get_blob_properties()
    assert properties.content_settings.content_type == "application/json"
    assert properties.metadata == {"due": "2026-11-23T12:00:00.250Z", "status": "running"}
    content = blob.download_blob().readall()
    assert "Zürich \U0001f5fc".encode() in content
    assert json.loads(content)["operationLocation"] == FULL.operation_location


def test_nothing_is_found_where_nothing_is_not_even_a_container(store: BlobRecords) -> None:
    assert store.read(ID) is None
    assert store.read_active(ID) is None
    assert store.list_active() == []
    assert store.count_active() == 0
    store.drop_active(ID, '"0x1"')
    store.drop_key("0", "0")


def test_our_own_write_that_was_sent_twice_is_no_conflict(store: BlobRecords) -> None:
    first = create(store, new()).etag
    second = store.save(running(), first)
    assert store.save(running(), first) == second  # the SDK, after the answer to the first was lost


def test_storage_that_is_silent_is_given_up_soon() -> None:
    options = client_options(1)
    config = options["transport"].connection_config
    assert (config.timeout, config.read_timeout) == (5, 30)


def test_a_write_to_a_record_that_somebody_else_wrote_is_a_conflict(store: BlobRecords) -> None:
    first = create(store, new()).etag
    second = store.save(running(), first)
    assert second != first
    for etag in (first, '"0x8D0000000000000"'):
        with pytest.raises(ConflictError):
            store.save(new(faults=1), etag)
    assert store.read_active(ID) == Versioned(running(), second)


def test_a_write_to_a_record_that_is_gone_is_a_conflict_and_does_not_bring_it_back(store: BlobRecords) -> None:
    etag = create(store, new()).etag
    store.drop_active(ID, etag)
    with pytest.raises(ConflictError):
        store.save(running(), etag)
    assert store.read(ID) is None


def test_a_listing_has_the_etag_and_the_due_of_every_write(store: BlobRecords) -> None:
    etag = create(store, new()).etag
    [entry] = store.list_active()
    assert (entry.id, entry.etag, entry.due, entry.status) == (ID, etag, NOON, "notRunning")
    etag = store.save(running(due=NOON + seconds(7.5)), etag)
    [entry] = store.list_active()
    assert (entry.etag, entry.due, entry.status) == (etag, NOON + seconds(7.5), "running")
    assert store.save(running(faults=1), entry.etag)  # an ETag from a listing is as good as one from a write


@pytest.mark.parametrize("metadata", [{}, {"due": ""}, {"due": "soon"}, {"due": "2026-11-23T12:00:00"}])
def test_a_record_without_a_due_that_can_be_read_hides_no_other(
    store: BlobRecords, container: ContainerClient, metadata: dict[str, str]
) -> None:
    create(store, new())
    container.upload_blob("active/zzz", b"{}", metadata=metadata)
    ours, theirs = store.list_active()
    assert (ours.id, theirs.id) == (ID, "zzz")
    assert theirs.due <= NOON


def test_two_records_of_one_id_are_one_and_it_is_clear_whose(store: BlobRecords) -> None:
    created = create(store, new())
    assert store.create(new()) == created  # ours: an answer was lost, and the SDK tried again
    assert store.create(new(token="another")) is None


def test_the_first_outcome_is_the_true_one(store: BlobRecords) -> None:
    etag = create(store, running()).etag
    canceled = running().changed(status=Status.CANCELED)
    assert store.write_outcome(DONE) == DONE
    assert store.write_outcome(canceled) == DONE
    assert store.write_outcome(DONE) == DONE
    assert store.read(ID) == DONE  # from now on, though the active record is still there
    store.drop_active(ID, etag)
    assert store.read(ID) == DONE
    assert store.read_active(ID) is None


def test_of_outcomes_at_the_same_moment_one_is_true_for_all(store: BlobRecords) -> None:
    create(store, running())
    outcomes = [running().changed(status=status) for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)] * 2
    together = Barrier(len(outcomes))

    def write_outcome(outcome: Generation) -> Generation | None:
        together.wait()
        return store.write_outcome(outcome)

    with ThreadPoolExecutor(len(outcomes)) as pool:
        seen = list(pool.map(write_outcome, outcomes))
    assert len({found.status for found in seen if found}) == 1
    assert seen[0] == store.read(ID)


def test_an_active_record_is_dropped_only_as_it_was_seen(store: BlobRecords) -> None:
    seen = create(store, running()).etag
    written = store.save(running(copy_attempts=1), seen)
    store.drop_active(ID, seen)
    assert store.read_active(ID) is not None
    store.drop_active(ID, written)
    assert store.read_active(ID) is None


def test_a_reader_never_misses_a_record_on_its_way_to_done(store: BlobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    etag = create(store, running()).etag
    download: Callable[..., StorageStreamDownloader[bytes]] = ContainerClient.download_blob
    asked: list[str] = []

    def moving(container: ContainerClient, name: str) -> StorageStreamDownloader[bytes]:
        if len(asked) == 1:  # it moves after the first look, at done/, and before the second, at active/
            store.write_outcome(DONE)
            store.drop_active(ID, etag)
        asked.append(name.partition("/")[0])
        return download(container, name)

    monkeypatch.setattr(ContainerClient, "download_blob", moving)
    assert store.read(ID) == DONE
    assert asked == ["done", "active", "done"]


def test_what_was_deleted_is_gone_and_stays_gone(store: BlobRecords, container: ContainerClient) -> None:
    etag = create(store, running()).etag
    store.write_outcome(DONE)
    store.drop_active(ID, etag)
    store.write_tombstone(ID)
    store.write_tombstone(ID)
    assert store.read(ID) is None
    assert store.write_outcome(DONE) is None  # a worker that comes late
    assert store.read(ID) is None
    [name] = names(container)
    tombstone = container.download_blob(name).readall()
    for secret in (PROMPT, TOKEN):
        assert secret.encode() not in tombstone


def test_the_first_claim_of_a_key_counts(store: BlobRecords) -> None:
    first, second = KeyClaim(id=ID, digest="1"), KeyClaim(id="other", digest="2")
    assert store.claim_key("k", first) == first
    assert store.claim_key("k", second) == first
    store.drop_key("k", "other")
    assert store.claim_key("k", second) == first, "it stands for the first, whoever deletes another"
    store.drop_key("k", ID)
    assert store.claim_key("k", second) == second


def test_finished_records_sort_newest_first() -> None:
    ids = [new_generation_id(NOON + seconds(after)) for after in (0, 0.001, 1, 86_400, 3_000_000_000)]
    keys = [done_key(generation_id) for generation_id in ids]
    assert sorted(keys, reverse=True) == keys
    assert len({len(key) for key in keys}) == 1


def test_the_count_is_kept_for_a_while_and_grows_with_what_is_created_here(
    azurite: Azurite, container: ContainerClient
) -> None:
    now = [0.0]
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    store = BlobRecords(service, container.container_name, monotonic=lambda: now[0])
    assert store.count_active() == 0
    create(store, new())
    assert store.count_active() == 1
    container.upload_blob("active/another", b"{}")  # another instance's
    assert store.count_active() == 1
    now[0] = 11
    assert store.count_active() == 2


def test_storage_that_refuses_us_is_unavailable_and_says_so_without_a_secret(
    azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = azurite.connection_string.replace("AccountKey=E", "AccountKey=F")
    store = BlobRecords(BlobServiceClient.from_connection_string(wrong), "generations")
    with caplog.at_level(logging.INFO, "imagegen"):
        for act in (
            lambda: store.create(new()),
            lambda: store.read(ID),
            store.list_active,
            lambda: store.write_tombstone(ID),
        ):
            with pytest.raises(StorageUnavailableError):
                act()
    said = [record.getMessage() for record in caplog.records if record.name == "imagegen"]
    assert [line.split(" error=")[0] for line in said] == [
        f"storage.unavailable doing='{doing}'"
        for doing in ("create record", "read record", "list records", "write_tombstone record")
    ]
    assert all("status=403" in line for line in said)
    for secret in (PROMPT, TOKEN, "AccountKey", ID):
        assert secret not in " ".join(said)


def test_a_connection_string_that_is_none_is_named_without_its_value() -> None:
    settings = read_settings(
        {
            "AzureWebJobsStorage": "s3cret",
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
    with pytest.raises(SettingsError, match=r"^AzureWebJobsStorage: is not a storage connection string$"):
        open_storage(settings, connections=1)
