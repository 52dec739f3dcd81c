"""One brake for each deployment, shared by all instances: what one of them was told, none has to find out again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from azure.core.exceptions import ResourceNotFoundError

from imagegen.events import log_event
from imagegen.generation import format_time
from imagegen.storage.clients import create_container, storage_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

_REMEMBERED_SECONDS: Final = 2.0
"""How long an instance takes what it read as true."""


class Throttling:
    """A blob ``throttling/{deployment}``, whose metadata says until when nobody should call. Thread-safe."""

    def __init__(
        self, service: BlobServiceClient, container: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._container = service.get_container_client(container)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, datetime | None]] = {}

    def paused_until(self, model: str) -> datetime | None:
        """When the deployment may be called again; None when nobody said that it may not be."""
        with self._lock:
            known = self._known.get(model)
        if known and self._monotonic() - known[0] < _REMEMBERED_SECONDS:
            return known[1]
        until = self._read(model)
        self._remember(model, until)
        return until

    def pause(self, model: str, until: datetime) -> None:
        """Nobody calls before this time. Of two who were told differently, the later word counts."""
        there = self._read(model)
        if there is None or there < until:
            # Not conditional: two that write at once were told nearly the same, and either is good enough.
            self._write(model, until)
            log_event("upstream.paused", model=model, until=format_time(until))
        self._remember(model, max(until, there or until))

    def _remember(self, model: str, until: datetime | None) -> None:
        with self._lock:
            self._known[model] = (self._monotonic(), until)

    def _read(self, model: str) -> datetime | None:
        with storage_errors("read throttling"):
            try:
                metadata = self._container.get_blob_client(_name(model)).get_blob_properties().metadata
            except ResourceNotFoundError:
                return None
        try:
            return datetime.fromisoformat((metadata or {}).get("until", ""))
        except ValueError:
            return None

    def _write(self, model: str, until: datetime) -> None:
        blob = self._container.get_blob_client(_name(model))
        with storage_errors("write throttling"):
            try:
                blob.upload_blob(b"", overwrite=True, metadata={"until": format_time(until)})
            except ResourceNotFoundError:
                create_container(self._container)
                blob.upload_blob(b"", overwrite=True, metadata={"until": format_time(until)})


def _name(model: str) -> str:
    # A deployment's name may hold what a blob's name may not.
    return f"throttling/{hashlib.sha256(model.encode()).hexdigest()[:32]}"
