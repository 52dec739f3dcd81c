"""The list of all generations, newest first, in pages."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import Generation, Status, done_key, is_generation_id
from imagegen.storage.clients import storage_errors
from imagegen.threads import ContextPool

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from imagegen.lifecycle.ports import ActiveEntry

_LISTED_AT_ONCE: Final = 250
_MOST_SCANNED: Final = 5_000
"""Finished records that one request scans. A page may then be shorter, and have a link to the next."""


@dataclass(frozen=True, slots=True)
class Page:
    generations: tuple[Generation, ...]
    next: str | None
    """The position of the next page; None on the last page."""


class Records(Protocol):
    def list_active(self) -> list[ActiveEntry]: ...
    def read(self, generation_id: str) -> Generation | None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    """``done_key``, by which the list is sorted."""
    id: str
    status: str
    marker: str | None
    """Continuation token of the Blob Storage listing that returns this record and those after it."""


class BlobListing:
    """Merges the active records with the finished ones, which Blob Storage sorts newest first."""

    def __init__(self, service: BlobServiceClient, container: str, records: Records, *, threads: int) -> None:
        self._container = service.get_container_client(container)
        self._records = records
        self._threads = threads

    def page(self, *, size: int, status: Status | None, after: str | None) -> Page:
        """The next `size` generations.

        Parameters
        ----------
        after
            ``next`` of the page before. New generations do not shift the following pages.

        Raises
        ------
        RequestError
            If `after` is not a ``next`` of an earlier page.
        """
        position, marker = _read_position(after)
        # Active first: a record that moves to done/ between the two listings is then seen twice instead of never.
        active = sorted(self._active(position, marker), key=_by_key)
        scan = _Scan(self._done(position, marker))
        chosen, last = _choose(active, scan, size, status)
        with ContextPool(self._threads, "list") as pool:
            read = list(pool.map(self._records.read, [entry.id for entry in chosen]))
        # Filter again: records may have changed since the listing.
        generations = tuple(generation for generation in read if generation and status in (None, generation.status))
        return Page(generations, _write_position(last.key, scan.marker) if last else None)

    def _active(self, position: str, marker: str | None) -> Iterator[_Entry]:
        for entry in self._records.list_active():
            if is_generation_id(entry.id) and (key := done_key(entry.id)) > position:
                yield _Entry(key, entry.id, entry.status, marker)

    def _done(self, position: str, marker: str | None) -> Iterator[_Entry]:
        pages = cast("Any", self._container.list_blobs)(
            name_starts_with="done/", include=["metadata"], results_per_page=_LISTED_AT_ONCE
        ).by_page(marker)
        with storage_errors("list done records"):
            try:
                while True:
                    marker = pages.continuation_token
                    for blob in next(pages, ()):
                        key = blob.name.removeprefix("done/")
                        if key > position:
                            yield _Entry(key, key.partition("-")[2], _status(blob), marker)
                    if not pages.continuation_token:
                        return
            except ResourceNotFoundError:
                return  # no container
            except HttpResponseError as error:
                if error.status_code == 400:
                    raise _bad_position() from None
                raise


class _Scan:
    """Yields the finished records, and counts them."""

    def __init__(self, entries: Iterator[_Entry]) -> None:
        self._entries = entries
        self.count = 0
        self.marker: str | None = None

    def __iter__(self) -> Iterator[_Entry]:
        for entry in self._entries:
            self.count += 1
            self.marker = entry.marker
            yield entry


def _choose(active: list[_Entry], scan: _Scan, size: int, status: Status | None) -> tuple[list[_Entry], _Entry | None]:
    """The entries of a page, and the last entry that was compared; None if no entries are left."""
    chosen: list[_Entry] = []
    last = None
    for _, same_record in groupby(heapq.merge(active, scan, key=_by_key), key=_by_key):
        *_, entry = same_record  # of two entries of a record, that in done/ is newer
        if len(chosen) == size or scan.count > _MOST_SCANNED:
            return chosen, last
        last = entry
        if entry.status != _DELETED and status in (None, entry.status):
            chosen.append(entry)
    return chosen, None


def _by_key(entry: _Entry) -> str:
    return entry.key


_DELETED: Final = "deleted"


def _status(blob: Any) -> str:
    metadata = cast("dict[str, str]", blob.metadata or {})
    return metadata.get("status", "")


def _write_position(key: str, marker: str | None) -> str:
    return base64.urlsafe_b64encode(json.dumps([key, marker]).encode()).decode().rstrip("=")


def _read_position(text: str | None) -> tuple[str, str | None]:
    if text is None:
        return "", None
    try:
        key, marker = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError, RecursionError):
        raise _bad_position() from None
    if not isinstance(key, str) or not isinstance(marker, str | None):
        raise _bad_position()
    return key, marker


def _bad_position() -> RequestError:
    return RequestError.for_fields([FieldProblem("after", "is not from a nextLink. Use nextLink unchanged.")])
