"""Records on a real Azurite."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from requests import Response

from imagegen.app import new_generation_id
from imagegen.errors import ConflictError, StorageUnavailableError
from imagegen.generation import Generation, KeyClaim, Status, Versioned, done_key
from imagegen.lifecycle.ports import ActiveEntry, End
from imagegen.settings import SettingsError, read_settings
from imagegen.storage.blob_requests import BlobRequests
from imagegen.storage.clients import client_options, open_storage
from imagegen.storage.records import BlobRecords
from local.azurite import Azurite
from tests.app.generations import ID, NOON, PROMPT, TOKEN, new, running, seconds, stored

DONE = running().changed(status=Status.SUCCEEDED, images=(stored(0), stored(1)))


@pytest.fixture
def container(azurite: Azurite) -> ContainerClient:
    """A name; the records create the container."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    return service.get_container_client(f"g-{uuid4().hex}")


@pytest.fixture
def records(azurite: Azurite, container: ContainerClient) -> BlobRecords:
    settings = read_settings(
        {
            "AzureWebJobsStorage": azurite.connection_string,
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
    return BlobRecords(open_storage(settings, connections=4), container.container_name)


def create(records: BlobRecords, generation: Generation) -> Versioned:
    created = records.create(generation)
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
def test_record_is_read_as_it_was_written(records: BlobRecords, generation: Generation) -> None:
    created = create(records, generation)
    assert records.read(ID) == generation
    assert records.read_active(ID) == created


def test_record_is_readable_json_with_metadata(records: BlobRecords, container: ContainerClient) -> None:
    create(records, FULL.changed(request=FULL.request.model_copy(update={"prompt": "Zürich \U0001f5fc"})))
    blob = container.get_blob_client(f"active/{ID}")
    properties = blob.get_blob_properties()
    assert properties.content_settings.content_type == "application/json"
    assert properties.metadata == {"due": "2026-11-23T12:00:00.250Z", "status": "running"}
    content = blob.download_blob().readall()
    assert "Zürich \U0001f5fc".encode() in content
    assert json.loads(content)["operationLocation"] == FULL.operation_location


def test_reads_without_a_container_find_nothing(records: BlobRecords) -> None:
    assert records.read(ID) is None
    assert records.read_active(ID) is None
    assert records.list_active() == []
    assert records.count_active() == 0
    records.drop_active(ID, '"0x1"')
    records.drop_key("0", "0")


def test_repeated_write_is_not_a_conflict(records: BlobRecords) -> None:
    first = create(records, new()).etag
    second = records.save(running(), first)
    assert records.save(running(), first) == second  # as after a lost response


def test_claim_of_another_worker_is_a_conflict(records: BlobRecords) -> None:
    first = create(records, new()).etag
    records.save(new(calling=True, claim="a"), first)
    with pytest.raises(ConflictError):
        records.save(new(calling=True, claim="b"), first)


def test_client_has_short_timeouts() -> None:
    options = client_options(1)
    config = options["transport"].connection_config
    assert (config.timeout, config.read_timeout) == (5, 10)


def test_write_with_an_old_etag_is_a_conflict(records: BlobRecords) -> None:
    first = create(records, new()).etag
    second = records.save(running(), first)
    assert second != first
    for etag in (first, '"0x8D0000000000000"'):
        with pytest.raises(ConflictError):
            records.save(new(faults=1), etag)
    assert records.read_active(ID) == Versioned(running(), second)


def test_write_to_a_deleted_record_does_not_restore_it(records: BlobRecords) -> None:
    etag = create(records, new()).etag
    records.drop_active(ID, etag)
    with pytest.raises(ConflictError):
        records.save(running(), etag)
    assert records.read(ID) is None


def test_listing_has_the_etag_and_due_of_every_write(records: BlobRecords) -> None:
    etag = create(records, new()).etag
    [entry] = records.list_active()
    assert (entry.id, entry.etag, entry.due, entry.status) == (ID, etag, NOON, "notRunning")
    etag = records.save(running(due=NOON + seconds(7.5)), etag)
    [entry] = records.list_active()
    assert (entry.etag, entry.due, entry.status) == (etag, NOON + seconds(7.5), "running")
    assert records.save(running(faults=1), entry.etag)  # with an ETag from a listing


@pytest.mark.parametrize("metadata", [{}, {"due": ""}, {"due": "soon"}, {"due": "2026-11-23T12:00:00"}])
def test_record_with_a_malformed_due_is_listed_as_due(
    records: BlobRecords, container: ContainerClient, metadata: dict[str, str]
) -> None:
    create(records, new())
    container.upload_blob("active/zzz", b"{}", metadata=metadata)
    ours, theirs = records.list_active()
    assert (ours.id, theirs.id) == (ID, "zzz")
    assert theirs.due <= NOON


ODD = "our images/2? 100 % f\u00fcr \u2603&<x>"


def test_listing_says_what_a_record_waits_for(records: BlobRecords) -> None:
    etag = create(records, new(model=ODD)).etag
    [entry] = records.list_active()
    assert (entry.waits_for, entry.queued, entry.deadline) == (ODD, False, NOON + seconds(3_600))
    etag = records.save(new(model=ODD, queued=True), etag)
    [entry] = records.list_active()
    assert (entry.waits_for, entry.queued) == (ODD, True)
    etag = records.save(new(model=ODD, calling=True, claim="c"), etag)
    [entry] = records.list_active()
    assert (entry.waits_for, entry.queued, entry.deadline) == (None, False, None)
    records.save(running(), etag)
    [entry] = records.list_active()
    assert entry.waits_for is None


def test_waiting_records_are_counted_by_model(azurite: Azurite, container: ContainerClient) -> None:
    now = [0.0]
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    records = BlobRecords(service, container.container_name, monotonic=lambda: now[0])
    etag = create(records, new(model=ODD)).etag
    create(records, new(id="2", model=ODD))
    create(records, new(id="3", model="other"))
    create(records, running(id="4"))
    assert [records.count_waiting(model) for model in (ODD, "other", "none")] == [2, 1, 0]
    create(records, new(id="5", model=ODD))
    assert records.count_waiting(ODD) == 3  # its own records at once
    records.save(new(model=ODD, calling=True, claim="c"), etag)
    now[0] = 11
    assert [records.count_waiting(model) for model in (ODD, "other")] == [2, 1]
    assert records.count_active() == 5


def test_repeated_create_needs_the_same_token(records: BlobRecords) -> None:
    created = create(records, new())
    assert records.create(new()) == created  # as after a lost response
    assert records.create(new(token="another")) is None


def test_first_outcome_wins(records: BlobRecords) -> None:
    etag = create(records, running()).etag
    canceled = running().changed(status=Status.CANCELED)
    assert records.write_outcome(DONE) == DONE
    assert records.write_outcome(canceled) == DONE
    assert records.write_outcome(DONE) == DONE
    assert records.read(ID) == DONE  # although the active record still exists
    records.drop_active(ID, etag)
    assert records.read(ID) == DONE
    assert records.read_active(ID) is None


def test_parallel_outcomes_have_one_winner(records: BlobRecords) -> None:
    create(records, running())
    outcomes = [running().changed(status=status) for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED)] * 2
    together = Barrier(len(outcomes))

    def write_outcome(outcome: Generation) -> Generation | None:
        together.wait()
        return records.write_outcome(outcome)

    with ThreadPoolExecutor(len(outcomes)) as pool:
        seen = list(pool.map(write_outcome, outcomes))
    assert len({found.status for found in seen if found}) == 1
    assert seen[0] == records.read(ID)


def test_active_record_is_deleted_only_with_its_etag(records: BlobRecords) -> None:
    seen = create(records, running()).etag
    written = records.save(running(copy_attempts=1), seen)
    records.drop_active(ID, seen)
    assert records.read_active(ID) is not None
    records.drop_active(ID, written)
    assert records.read_active(ID) is None


def test_reader_finds_a_record_that_moves_to_done(records: BlobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    etag = create(records, running()).etag
    send = BlobRequests.send
    asked: list[str] = []

    def moving(requests: BlobRequests, method: str, name: str = "", **options: Any) -> Response:
        if method == "GET":
            asked.append(name.partition("/")[0])
            if len(asked) == 2:  # the record moves between the reads of done/ and active/
                records.write_outcome(DONE)
                records.drop_active(ID, etag)
        return send(requests, method, name, **options)

    monkeypatch.setattr(BlobRequests, "send", moving)
    assert records.read(ID) == DONE
    assert asked == ["done", "active", "done"]


def test_deleted_record_stays_deleted(records: BlobRecords, container: ContainerClient) -> None:
    etag = create(records, running()).etag
    records.write_outcome(DONE)
    records.drop_active(ID, etag)
    records.write_tombstone(ID)
    records.write_tombstone(ID)
    assert records.read(ID) is None
    assert records.write_outcome(DONE) is None  # a late worker
    assert records.read(ID) is None
    [name] = names(container)
    tombstone = container.download_blob(name).readall()
    for secret in (PROMPT, TOKEN):
        assert secret.encode() not in tombstone


def test_first_claim_of_a_key_wins(records: BlobRecords) -> None:
    first, second = KeyClaim(id=ID, digest="1"), KeyClaim(id="other", digest="2")
    assert records.claim_key("k", first) == first
    assert records.claim_key("k", second) == first
    records.drop_key("k", "other")
    assert records.claim_key("k", second) == first, "the key belongs to the first generation"
    records.drop_key("k", ID)
    assert records.claim_key("k", second) == second


def test_key_is_read_without_a_claim(records: BlobRecords) -> None:
    assert records.read_key("k") is None  # the container does not exist
    claim = records.claim_key("k", KeyClaim(id=ID, digest="1"))
    assert records.read_key("k") == claim
    assert records.read_key("other") is None
    records.drop_key("k", ID)
    assert records.read_key("k") is None


def test_end_is_the_outcome_or_a_tombstone(records: BlobRecords) -> None:
    assert records.read_end(ID) is None
    create(records, running())
    assert records.read_end(ID) is None
    records.write_outcome(DONE)
    assert records.read_end(ID) == End(DONE)
    records.write_tombstone(ID)
    assert records.read_end(ID) == End(None)


def test_finished_records_sort_newest_first() -> None:
    ids = [new_generation_id(NOON + seconds(after)) for after in (0, 0.001, 1, 86_400, 3_000_000_000)]
    keys = [done_key(generation_id) for generation_id in ids]
    assert sorted(keys, reverse=True) == keys
    assert len({len(key) for key in keys}) == 1


def test_count_is_cached_and_includes_own_records(azurite: Azurite, container: ContainerClient) -> None:
    now = [0.0]
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    records = BlobRecords(service, container.container_name, monotonic=lambda: now[0])
    assert records.count_active() == 0
    create(records, new())
    assert records.count_active() == 1
    container.upload_blob("active/another", b"{}")  # of another instance
    assert records.count_active() == 1
    now[0] = 11
    assert records.count_active() == 2


def test_burst_of_counts_makes_one_listing(records: BlobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    create(records, new())
    listings: list[int] = []
    together, overlapped = Barrier(8), Event()

    def list_slowly() -> list[ActiveEntry]:
        listings.append(1)
        if len(listings) > 1:
            overlapped.set()
        overlapped.wait(0.2)  # for another listing, which must not come
        return listing()

    def count(_: int) -> int:
        together.wait()
        return records.count_active()

    listing = records.list_active
    monkeypatch.setattr(records, "list_active", list_slowly)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count, range(8))) == [1] * 8
    assert len(listings) == 1


def test_failed_count_fails_for_all_who_waited(records: BlobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    listings: list[int] = []
    begun, waiting = Event(), Event()

    def fail() -> list[ActiveEntry]:
        listings.append(1)
        begun.set()
        waiting.wait(10)
        raise StorageUnavailableError("list records")

    def count() -> None:
        with pytest.raises(StorageUnavailableError):
            records.count_active()

    def count_later() -> None:
        begun.wait(10)
        with monkeypatch.context() as patched:  # asked before the failure, and waits for the lock
            patched.setattr(records, "_recent_count", lambda: waiting.set())
            count()

    monkeypatch.setattr(records, "list_active", fail)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(count), pool.submit(count_later)]:
            done.result()
    assert len(listings) == 1
    count()  # asked after the failure: it tries again
    assert len(listings) == 2


def test_refused_access_is_unavailable_and_logs_no_secret(azurite: Azurite, caplog: pytest.LogCaptureFixture) -> None:
    wrong = azurite.connection_string.replace("AccountKey=E", "AccountKey=F")
    records = BlobRecords(BlobServiceClient.from_connection_string(wrong), "generations")
    with caplog.at_level(logging.INFO, "imagegen"):
        for act in (
            lambda: records.create(new()),
            lambda: records.read(ID),
            records.list_active,
            lambda: records.write_tombstone(ID),
        ):
            with pytest.raises(StorageUnavailableError):
                act()
    said = [record.getMessage() for record in caplog.records if record.name == "imagegen"]
    assert [line.split(" error=")[0] for line in said] == [
        f"storage.unavailable doing='{doing}'"
        for doing in ("create record", "read record", "list records", "write tombstone")
    ]
    assert all("status=403" in line for line in said)
    assert "code=AuthorizationFailure" in said[2]  # the code of storage
    for secret in (PROMPT, TOKEN, "AccountKey", ID):
        assert secret not in " ".join(said)


def test_invalid_connection_string_is_named_but_not_shown() -> None:
    settings = read_settings(
        {
            "AzureWebJobsStorage": "s3cret",
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
    with pytest.raises(SettingsError, match=r"^AzureWebJobsStorage: is not a connection string .+\.$") as caught:
        open_storage(settings, connections=1)
    assert "s3cret" not in str(caught.value)


def test_listed_operation_that_this_process_wrote_is_not_read(
    records: BlobRecords, container: ContainerClient, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = records.save(running(), create(records, new()).etag)
    [entry] = records.list_active()
    with monkeypatch.context() as patched:
        patched.setattr(records, "read_active", Mock(side_effect=AssertionError))
        assert records.read_listed(entry) == Versioned(running(), written)
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    other = BlobRecords(service, container.container_name)
    changed = other.save(running().changed(faults=1), written)
    [entry] = records.list_active()
    assert records.read_listed(entry) == Versioned(running().changed(faults=1), changed)
    other.drop_active(ID, changed)
    assert records.read_listed(entry) is None
