"""What an HTTP trigger takes and gives, without Azure Functions; and what every answer has."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from imagegen.errors import RequestError, StorageUnavailableError
from imagegen.events import log_event, place_of
from imagegen.settings import ROUTE_PREFIX, Settings, SettingsError
from imagegen.urls import is_loopback

LONGEST_BODY: Final = 256 * 1024
"""Bytes."""
RETRY_SECONDS: Final = 30
"""What a 503 tells the caller to wait."""
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CALLER_IDS: Final = ("x-ms-workflow-run-id", "x-ms-client-tracking-id", "x-ms-action-tracking-id")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. Header names are lower-case."""

    method: str
    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    route: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer."""

    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def content(self) -> bytes:
        """UTF-8."""
        return b"" if self.body is None else json.dumps(self.body, ensure_ascii=False).encode()


def answer(request: Request, handle: Callable[[Request], Response]) -> Response:
    """What `handle` says, with the headers and errors that every answer has. Never raises."""
    request_id = str(uuid.uuid4())
    client_request_id = _printable(request.headers.get("x-ms-client-request-id"))
    try:
        response = handle(request)
    except RequestError as error:
        response = error_response(error)
    except StorageUnavailableError:
        response = error_response(unavailable("storageUnavailable", "Storage does not answer. Try again."))
    except SettingsError as error:
        log_event("settings.invalid", level=logging.ERROR, problems=str(error))
        response = error_response(unavailable("configurationInvalid", str(error)))
    except Exception as error:  # noqa: BLE001 - the caller gets an answer whatever happens
        place = place_of(error)
        kind = type(error).__name__
        log_event("request.failed", level=logging.ERROR, x_ms_request_id=request_id, error=kind, at=place)
        message = "The app failed. Its log has the reason under this x-ms-request-id."
        response = error_response(RequestError(status=500, code="internalError", message=message))
    headers = {"x-ms-request-id": request_id, "Cache-Control": "no-store", **response.headers}
    if client_request_id:
        headers["x-ms-client-request-id"] = client_request_id
    log_event(
        "request.answered",
        status=response.status,
        code=response.headers.get("x-ms-error-code"),
        x_ms_request_id=request_id,
        x_ms_client_request_id=client_request_id,
        caller=" ".join(filter(None, (_printable(request.headers.get(name)) for name in _CALLER_IDS))) or None,
    )
    return Response(response.status, response.body, headers)


def error_response(error: RequestError) -> Response:
    """``{"error": …}``, with its code as a header too."""
    headers = {"x-ms-error-code": error.code, **error.headers}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(error.status, error.to_json(), headers)


def unavailable(code: str, message: str) -> RequestError:
    """503: nothing is wrong with the request, and nothing was lost or billed."""
    return RequestError(status=503, code=code, message=message, retry_after=RETRY_SECONDS)


def base_url(request: Request, settings: Settings) -> str:
    """Where clients reach us, with the route prefix. Never taken from a Host header that nobody vouches for.

    Raises
    ------
    RequestError
        503 when nothing but such a header says so.
    """
    if settings.public_base_url:
        return settings.public_base_url
    if host := settings.website_hostname:
        # Core Tools sets this too, to localhost and its port.
        scheme = "http" if is_loopback(host.partition(":")[0]) else "https"
        return f"{scheme}://{host}/{ROUTE_PREFIX}"
    if origin := _loopback_origin(request.url):
        return f"{origin}/{ROUTE_PREFIX}"
    raise unavailable(
        "configurationInvalid",
        "PUBLIC_BASE_URL: is missing; set it to the URL at which clients reach the app, such as "
        "https://images.example.com/api",
    )


def _loopback_origin(url: str) -> str | None:
    """Scheme and host of a URL that names this machine."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" if is_loopback(parts.hostname or "") else None
    except ValueError:  # a Host header such as "[::1"
        return None


def _printable(text: str | None) -> str | None:
    """A caller's id, if it is fit for a header and the log."""
    return text if text and _PRINTABLE.fullmatch(text) else None
