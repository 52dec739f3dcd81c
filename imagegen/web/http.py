"""Requests and responses without Azure Functions, and the headers and errors that all responses share."""

from __future__ import annotations

import json
import logging
import math
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from imagegen.errors import KeyReusedError, QuotaUsedUpError, RequestError, StorageUnavailableError, TooManyActiveError
from imagegen.events import log_event, place_of
from imagegen.generation import GenerationError, JsonModel
from imagegen.settings import ROUTE_PREFIX, Settings, SettingsError
from imagegen.urls import is_loopback, is_nearby

LONGEST_BODY: Final = 256 * 1024
"""Bytes."""
RETRY_SECONDS: Final = 30
"""``Retry-After`` of a 429 and a 503."""
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
    status: int
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def content(self) -> bytes:
        """The body as UTF-8."""
        return b"" if self.body is None else json.dumps(self.body, ensure_ascii=False).encode()


type Handler = Callable[[Request], Response]


class ErrorDetail(GenerationError):  # noqa: N818 - not an exception
    """What is wrong, and how to correct it."""

    details: list[GenerationError] | None = None
    """Each problem, when there are several."""


_LONGEST_RETRY_AFTER: Final = 3_600
"""Seconds. A longer wait is only an estimate."""


class ErrorBody(JsonModel):
    error: ErrorDetail


class HttpError(RequestError):
    """An error that only HTTP has: unknown route, missing key, body too long, app not configured."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


def as_http_error(error: RequestError) -> HttpError:
    """The HTTP status of each error of the app."""
    match error:
        case HttpError():
            return error
        case TooManyActiveError():
            return HttpError(429, error.code, error.message, retry_after=RETRY_SECONDS)
        case QuotaUsedUpError():
            return HttpError(
                429, error.code, error.message, retry_after=min(_LONGEST_RETRY_AFTER, math.ceil(error.seconds))
            )
        case KeyReusedError(header="operation-id"):
            # The Azure REST guidelines say 400 for Operation-Id; the IETF draft says 422 for Idempotency-Key.
            return HttpError(400, error.code, error.message)
        case KeyReusedError():
            return HttpError(422, error.code, error.message)
        case _:
            return HttpError(400, error.code, error.message)


def answer(request: Request, handle: Handler) -> Response:
    """Call `handle`, turn its exceptions into error responses and add the common headers. Never raises."""
    request_id = str(uuid.uuid4())
    client_request_id = _printable(request.headers.get("x-ms-client-request-id"))
    try:
        response = handle(request)
    except RequestError as error:
        response = error_response(error)
    except StorageUnavailableError:
        message = "Storage does not answer, or refuses access. Repeat the request later, with the same Idempotency-Key."
        response = error_response(unavailable("storageUnavailable", message))
    except SettingsError as error:
        log_event("settings.invalid", level=logging.ERROR, problems=str(error))
        response = error_response(unavailable("configurationInvalid", str(error)))
    except Exception as error:  # noqa: BLE001 - the caller always gets a response
        place = place_of(error)
        kind = type(error).__name__
        log_event("request.failed", level=logging.ERROR, x_ms_request_id=request_id, error=kind, at=place)
        message = "The app has a defect. Report it with the x-ms-request-id: the app's log has the details."
        response = error_response(HttpError(500, "internalError", message))
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
    """``{"error": …}`` as in the Microsoft REST guidelines, with the code as a header too."""
    http_error = as_http_error(error)
    problems = [GenerationError(code=error.code, message=one.message, target=one.field) for one in error.problems]
    detail = ErrorDetail(
        code=error.code,
        message=error.message,
        target=problems[0].target if problems else None,
        details=problems if len(problems) > 1 else None,
    )
    headers = {"x-ms-error-code": error.code, **http_error.headers}
    return Response(http_error.status, ErrorBody(error=detail).to_json(), headers)


def unavailable(code: str, message: str) -> HttpError:
    """503: the request is valid, and the same request may succeed later."""
    return HttpError(503, code, message, retry_after=RETRY_SECONDS)


def base_url(request: Request, settings: Settings) -> str:
    """The URL at which clients reach the app, with the route prefix.

    The Host header counts only when it names this machine: a caller can forge it.

    Raises
    ------
    HttpError
        503 when neither the settings nor a loopback Host header give the URL.
    """
    if settings.public_base_url:
        return settings.public_base_url
    if host := settings.website_hostname:
        # Core Tools sets this too, to localhost and its port.
        scheme = "http" if is_loopback(host.partition(":")[0]) else "https"
        return f"{scheme}://{host}/{ROUTE_PREFIX}"
    if origin := _origin(request.url, is_loopback):
        return f"{origin}/{ROUTE_PREFIX}"
    example = f"{_origin(request.url, is_nearby) or 'https://images.example.com'}/{ROUTE_PREFIX}"
    raise unavailable(
        "configurationInvalid",
        "PUBLIC_BASE_URL: is missing, and the host of this request is not this machine. Set it to the URL at which "
        f"clients reach the app, such as PUBLIC_BASE_URL={example}",
    )


def _origin(url: str, is_wanted: Callable[[str], bool]) -> str | None:
    """Scheme and host of a URL, if the host is such a one."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" if is_wanted(parts.hostname or "") else None
    except ValueError:  # a Host header such as "[::1"
        return None


def _printable(text: str | None) -> str | None:
    """A caller's id if it is safe in a header and in the log, else None."""
    return text if text and _PRINTABLE.fullmatch(text) else None
