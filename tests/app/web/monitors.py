"""Monitors without storage, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from imagegen.errors import StorageUnavailableError
from imagegen.generation import StoredImage
from imagegen.web.monitor import Monitors
from tests.app.generations import NOON

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


def monitors(backlog: int = 0, *, unsigned: frozenset[str] = frozenset()) -> Monitors:
    return Monitors(
        links=FakeLinks(unsigned), retention=timedelta(days=30), clock=lambda: NOON, backlog=lambda: backlog
    )
