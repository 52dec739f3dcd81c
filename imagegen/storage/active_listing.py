"""The listing of the active records.

``ContainerClient.list_blobs`` needs 3 s of CPU for 10,000 blobs, nearly all of it for objects that this app does not
use. This module sends the same request, and reads the XML itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote
from xml.etree import ElementTree

from azure.core.exceptions import ServiceResponseError

from imagegen.generation import parse_time
from imagegen.lifecycle.ports import ActiveEntry
from imagegen.storage.blob_requests import BlobRequests

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


class ActiveListing:
    """Lists the blobs under a prefix as active records. Thread-safe."""

    def __init__(self, requests: BlobRequests) -> None:
        self._requests = requests

    def entries(self, prefix: str) -> Iterator[ActiveEntry]:
        """All records under the prefix, by name. One request for each 5,000.

        Raises
        ------
        ResourceNotFoundError
            When the container does not exist.
        HttpResponseError
            When storage answers with another error.
        """
        marker = ""
        while True:
            try:
                page = ElementTree.fromstring(self._get(prefix, marker))  # noqa: S314 - from the app's own account
            except ElementTree.ParseError:
                raise ServiceResponseError("the listing is not XML") from None
            for blob in page.iter("Blob"):
                yield _entry(blob, prefix)
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return

    def _get(self, prefix: str, marker: str) -> bytes:
        query = {"restype": "container", "comp": "list", "include": "metadata", "prefix": prefix}
        if marker:
            query["marker"] = marker
        return self._requests.send("GET", query=query).content


def _entry(blob: ElementTree.Element, prefix: str) -> ActiveEntry:
    name = etag = ""
    metadata: dict[str, str] = {}
    for part in blob:  # faster than a search for each part
        match part.tag:
            case "Name":
                name = part.text or ""
                name = unquote(name) if part.get("Encoded") == "true" else name
            case "Properties":
                etag = (part.findtext("Etag") or "").strip('"')
            case "Metadata":
                metadata = {item.tag.lower(): item.text or "" for item in part}
            case _:
                pass
    waits_for = metadata.get("waits_for")
    return ActiveEntry(
        id=name.removeprefix(prefix),
        etag=f'"{etag}"',
        # A record without a valid time is due now, so that it does not stay unnoticed.
        due=parse_time(metadata.get("due", "")) or _EARLIEST,
        status=metadata.get("status", ""),
        waits_for=unquote(waits_for) if waits_for else None,
        queued="queued" in metadata,
        deadline=parse_time(metadata.get("deadline", "")) if waits_for else None,
    )
