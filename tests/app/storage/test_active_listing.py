"""The listing of the active records, with the XML of storage. On Azurite: tests/app/storage/test_records.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobServiceClient

from imagegen.storage.active_listing import ActiveListing


class Pages:
    """A pipeline that answers with these pages."""

    def __init__(self, *pages: str) -> None:
        self._pages = list(pages)
        self.urls: list[str] = []

    def send_request(self, request: HttpRequest) -> SimpleNamespace:
        self.urls.append(request.url)
        return SimpleNamespace(status_code=200, content=self._pages.pop(0).encode())


def page(*names: str, marker: str = "") -> str:
    blobs = "".join(
        f"<Blob><Name>active/{name}</Name><Properties><Etag>0x1</Etag></Properties></Blob>" for name in names
    )
    return f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"


def listing(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> ActiveListing:
    service = BlobServiceClient("https://a.blob.core.windows.net", credential="c2VjcmV0")
    found = ActiveListing(service, "generations")
    monkeypatch.setattr(found, "_client", pages)
    return found


def test_listing_follows_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Pages(page("1", "2", marker="active/3 &amp;"), page("3"))
    entries = list(listing(pages, monkeypatch).entries("active/"))
    assert [(entry.id, entry.etag) for entry in entries] == [("1", '"0x1"'), ("2", '"0x1"'), ("3", '"0x1"')]
    assert "marker=active%2F3+%26" in pages.urls[1]


@pytest.mark.parametrize("content", ["", "<html>", page("1")[:-20]])
def test_listing_that_is_cut_counts_as_an_outage(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceResponseError, match="not XML"):
        list(listing(Pages(content), monkeypatch).entries("active/"))


def test_listing_decodes_an_encoded_name(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = page("1").replace("<Name>active/1", '<Name Encoded="true">active%2Fa%01b')
    assert [entry.id for entry in listing(Pages(encoded), monkeypatch).entries("active/")] == ["a\x01b"]


def test_listing_of_the_version_before_has_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    [entry] = listing(Pages(page("1")), monkeypatch).entries("active/")
    assert (entry.waits_for, entry.queued, entry.deadline) == (None, False, None)


@pytest.mark.parametrize("deadline", ["", "soon"])
def test_waiting_record_with_a_malformed_deadline_has_none(deadline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = f"<Metadata><waits_for>gpt</waits_for><deadline>{deadline}</deadline></Metadata>"
    [entry] = listing(Pages(page("1").replace("</Blob>", f"{metadata}</Blob>")), monkeypatch).entries("active/")
    assert (entry.waits_for, entry.deadline) == ("gpt", None)
