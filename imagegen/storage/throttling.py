"""Throttle and pace of each deployment, shared by all instances: a 429 to one instance pauses the calls of all."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

from imagegen.errors import StorageUnavailableError
from imagegen.events import log_event
from imagegen.generation import format_time, parse_time
from imagegen.lifecycle.ports import Pace
from imagegen.storage.clients import create_container, storage_errors
from imagegen.upstream.protocol import Throttle

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

_CACHE_SECONDS: Final = 2.0
"""How long an instance uses a value that it has read."""
_TRIES: Final = 10
"""Writes of the blob, when other instances write it at the same moment."""
_CONFLICT_WAIT: Final = 0.2
"""Seconds, at most, before the next of them."""


@dataclass(frozen=True, slots=True)
class _State:
    """What the blob says."""

    throttle: Throttle | None = None
    pace: Pace | None = None
    etag: str | None = None
    """None: there is no blob."""


class Throttling:
    """A blob ``throttling/{deployment}`` whose metadata holds the throttle and the pace. Thread-safe."""

    def __init__(
        self, service: BlobServiceClient, container: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._container = service.get_container_client(container)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, _State]] = {}

    def current(self, model: str) -> Throttle | None:
        """The throttle, which may have ended; None if there was none."""
        return self._cached(model).throttle

    def pace(self, model: str) -> Pace | None:
        """The pace when generations last waited; None if none ever did."""
        return self._cached(model).pace

    def pause(self, model: str, throttle: Throttle) -> None:
        """Pause the calls of all instances. The later of two ends counts."""

        def later(state: _State) -> _State:
            ends_earlier = state.throttle is None or state.throttle.until < throttle.until
            return replace(state, throttle=throttle) if ends_earlier else state

        if self._change(model, later):
            log_event("upstream.paused", model=model, until=format_time(throttle.until), reason=throttle.reason)

    def set_pace(self, model: str, pace: Pace) -> None:
        """Tell all instances how fast the deployment takes calls."""
        self._change(model, lambda state: replace(state, pace=pace))

    def _cached(self, model: str) -> _State:
        with self._lock:
            cached = self._cache.get(model)
        if cached and self._monotonic() - cached[0] < _CACHE_SECONDS:
            return cached[1]
        found = self._read(model)
        with self._lock:
            if (newer := self._cache.get(model)) is not cached and newer is not None:
                return newer[1]  # a change by another thread, while this one read
            self._cache[model] = (self._monotonic(), found)
        return found

    def _change(self, model: str, change: Callable[[_State], _State]) -> bool:
        """Change the blob as it is now. Return whether that changed it."""
        for _ in range(_TRIES):
            before = self._read(model)
            after = change(before)
            if after == before or self._write(model, after):
                with self._lock:
                    self._cache[model] = (self._monotonic(), after)
                return after != before
            time.sleep(_CONFLICT_WAIT * random.random())  # noqa: S311 - no secret
        raise StorageUnavailableError("write throttling")

    def _read(self, model: str) -> _State:
        with storage_errors("read throttling"):
            try:
                properties = self._container.get_blob_client(_name(model)).get_blob_properties()
            except ResourceNotFoundError:
                return _State()
        fields = properties.metadata or {}
        return _State(_throttle(fields), _pace(fields), str(properties.etag))

    def _write(self, model: str, state: _State) -> bool:
        """Replace the blob. Return False when another instance has changed it."""
        blob = self._container.get_blob_client(_name(model))
        condition: dict[str, Any] = {"overwrite": False}
        if state.etag:
            condition = {"overwrite": True, "etag": state.etag, "match_condition": MatchConditions.IfNotModified}
        with storage_errors("write throttling"):
            try:
                blob.upload_blob(b"", metadata=_fields(state), **condition)
            except ResourceNotFoundError:
                create_container(self._container)
                return False
            except (ResourceExistsError, ResourceModifiedError):
                return False
        return True


def _throttle(fields: Mapping[str, str]) -> Throttle | None:
    until = parse_time(fields.get("until", ""))
    return Throttle(until, unquote(fields.get("reason", ""))) if until else None


def _pace(fields: Mapping[str, str]) -> Pace | None:
    rate, until = _rate(fields, "rate"), parse_time(fields.get("paced_until", ""))
    return Pace(rate, _rate(fields, "ceiling"), until) if rate and until else None


def _rate(fields: Mapping[str, str], name: str) -> float | None:
    try:
        rate = float(fields.get(name, ""))
    except ValueError:
        return None
    return rate if 0 < rate < math.inf else None


def _fields(state: _State) -> dict[str, str]:
    """The metadata of the blob. Metadata are HTTP headers: ASCII only."""
    fields: dict[str, str] = {}
    if throttle := state.throttle:
        fields |= {"until": format_time(throttle.until), "reason": quote(throttle.reason, safe=" ")}
    if pace := state.pace:
        fields |= {"rate": f"{pace.per_minute:.3f}", "paced_until": format_time(pace.until)}
        if pace.ceiling is not None:
            fields["ceiling"] = f"{pace.ceiling:.3f}"
    return fields


def _name(model: str) -> str:
    # A deployment name may have characters that a blob name cannot have.
    return f"throttling/{hashlib.sha256(model.encode()).hexdigest()[:32]}"
