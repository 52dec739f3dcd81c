"""All generations, newest first, a page at a time."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import Generation, Status, done_key, is_generation_id
from imagegen.storage.clients import storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

    from imagegen.lifecycle.ports import ActiveEntry

_LISTED_AT_ONCE: Final = 250
_MOST_SCANNED: Final = 5_000
"""Finished records that one request looks through; a page may come back shorter, with a link to go on."""


@dataclass(frozen=True, slots=True)
class Page:
    generations: tuple[Generation, ...]
    next: str | None
    """Where the next page begins; None on the last."""


class Records(Protocol):
    def list_active(self) -> list[ActiveEntry]: ...
    def read(self, generation_id: str) -> Generation | None: ...


@dataclass(frozen=True, slots=True)
class _Found:
    key: str
    """``done_key``: the order of the list."""
    id: str
    status: str
    marker: str | None
    """Where Blob Storage's own listing goes on to find this one and those after it."""


class BlobListing:
    """Merges the active records with the finished ones, which storage keeps newest first."""

    def __init__(self, service: BlobServiceClient, container: str, records: Records, *, threads: int) -> None:
        self._container = service.get_container_client(container)
        self._records = records
        self._threads = threads

    def page(self, *, size: int, status: Status | None, after: str | None) -> Page:
        """The next `size` generations.

        Parameters
        ----------
        after
            ``next`` of the page before. Generations that were started since do not move what follows it.

        Raises
        ------
        RequestError
            400 when `after` is not one of ours.
        """
        position, marker = _read_position(after)
        # Active first: a record that moves to done/ between the two listings is then seen twice, not never.
        active = [_Found(done_key(entry.id), entry.id, entry.status, marker) for entry in self._active(position)]
        active.sort(key=lambda found: found.key)
        scan = _Scan(self._done(position, marker))
        merged = groupby(heapq.merge(active, scan, key=lambda found: found.key), key=lambda found: found.key)
        chosen: list[_Found] = []
        last = None
        for _, twins in merged:
            found = list(twins)[-1]  # of the same record, done/ was listed later
            if len(chosen) == size or scan.count > _MOST_SCANNED:
                break
            last = found
            if found.status != _DELETED and status in (None, found.status):
                chosen.append(found)
        else:
            last = None
        with ThreadPoolExecutor(self._threads, "list") as pool:
            read = list(pool.map(self._records.read, [found.id for found in chosen]))
        # What moved on or was deleted since it was listed is judged by what it is now.
        generations = tuple(one for one in read if one and status in (None, one.status))
        return Page(generations, _write_position(last.key, scan.marker) if last else None)

    def _active(self, position: str) -> list[ActiveEntry]:
        return [
            entry
            for entry in self._records.list_active()
            if is_generation_id(entry.id) and done_key(entry.id) > position
        ]

    def _done(self, position: str, marker: str | None) -> Iterator[_Found]:
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
                            yield _Found(key, key.partition("-")[2], _status(blob), marker)
                    if not pages.continuation_token:
                        return
            except ResourceNotFoundError:
                return  # no container yet
            except HttpResponseError as error:
                if error.status_code == 400:
                    raise _bad_position() from None
                raise


class _Scan:
    """Passes finished records on, and remembers how far it came."""

    def __init__(self, found: Iterator[_Found]) -> None:
        self._found = found
        self.count = 0
        self.marker: str | None = None

    def __iter__(self) -> Iterator[_Found]:
        for found in self._found:
            self.count += 1
            self.marker = found.marker
            yield found


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
    return RequestError.for_fields([FieldProblem("after", "is not from a nextLink; use nextLink as it was given")])
