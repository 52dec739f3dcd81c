"""The list of all generations, on Azurite."""

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


class House:
    def __init__(self, azurite: Azurite, container: str) -> None:
        client = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.store = BlobRecords(client, container)
        self.listing = BlobListing(client, container, self.store, threads=4)

    def add(self, minute: float, status: Status = Status.SUCCEEDED) -> str:
        """A generation that was started at this minute."""
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
            self.store.write_outcome(generation)
        else:
            self.store.create(generation)
        return generation.id

    def pages(self, size: int, status: Status | None = None, *, between: Callable[[], object] = int) -> list[list[str]]:
        """Every page's ids, from the first to the last."""
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
def house(azurite: Azurite, request: pytest.FixtureRequest) -> House:
    return House(azurite, f"listing{abs(hash(request.node.nodeid)):x}"[:40])


def test_an_app_that_never_started_one_has_an_empty_list(house: House) -> None:
    assert house.pages(20) == [[]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_active_and_finished_come_newest_first_each_once(house: House, size: int) -> None:
    statuses = [Status.SUCCEEDED, Status.RUNNING, Status.FAILED, Status.NOT_RUNNING, Status.CANCELED] * 2
    added = [house.add(minute, status) for minute, status in enumerate(statuses)]

    pages = house.pages(size)
    assert flat(pages) == added[::-1]
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert pages[-1], "the last page must not be an empty one"


def test_pages_stay_as_they_are_while_generations_arrive_and_finish(house: House) -> None:
    added = [house.add(minute, Status.RUNNING if minute % 3 else Status.SUCCEEDED) for minute in range(12)]
    minutes = iter(range(100, 200))

    def meanwhile() -> None:
        house.add(next(minutes))
        house.add(next(minutes), Status.RUNNING)
        for entry in house.store.list_active()[:1]:
            current = house.store.read_active(entry.id)
            assert current is not None
            house.store.write_outcome(current.generation.changed(status=Status.SUCCEEDED))
            house.store.drop_active(entry.id, current.etag)

    assert flat(house.pages(3, between=meanwhile)) == added[::-1]


@pytest.mark.parametrize("status", list(Status))
def test_a_status_shows_these_alone(house: House, status: Status) -> None:
    added = {one: [house.add(10 * minute + place, one) for minute in range(3)] for place, one in enumerate(Status)}

    assert flat(house.pages(2, status)) == added[status][::-1]


def test_a_record_that_is_in_both_places_is_shown_once_as_it_ended(house: House) -> None:
    running = house.add(1, Status.RUNNING)
    current = house.store.read_active(running)
    assert current is not None
    house.store.write_outcome(current.generation.changed(status=Status.CANCELED))  # and here the process died

    page = house.listing.page(size=20, status=None, after=None)
    assert [(one.id, one.status) for one in page.generations] == [(running, Status.CANCELED)]


def test_what_was_deleted_is_not_shown(house: House) -> None:
    kept, deleted = house.add(1), house.add(2)
    house.store.write_tombstone(deleted)

    assert house.pages(20) == [[kept]]


def test_a_long_scan_stops_and_says_where_to_go_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_SCANNED", 4)
    monkeypatch.setattr(listing, "_LISTED_AT_ONCE", 3)
    canceled = house.add(0, Status.CANCELED)
    for minute in range(1, 11):
        house.add(minute)

    pages = house.pages(2, Status.CANCELED)
    assert flat(pages) == [canceled]
    assert len(pages) > 1


@pytest.mark.parametrize("after", ["", "x", "bm90IGpzb24", "W10", "WzEsMl0", "é", "W1tdLFtdXQ", "[" * 10_000])
def test_a_position_that_is_not_ours_is_refused(house: House, after: str) -> None:
    with pytest.raises(RequestError) as refused:
        house.listing.page(size=20, status=None, after=after)
    assert (as_http_error(refused.value).status, refused.value.problems[0].field) == (400, "after")


def test_a_page_says_where_the_next_begins_only_if_there_is_one(house: House) -> None:
    house.add(1)
    house.add(2)

    assert isinstance(house.listing.page(size=2, status=None, after=None), Page)
    assert house.listing.page(size=2, status=None, after=None).next is None
    assert house.listing.page(size=1, status=None, after=None).next
