"""The list of all generations, on a real Azurite."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from azure.storage.blob import BlobServiceClient

from imagegen.app import new_generation_id
from imagegen.errors import RequestError
from imagegen.generation import Generation, GenerationRequest, Status
from imagegen.storage import listing
from imagegen.storage.listing import BlobListing, Page
from imagegen.storage.records import BlobRecords
from imagegen.web.http import as_http_error
from local.azurite import Azurite

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class ListedApp:
    def __init__(self, azurite: Azurite, container: str) -> None:
        client = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.records = BlobRecords(client, container)
        self.listing = BlobListing(client, container, self.records, threads=4)

    def add(self, minute: float, status: Status = Status.SUCCEEDED) -> str:
        """Add a generation that started at this minute."""
        now = NOON + timedelta(minutes=minute)
        generation = Generation(
            id=new_generation_id(now),
            token="t",
            created=now,
            last_action=now,
            deadline=now,
            due=now,
            status=status,
            request=GenerationRequest(prompt=f"minute {minute}"),
        )
        if status.is_terminal:
            self.records.write_outcome(generation)
        else:
            self.records.create(generation)
        return generation.id

    def pages(self, size: int, status: Status | None = None, *, between: Callable[[], object] = int) -> list[list[str]]:
        """The ids of every page."""
        pages, after = list[list[str]](), None
        while True:
            page = self.listing.page(size=size, status=status, after=after)
            pages.append([generation.id for generation in page.generations])
            if (after := page.next) is None:
                return pages
            between()


def flat(pages: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(pages))


@pytest.fixture
def app(azurite: Azurite, request: pytest.FixtureRequest) -> ListedApp:
    return ListedApp(azurite, f"listing{abs(hash(request.node.nodeid)):x}"[:40])


def test_list_without_a_container_is_empty(app: ListedApp) -> None:
    assert app.pages(20) == [[]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_active_and_finished_are_listed_once_newest_first(app: ListedApp, size: int) -> None:
    statuses = [Status.SUCCEEDED, Status.RUNNING, Status.FAILED, Status.NOT_RUNNING, Status.CANCELED] * 2
    added = [app.add(minute, status) for minute, status in enumerate(statuses)]

    pages = app.pages(size)
    assert flat(pages) == added[::-1]
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert pages[-1], "the last page must not be empty"


def test_pages_are_stable_while_generations_start_and_finish(app: ListedApp) -> None:
    added = [app.add(minute, Status.RUNNING if minute % 3 else Status.SUCCEEDED) for minute in range(12)]
    minutes = iter(range(100, 200))

    def meanwhile() -> None:
        app.add(next(minutes))
        app.add(next(minutes), Status.RUNNING)
        for entry in app.records.list_active()[:1]:
            current = app.records.read_active(entry.id)
            assert current is not None
            app.records.write_outcome(current.generation.changed(status=Status.SUCCEEDED))
            app.records.drop_active(entry.id, current.etag)

    assert flat(app.pages(3, between=meanwhile)) == added[::-1]


@pytest.mark.parametrize("status", list(Status))
def test_status_filter(app: ListedApp, status: Status) -> None:
    added = {one: [app.add(10 * minute + place, one) for minute in range(3)] for place, one in enumerate(Status)}

    assert flat(app.pages(2, status)) == added[status][::-1]


def test_record_in_active_and_done_is_listed_once(app: ListedApp) -> None:
    running = app.add(1, Status.RUNNING)
    current = app.records.read_active(running)
    assert current is not None
    app.records.write_outcome(current.generation.changed(status=Status.CANCELED))  # and then the process crashes

    page = app.listing.page(size=20, status=None, after=None)
    assert [(one.id, one.status) for one in page.generations] == [(running, Status.CANCELED)]


def test_deleted_generation_is_not_listed(app: ListedApp) -> None:
    kept, deleted = app.add(1), app.add(2)
    app.records.write_tombstone(deleted)

    assert app.pages(20) == [[kept]]


def test_long_scan_stops_with_a_link_to_the_next_page(app: ListedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_SCANNED", 4)
    monkeypatch.setattr(listing, "_LISTED_AT_ONCE", 3)
    canceled = app.add(0, Status.CANCELED)
    for minute in range(1, 11):
        app.add(minute)

    pages = app.pages(2, Status.CANCELED)
    assert flat(pages) == [canceled]
    assert len(pages) > 1


@pytest.mark.parametrize("after", ["", "x", "bm90IGpzb24", "W10", "WzEsMl0", "é", "W1tdLFtdXQ", "[" * 10_000])
def test_malformed_position_is_refused(app: ListedApp, after: str) -> None:
    with pytest.raises(RequestError) as refused:
        app.listing.page(size=20, status=None, after=after)
    assert (as_http_error(refused.value).status, refused.value.problems[0].field) == (400, "after")


def test_only_the_last_page_has_no_next(app: ListedApp) -> None:
    app.add(1)
    app.add(2)

    assert isinstance(app.listing.page(size=2, status=None, after=None), Page)
    assert app.listing.page(size=2, status=None, after=None).next is None
    assert app.listing.page(size=1, status=None, after=None).next
