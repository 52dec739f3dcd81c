"""What the HTTP layer needs from the rest of the app. ``imagegen.app`` passes the implementations in."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from imagegen.generation import Generation, GenerationRequest, Status, StoredImage
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.ports import Pace
from imagegen.upstream.protocol import Throttle


class CurrentThrottles(Protocol):
    """The throttles and paces of the deployments. Each method raises StorageUnavailableError."""

    def current(self, model: str) -> Throttle | None:
        """The deployment's throttle, which may have ended. None when there is none."""
        ...

    def pace(self, model: str) -> Pace | None:
        """How fast the deployment took calls when generations last waited for it."""
        ...


class Generations(Protocol):
    """The actions on generations."""

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        asked_seconds: int | None = None,
        key: IdempotencyKey | None = None,
        traceparent: str | None = None,
    ) -> Generation:
        """Store a new generation and start it, or return the one that has this key.

        Raises
        ------
        RequestError
            When the request is invalid. Nothing was stored or billed.
        """
        ...

    def wait(self, generation: Generation, until: datetime) -> Generation:
        """Advance the generation until it ends or this time comes. Return its latest state."""
        ...

    def cancel(self, generation: Generation) -> Generation | None:
        """Cancel the generation unless it has ended. Return its final state, or None if it was deleted."""
        ...

    def delete(self, generation: Generation) -> None:
        """Cancel the generation if it is active, then delete its images and its record."""
        ...


class RecordReader(Protocol):
    def read(self, generation_id: str) -> Generation | None:
        """The record, active or done; None when there is none."""
        ...


class Page(Protocol):
    """One page of the list."""

    @property
    def generations(self) -> tuple[Generation, ...]: ...
    @property
    def next(self) -> str | None:
        """Where the next page starts; None on the last page."""
        ...


class Listing(Protocol):
    def page(self, *, size: int, status: Status | None, after: str | None) -> Page:
        """At most `size` generations, newest first, from the position `after`."""
        ...


class ImageLinks(Protocol):
    def link(self, image: StoredImage) -> str:
        """A temporary URL that gives anyone read access to this image. Raises StorageUnavailableError."""
        ...

    def blob_url(self, image: StoredImage) -> str:
        """The same URL without a credential."""
        ...


class LinkCheck(Protocol):
    def check_links(self) -> None:
        """Raise StorageUnavailableError when no link to an image can be signed."""
        ...


class StorageCheck(Protocol):
    def check(self) -> None:
        """Raise StorageUnavailableError when storage does not answer."""
        ...
