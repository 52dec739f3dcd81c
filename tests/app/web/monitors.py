"""Monitors without storage, for the tests of this folder."""

from __future__ import annotations

from datetime import timedelta

from imagegen.generation import StoredImage
from imagegen.web.monitor import Monitors
from tests.app.generations import NOON

BASE = "https://images.example.com/api"


class FakeLinks:
    def link(self, image: StoredImage) -> str:
        return f"{self.blob_url(image)}?sig=1"

    def blob_url(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.container}/{image.blob}"


def monitors(backlog: int = 0) -> Monitors:
    return Monitors(links=FakeLinks(), retention=timedelta(days=30), clock=lambda: NOON, backlog=lambda: backlog)
