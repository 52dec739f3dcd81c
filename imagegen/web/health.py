"""Is the app able to work? Asked by monitors, anonymously: so it tells no secret, and it spends nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from imagegen.errors import StorageUnavailableError
from imagegen.settings import Settings
from imagegen.upstream.protocol import Upstream
from imagegen.web.http import RETRY_SECONDS, Request, Response

_REMEMBERED_SECONDS: Final = 15.0
"""How long an answer is given again: who asks often must not make us ask often."""


class StorageCheck(Protocol):
    def check(self) -> None:
        """Raises StorageUnavailableError when storage does not answer."""
        ...


class HealthRoute:
    """``GET /health``: 200 or 503."""

    def __init__(
        self,
        *,
        settings: Settings,
        storage: StorageCheck,
        upstreams: Mapping[str, Upstream],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._upstreams = upstreams
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: tuple[float, Response] | None = None

    def get(self, request: Request) -> Response:  # noqa: ARG002 - every route takes one
        last = self._last
        if last and self._monotonic() - last[0] <= _REMEMBERED_SECONDS:
            return last[1]
        # One at a time looks; whoever asks meanwhile gets the answer before, if there is one.
        if not self._lock.acquire(blocking=last is None) and last:
            return last[1]
        try:
            if self._last is last:
                answer = self._check()
                self._last = (self._monotonic(), answer)
            return self._last[1] if self._last else self._check()
        finally:
            self._lock.release()

    def _check(self) -> Response:
        checks = {"storage": _outcome(self._storage_problem()), "upstream": _outcome(self._upstream_problem())}
        healthy = all(check["status"] == "ok" for check in checks.values())
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "checks": checks,
            "configuration": _configuration(self._settings),
        }
        return Response(200, body) if healthy else Response(503, body, {"Retry-After": str(RETRY_SECONDS)})

    def _upstream_problem(self) -> str | None:
        # At once: one that does not answer takes longer than whoever asks us waits.
        with ThreadPoolExecutor(len(self._upstreams)) as pool:
            checks = [pool.submit(upstream.check) for upstream in self._upstreams.values()]
        return "; ".join(filter(None, (check.result() for check in checks))) or None

    def _storage_problem(self) -> str | None:
        try:
            self._storage.check()
        except StorageUnavailableError:
            return "does not answer, or refuses the app; its log says which"
        return None


def _outcome(problem: str | None) -> dict[str, Any]:
    return {"status": "failed", "message": problem} if problem else {"status": "ok"}


def _configuration(settings: Settings) -> dict[str, Any]:
    """What an operator wants to see. No address and no name: anybody may read it."""
    return {
        "apis": ", ".join(sorted({deployment.api.value for deployment in settings.deployments})),
        "upstreamCredential": "key" if settings.deployments[0].api_key else "identity",
        "storageCredential": "connectionString" if settings.storage_connection_string else "identity",
        "oldApi": bool(settings.compat_api_keys),
        "pollSchedule": settings.poll_schedule,
    }
