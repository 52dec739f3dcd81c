"""Throttling of each deployment, shared by all instances: a 429 to one instance pauses the calls of all."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from azure.core.exceptions import ResourceNotFoundError

from imagegen.events import log_event
from imagegen.generation import format_time
from imagegen.storage.clients import create_container, storage_errors
from imagegen.upstream.protocol import Throttle

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

_CACHE_SECONDS: Final = 2.0
"""How long an instance uses a value that it has read."""


class Throttling:
    """A blob ``throttling/{deployment}`` whose metadata holds the pause. Thread-safe."""

    def __init__(
        self, service: BlobServiceClient, container: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._container = service.get_container_client(container)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, Throttle | None]] = {}

    def current(self, model: str) -> Throttle | None:
        """The pause, which may have ended; None if there was none."""
        with self._lock:
            cached = self._cache.get(model)
        if cached and self._monotonic() - cached[0] < _CACHE_SECONDS:
            return cached[1]
        found = self._read(model)
        with self._lock:
            if (newer := self._cache.get(model)) is not cached and newer is not None:
                return newer[1]  # `pause` of another thread, while this one read
            self._cache[model] = (self._monotonic(), found)
        return found

    def pause(self, model: str, throttle: Throttle) -> None:
        """Pause the calls of all instances. The later of two ends counts."""
        current = self._read(model)
        if current is None or current.until < throttle.until:
            # Not conditional: times that are written at the same moment differ little, and either is good enough.
            self._write(model, throttle)
            current = throttle
            log_event("upstream.paused", model=model, until=format_time(throttle.until), reason=throttle.reason)
        with self._lock:
            self._cache[model] = (self._monotonic(), current)

    def _read(self, model: str) -> Throttle | None:
        with storage_errors("read throttling"):
            try:
                metadata = self._container.get_blob_client(_name(model)).get_blob_properties().metadata
            except ResourceNotFoundError:
                return None
        fields = metadata or {}
        try:
            return Throttle(datetime.fromisoformat(fields.get("until", "")), unquote(fields.get("reason", "")))
        except ValueError:
            return None

    def _write(self, model: str, throttle: Throttle) -> None:
        blob = self._container.get_blob_client(_name(model))
        # Metadata are HTTP headers: ASCII only.
        metadata = {"until": format_time(throttle.until), "reason": quote(throttle.reason, safe=" ")}
        with storage_errors("write throttling"):
            try:
                blob.upload_blob(b"", overwrite=True, metadata=metadata)
            except ResourceNotFoundError:
                create_container(self._container)
                blob.upload_blob(b"", overwrite=True, metadata=metadata)


def _name(model: str) -> str:
    # A deployment name may have characters that a blob name cannot have.
    return f"throttling/{hashlib.sha256(model.encode()).hexdigest()[:32]}"
