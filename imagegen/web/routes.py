"""The routes of the contract (docs/api.md), but for the old API's. No line of it knows Azure Functions."""

from __future__ import annotations

import hmac
import re
import threading
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from imagegen.errors import FieldProblem, RequestError, StorageUnavailableError
from imagegen.generation import Generation, GenerationRequest, Status, is_generation_id
from imagegen.idempotency import IdempotencyKey, read_key
from imagegen.lifecycle.ports import Clock
from imagegen.settings import Settings
from imagegen.storage.listing import Page
from imagegen.web.http import HttpError, Request, Response, base_url
from imagegen.web.monitor import Monitors, monitor_urls
from imagegen.web.parsing import parse_start

_PAGE_SIZE: Final = 20
_LARGEST_PAGE: Final = 100
_LONGEST_WAIT: Final = 50
"""Seconds that a POST waits at most: the shortest-lived callers give up after 60."""

_MOST_WAITING: Final = 4
"""Callers who wait at once on one instance; the others are answered 202 at once."""

ROUTES: Final = {
    "generations": ("GET", "POST"),
    "generations/{id}": ("GET", "DELETE"),
    "generations/{id}/result": ("GET",),
    "generations/{id}/cancel": ("POST",),
    "models": ("GET",),
    "health": ("GET",),
    "openapi.json": ("GET",),
    "openai/images/generations:submit": ("POST",),
    "openai/operations/images/{id}": ("GET", "DELETE"),
}
"""Every route and its methods: what ``function_app`` declares, and what a wrong method is told."""


class Generations(Protocol):
    """The verbs of the state machine."""

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        asked_seconds: int | None = None,
        key: IdempotencyKey | None = None,
    ) -> Generation: ...
    def wait(self, generation: Generation, until: datetime) -> Generation: ...
    def cancel(self, generation: Generation) -> Generation | None: ...
    def delete(self, generation: Generation) -> None: ...


class Records(Protocol):
    def read(self, generation_id: str) -> Generation | None: ...


class Listing(Protocol):
    def page(self, *, size: int, status: Status | None, after: str | None) -> Page: ...


