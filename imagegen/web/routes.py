"""The routes under ``/generations``. Contract: docs/api.md."""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from imagegen.errors import FieldProblem, RequestError, StorageUnavailableError
from imagegen.events import log_stuck
from imagegen.generation import Generation, GenerationError, StartRequest, Status, is_generation_id
from imagegen.idempotency import read_key
from imagegen.lifecycle.ports import Clock
from imagegen.settings import Settings
from imagegen.telemetry import valid_traceparent
from imagegen.web.field_problems import shown
from imagegen.web.http import HttpError, Request, Response, base_url
from imagegen.web.monitor import EndedBody, MonitorList, Monitors
from imagegen.web.parsing import check_query, parse_body
from imagegen.web.ports import Generations, Listing, RecordReader

_PAGE_SIZE: Final = 20
_LARGEST_PAGE: Final = 100
_LONGEST_WAIT: Final = 50
"""Seconds of ``Prefer: wait``: some callers time out after 60."""

_MOST_WAITING: Final = 4
"""Requests that wait at once on one instance, because each holds a thread. The others get 202 at once."""


class Routes:
    """The routes under ``/generations``."""

    def __init__(
        self,
        *,
        settings: Settings,
        generations: Generations,
        records: RecordReader,
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
        """``POST /generations``: 202, or 200 when the generation ended within ``Prefer: wait``."""
        base = base_url(request, self._settings)
        check_query(request.query)
        key = read_key(request.headers)
        wait = _preferred_wait(request.headers.get("prefer", ""))
        body = parse_body(request, StartRequest)
        began = self._clock()
        seconds = body.timeout_seconds
        generation = self._generations.start(
            body.request,
            metadata=dict(body.metadata),
            timeout=timedelta(seconds=seconds or self._settings.generation_timeout_seconds),
            asked_seconds=seconds,
            key=key,
            traceparent=valid_traceparent(request.headers.get("traceparent")),
        )
        headers: dict[str, str] = {}
        if "repeatability-request-id" in request.headers:
            headers["Repeatability-Result"] = "accepted"
        waited = self._wait(generation, began + timedelta(seconds=wait)) if wait else None
        if waited is None:
            return self._started(generation, base, headers)
        return self._started(waited, base, headers | {"Preference-Applied": f"wait={wait}"}, may_be_final=True)

    def _wait(self, generation: Generation, until: datetime) -> Generation | None:
        """The generation after the wait; None when too many requests wait already."""
        if not self._waiting.acquire(blocking=False):
            return None
        try:
            return self._generations.wait(generation, until)
        except StorageUnavailableError:
            return None
        except Exception as error:  # noqa: BLE001 - the start has succeeded, and its 202 must not get lost
            log_stuck(generation.id, error)
            return None
        finally:
            self._waiting.release()

    def _started(
        self, generation: Generation, base: str, headers: Mapping[str, str], *, may_be_final: bool = False
    ) -> Response:
        """202 with the monitor; 200 when the generation has ended and the caller waited for it.

        The status in a 202 is never terminal: azure-core's LROPoller, which finds a final status in the first answer,
        stops there without raising. The first poll shows how the generation ended.
        """
        ended = generation.status.is_terminal
        if ended and not may_be_final:
            generation = generation.changed(status=Status.RUNNING)
        monitor = self._monitors.build(generation, base)
        if ended and not may_be_final:
            monitor = monitor.model_copy(update={"status_message": None})  # it waits for nothing
        headers = {**headers, "Location": monitor.urls.result, "Operation-Location": monitor.urls.monitor}
        if may_be_final and generation.status.is_terminal:
            return Response(200, monitor.to_json(), headers)
        retry_after = {"Retry-After": "1"} if ended else self._monitors.retry_after(generation)
        return Response(202, monitor.to_json(), headers | retry_after)

    def list_generations(self, request: Request) -> Response:
        """``GET /generations``: one page, newest first."""
        base = base_url(request, self._settings)
        check_query(request.query, ("status", "maxpagesize", "after"))
        size, status = _page_size(request.query), _status(request.query)
        page = self._listing.page(size=size, status=status, after=request.query.get("after"))
        next_link = None
        if page.next:
            query = {"maxpagesize": size, **({"status": status.value} if status else {}), "after": page.next}
            next_link = f"{base}/generations?{urlencode(query)}"
        value = [self._monitors.build(generation, base) for generation in page.generations]
        return Response(200, MonitorList(value=value, next_link=next_link).to_json())

    def get_generation(self, request: Request) -> Response:
        """``GET /generations/{id}``: the status monitor, always 200."""
        return self._monitor_response(request, self._find(request))

    def get_generation_result(self, request: Request) -> Response:
        """``GET /generations/{id}/result``: the URL in the ``Location`` of a 202."""
        generation = self._find(request)
        base = base_url(request, self._settings)
        match generation.status:
            case Status.SUCCEEDED:
                return Response(200, self._monitors.build(generation, base).to_json())
            case Status.FAILED:
                error = generation.error or GenerationError(code="internalError", message="No reason was recorded.")
                return _ended(generation, 422 if error.is_refusal else 424, error)
            case Status.CANCELED:
                return _ended(generation, 410, GenerationError(code="canceled", message="The generation was canceled."))
            case _:
                monitor = self._monitors.build(generation, base)
                # Both headers in every answer: Logic Apps uses only those of the latest.
                headers = {"Location": monitor.urls.result, **self._monitors.retry_after(generation)}
                return Response(202, monitor.to_json(), headers)

    def cancel_generation(self, request: Request) -> Response:
        """``POST /generations/{id}/cancel``: 200 with the monitor of the ended generation."""
        generation = self._generations.cancel(self._find(request))
        if generation is None:
            raise _not_found()
        return self._monitor_response(request, generation)

    def delete_generation(self, request: Request) -> Response:
        """``DELETE /generations/{id}``: 204, also when there is nothing to delete."""
        try:
            generation = self._find(request)
        except HttpError:
            # A repeated DELETE must not look like a failure.
            return Response(204)
        self._generations.delete(generation)
        return Response(204)

    def _monitor_response(self, request: Request, generation: Generation) -> Response:
        monitor = self._monitors.build(generation, base_url(request, self._settings))
        return Response(200, monitor.to_json(), self._monitors.retry_after(generation))

    def _find(self, request: Request) -> Generation:
        """The generation that the URL names. The answer is the same for an unknown id and for a wrong token."""
        generation_id, token = request.route.get("id", ""), request.query.get("token", "")
        generation = self._records.read(generation_id) if is_generation_id(generation_id) and token else None
        if generation is None or not hmac.compare_digest(generation.token.encode(), token.encode("utf-8", "replace")):
            raise _not_found()
        return generation


def _not_found() -> HttpError:
    message = "No generation has this id and token. Use the URL exactly as the app returned it."
    return HttpError(404, "notFound", message)


def _preferred_wait(prefer: str) -> int:
    """Seconds of ``Prefer: wait=N``, else 0. RFC 7240, section 2: ignore a preference that makes no sense."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", prefer, re.IGNORECASE)
    return min(int(found[1]), _LONGEST_WAIT) if found else 0


def _page_size(query: Mapping[str, str]) -> int:
    text = query.get("maxpagesize", str(_PAGE_SIZE))
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= _LARGEST_PAGE:
        raise RequestError.for_fields([FieldProblem("maxpagesize", f"{shown(text)}; use 1 to {_LARGEST_PAGE}")])
    return int(text)


def _status(query: Mapping[str, str]) -> Status | None:
    text = query.get("status")
    if text is None or text in set(Status):
        return Status(text) if text else None
    raise RequestError.for_fields([FieldProblem("status", f"{shown(text)}; use one of {', '.join(Status)}")])


def _ended(generation: Generation, status: int, error: GenerationError) -> Response:
    body = EndedBody(error=error, id=generation.id, status=generation.status)
    return Response(status, body.to_json(), {"x-ms-error-code": error.code})
