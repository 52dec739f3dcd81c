"""Monitors without storage, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from imagegen.errors import StorageUnavailableError
from imagegen.generation import StoredImage
from imagegen.lifecycle.ports import Pace
from imagegen.upstream.protocol import Throttle
from imagegen.web.monitor import Monitors
from imagegen.web.ports import ImageLinks
from tests.app.generations import DIRECT, NOON, POLLED

BASE = "https://images.example.com/api"


@dataclass
class FakeLinks:
    unsigned: frozenset[str] = frozenset()
    """Blobs whose links cannot be signed."""

    def link(self, image: StoredImage) -> str:
        if image.blob in self.unsigned:
            raise StorageUnavailableError("sign link")
        return f"{self.blob_url(image)}?sig=1"

    def blob_url(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.container}/{image.blob}"


@dataclass
class FakeThrottles:
    throttle: Throttle | None = None
    paced: Pace | None = None
    fails: bool = False

    def current(self, model: str) -> Throttle | None:
        if self.fails:
            raise StorageUnavailableError("read throttling")
        return self.throttle

    def pace(self, model: str) -> Pace | None:
        if self.fails:
            raise StorageUnavailableError("read throttling")
        return self.paced


def monitors(
    backlog: int = 0,
    *,
    unsigned: frozenset[str] = frozenset(),
    links: ImageLinks | None = None,
    retention: timedelta = timedelta(days=30),
    throttles: FakeThrottles | None = None,
    waiting: Callable[[str], int] = lambda _: 0,
) -> Monitors:
    return Monitors(
        links=links or FakeLinks(unsigned),
        retention=retention,
        clock=lambda: NOON,
        backlog=lambda: backlog,
        waiting=waiting,
        throttling=throttles or FakeThrottles(),
        models=(POLLED, DIRECT),
    )