class Routes:
    """Answers requests."""

    def __init__(
        self,
        *,
        settings: Settings,
        generations: Generations,
        records: Records,
        listing: Listing,
        monitors: Monitors,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._records = records
        self._listing = listing
        self._monitors = monitors
        self._clock = clock
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    def start_generation(self, request: Request) -> Response:
        """``POST /generations``: 202, or 200 where the caller preferred to wait and it was worth it."""
        base = base_url(request, self._settings)
        key = read_key(request.headers)
        wait = _preferred_wait(request.headers.get("prefer", ""))
        asked = parse_start(request)
        began = self._clock()
        seconds = asked.timeout_seconds
        generation = self._generations.start(
            asked.request,
            metadata=dict(asked.metadata),
            timeout=timedelta(seconds=seconds or self._settings.generation_timeout_seconds),
            asked_seconds=seconds,
            key=key,
        )
        headers: dict[str, str] = {}
        if "repeatability-request-id" in request.headers:
            headers["Repeatability-Result"] = "accepted"
        waited = self._wait(generation, began + timedelta(seconds=wait)) if wait else None
        if waited:
            headers["Preference-Applied"] = f"wait={wait}"
        shown = waited or generation
        urls = monitor_urls(shown, base)
        headers |= {"Location": urls.result, "Operation-Location": urls.monitor}
        # It is started: no storage fault from here on may make the caller start it again.
        try:
            monitor = self._monitors.to_json(shown, urls)
        except StorageUnavailableError:  # it is finished, and its links cannot be signed now: later they can
            shown = shown.changed(status=Status.RUNNING)
            monitor = self._monitors.to_json(shown, urls)
        if waited and shown.status.is_terminal:
            return Response(200, monitor, headers)
        return Response(202, monitor, {**headers, "Retry-After": "1", **self._monitors.retry_after(shown)})

    def _wait(self, generation: Generation, until: datetime) -> Generation | None:
        """The generation after the wait; None where too many wait already, who hold a thread each."""
        if not self._waiting.acquire(blocking=False):
            return None
        try:
            return self._generations.wait(generation, until)
        except StorageUnavailableError:
            return None
        finally:
            self._waiting.release()

    def list_generations(self, request: Request) -> Response:
        """``GET /generations``: newest first, a page at a time."""
        base = base_url(request, self._settings)
        size, status = _page_size(request.query), _status(request.query)
        page = self._listing.page(size=size, status=status, after=request.query.get("after"))
        value = [self._monitors.to_json(found, monitor_urls(found, base)) for found in page.generations]
        body: dict[str, Any] = {"value": value}
        if page.next:
            query = {"maxpagesize": size, **({"status": status.value} if status else {}), "after": page.next}
            body["nextLink"] = f"{base}/generations?{urlencode(query)}"
        return Response(200, body)

    def get_generation(self, request: Request) -> Response:
        """``GET /generations/{id}``: the status monitor, always 200."""
        return self._monitor_response(request, self._find(request))

    def get_generation_result(self, request: Request) -> Response:
        """``GET /generations/{id}/result``: what a 202's ``Location`` names."""
        generation = self._find(request)
        urls = monitor_urls(generation, base_url(request, self._settings))
        match generation.status:
            case Status.SUCCEEDED:
                return Response(200, self._monitors.to_json(generation, urls))
            case Status.FAILED:
                return _failed(generation)
            case Status.CANCELED:
                return _ended(generation, 410, {"code": "canceled", "message": "The generation was canceled."})
            case _:
                # Both headers every time: Logic Apps forgets those of the answer before.
                headers = {"Location": urls.result, **self._monitors.retry_after(generation)}
                return Response(202, self._monitors.to_json(generation, urls), headers)

    def cancel_generation(self, request: Request) -> Response:
        """``POST /generations/{id}/cancel``: 200 with the monitor, canceled now or ended as it was."""
        generation = self._generations.cancel(self._find(request))
        if generation is None:
            raise _not_found()
        return self._monitor_response(request, generation)

    def delete_generation(self, request: Request) -> Response:
        """``DELETE /generations/{id}``: 204, whether there was something to delete or not."""
        try:
            generation = self._find(request)
        except HttpError:
            # It may have been there a moment ago: whoever repeats a DELETE must not be told that it failed.
            return Response(204)
        self._generations.delete(generation)
        return Response(204)

    def _monitor_response(self, request: Request, generation: Generation) -> Response:
        urls = monitor_urls(generation, base_url(request, self._settings))
        return Response(200, self._monitors.to_json(generation, urls), self._monitors.retry_after(generation))

    def _find(self, request: Request) -> Generation:
        """The generation that the URL names. An unknown id and a wrong token look the same."""
        generation_id, token = request.route.get("id", ""), request.query.get("token", "")
        generation = self._records.read(generation_id) if is_generation_id(generation_id) and token else None
        if generation is None or not hmac.compare_digest(generation.token.encode(), token.encode("utf-8", "replace")):
            raise _not_found()
        return generation


def unknown_route(request: Request) -> Response:
    """What no other function takes: a route that is none, or a method that a route does not have."""
    path = request.route.get("path", "").strip("/")
    for route, methods in ROUTES.items():
        if re.fullmatch(re.escape(route).replace(re.escape("{id}"), "[^/]+"), path):
            allowed = ", ".join(methods)
            message = f"{request.method} is not a method of this route; it takes {allowed}."
            headers = {"Allow": allowed}
            raise HttpError(405, "methodNotAllowed", message, headers=headers)
    raise HttpError(404, "notFound", "There is no such route. GET /openapi.json lists them.")


def _not_found() -> HttpError:
    message = "There is no such generation, or the token of its URL is wrong. Use the URL as it was handed out."
    return HttpError(404, "notFound", message)


def _preferred_wait(prefer: str) -> int:
    """Seconds of ``Prefer: wait=N``; 0 where there is none. What cannot be understood is ignored: RFC 7240, 2."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", prefer, re.IGNORECASE)
    return min(int(found[1]), _LONGEST_WAIT) if found else 0


def _page_size(query: Any) -> int:
    text = query.get("maxpagesize", str(_PAGE_SIZE))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= _LARGEST_PAGE:
        raise RequestError.for_fields([FieldProblem("maxpagesize", f"must be a number from 1 to {_LARGEST_PAGE}")])
    return int(text)


def _status(query: Any) -> Status | None:
    text = query.get("status")
    if text is None or text in set(Status):
        return Status(text) if text else None
    raise RequestError.for_fields([FieldProblem("status", f"must be one of {', '.join(Status)}")])


def _failed(generation: Generation) -> Response:
    error = generation.error
    body = error.to_json() if error else {"code": "internalError", "message": "No reason was recorded."}
    return _ended(generation, 422 if error and error.is_refusal else 424, body)


def _ended(generation: Generation, status: int, error: dict[str, Any]) -> Response:
    body = {"error": error, "id": generation.id, "status": generation.status.value}
    return Response(status, body, {"x-ms-error-code": error["code"]})
