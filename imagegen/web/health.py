"""``GET /health``: can the app work?

The route is anonymous and is called often: the answer holds no secret, costs nothing and is cached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, Literal

from imagegen.errors import StorageUnavailableError
from imagegen.generation import JsonModel
from imagegen.settings import Settings
from imagegen.threads import ContextPool
from imagegen.upstream.protocol import CheckProblem, Upstream
from imagegen.web.http import RETRY_SECONDS, Request, Response
from imagegen.web.ports import LinkCheck, StorageCheck

_CACHE_SECONDS: Final = 15.0
"""Health checks must not multiply the calls to storage and to the image service."""


class CheckBody(JsonModel):
    status: Literal["ok", "warning", "failed"]
    """`warning`: the service answered, but the answer does not show that the route for images exists; or some
    deployments of a pool failed, and another one works."""
    message: str | None = None


class ConfigurationBody(JsonModel):
    """Settings that help an operator. No address and no name, because the route is anonymous."""

    apis: list[str]
    upstream_credential: Literal["key", "identity"]
    storage_credential: Literal["connectionString", "identity"]
    old_api: bool
    poll_schedule: str


class HealthBody(JsonModel):
    status: Literal["healthy", "unhealthy"]
    checks: dict[str, CheckBody]
    configuration: ConfigurationBody


class HealthRoute:
    """``GET /health``: 200 or 503.

    Parameters
    ----------
    upstreams
        The deployments of each model. Several are a pool.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        storage: StorageCheck,
        links: LinkCheck,
        upstreams: Sequence[Sequence[Upstream]],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._links = links
        self._upstreams = upstreams
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cached: tuple[float, Response] | None = None

    def get(self, request: Request) -> Response:  # noqa: ARG002 - every route takes one
        cached = self._cached
        if cached and self._monotonic() - cached[0] <= _CACHE_SECONDS:
            return cached[1]
        # One thread checks. The others return the expired answer meanwhile, or wait for the first one.
        if not self._lock.acquire(blocking=cached is None) and cached:
            return cached[1]
        try:
            current = self._cached
            if current is None or current is cached:
                response = self._check()
                current = self._cached = (self._monotonic(), response)
            return current[1]
        finally:
            self._lock.release()

    def _check(self) -> Response:
        checks = {"storage": self._storage_check(), "upstream": self._upstream_check()}
        healthy = all(check.status != "failed" for check in checks.values())
        status = "healthy" if healthy else "unhealthy"
        body = HealthBody(status=status, checks=checks, configuration=_configuration(self._settings)).to_json()
        return Response(200, body) if healthy else Response(503, body, {"Retry-After": str(RETRY_SECONDS)})

    def _upstream_check(self) -> CheckBody:
        # In parallel: several deployments that time out must not add up to more than the caller's timeout.
        with ContextPool(sum(map(len, self._upstreams))) as pool:
            checks = [[pool.submit(upstream.check) for upstream in members] for members in self._upstreams]
        found = [_model_problems([check.result() for check in members]) for members in checks]
        return _check_body(list(chain.from_iterable(found)))

    def _storage_check(self) -> CheckBody:
        problem = self._storage_problem()
        return CheckBody(status="failed", message=problem) if problem else CheckBody(status="ok")

    def _storage_problem(self) -> str | None:
        try:
            self._storage.check()
        except StorageUnavailableError:
            return "does not answer or refuses access; the app's log has the reason"
        try:
            self._links.check_links()
        except StorageUnavailableError:
            return (
                "answers, but no link to an image can be signed. Check that AzureWebJobsStorage has an AccountKey, or "
                "that the app's identity has the role Storage Blob Data Owner or Storage Blob Delegator on the whole "
                "storage account; the app's log has the reason"
            )
        return None


def _model_problems(found: Sequence[CheckProblem | None]) -> list[CheckProblem]:
    """The problems of a model, from the checks of its deployments. While one of a pool works, the model works."""
    problems = [problem for problem in found if problem]
    certain = [problem.message for problem in problems if problem.certain]
    if len(certain) in (0, len(found)):
        return problems
    message = f"{len(certain)} of {len(found)} deployments with one name: {'; '.join(dict.fromkeys(certain))}"
    return [CheckProblem(message, certain=False), *(problem for problem in problems if not problem.certain)]


def _check_body(problems: Sequence[CheckProblem]) -> CheckBody:
    if not problems:
        return CheckBody(status="ok")
    # The certain ones first. Several deployments of one API have the same problem: it is said once.
    ordered = sorted(problems, key=lambda problem: not problem.certain)
    message = "; ".join(dict.fromkeys(problem.message for problem in ordered))
    return CheckBody(status="failed" if ordered[0].certain else "warning", message=message)


def _configuration(settings: Settings) -> ConfigurationBody:
    return ConfigurationBody(
        apis=sorted({deployment.api.value for deployment in settings.deployments}),
        upstream_credential="key" if settings.deployments[0].api_key else "identity",
        storage_credential="connectionString" if settings.storage_connection_string else "identity",
        old_api=bool(settings.compat_api_keys),
        poll_schedule=settings.poll_schedule,
    )
