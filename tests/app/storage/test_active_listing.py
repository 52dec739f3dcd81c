"""The listing of the active records, with the XML of storage. On Azurite: tests/app/storage/test_records.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest
from azure.core.exceptions import ServiceResponseError

from imagegen.storage.active_listing import ActiveListing
from imagegen.storage.blob_requests import BlobRequests


class Pages:
    """Storage that answers with these pages."""

    def __init__(self, *pages: str) -> None:
        self._pages = list(pages)
        self.queries: list[Mapping[str, str]] = []

    def send(self, _: str, *, query: Mapping[str, str]) -> SimpleNamespace:
        self.queries.append(query)
        return SimpleNamespace(content=self._pages.pop(0).encode())


def page(*names: str, marker: str = "") -> str:
    blobs = "".join(
        f"<Blob><Name>active/{name}</Name><Properties><Etag>0x1</Etag></Properties></Blob>" for name in names
    )
    return f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"


def listing(pages: Pages) -> ActiveListing:
    return ActiveListing(cast("BlobRequests", pages))


def test_listing_follows_the_marker() -> None:
    pages = Pages(page("1", "2", marker="active/3 &amp;"), page("3"))
    entries = list(listing(pages).entries("active/"))
    assert [(entry.id, entry.etag) for entry in entries] == [("1", '"0x1"'), ("2", '"0x1"'), ("3", '"0x1"')]
    assert pages.queries[1]["marker"] == "active/3 &"


@pytest.mark.parametrize("content", ["", "<html>", page("1")[:-20]])
def test_listing_that_is_cut_counts_as_an_outage(content: str) -> None:
    with pytest.raises(ServiceResponseError, match="not XML"):
        list(listing(Pages(content)).entries("active/"))


def test_listing_decodes_an_encoded_name() -> None:
    encoded = page("1").replace("<Name>active/1", '<Name Encoded="true">active%2Fa%01b')
    assert [entry.id for entry in listing(Pages(encoded)).entries("active/")] == ["a\x01b"]


def test_listing_of_the_version_before_has_no_model() -> None:
    [entry] = listing(Pages(page("1"))).entries("active/")
    assert (entry.waits_for, entry.queued, entry.deadline) == (None, False, None)


@pytest.mark.parametrize("deadline", ["", "soon"])
def test_waiting_record_with_a_malformed_deadline_has_none(deadline: str) -> None:
    metadata = f"<Metadata><waits_for>gpt</waits_for><deadline>{deadline}</deadline></Metadata>"
    [entry] = listing(Pages(page("1").replace("</Blob>", f"{metadata}</Blob>"))).entries("active/")
    assert (entry.waits_for, entry.deadline) == ("gpt", None)
