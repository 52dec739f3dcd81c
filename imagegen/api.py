"""HTTP: parse, answer, headers, errors. Source of every route, header and status: the contract (docs/architecture.md).

Knows nothing of Azure Functions: ``function_app`` hands over a ``Request`` and gets a ``Response``.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from pydantic import ValidationError
from pydantic_core import from_json

from imagegen.errors import FieldProblem, RequestError, StorageUnavailableError
from imagegen.events import log_event
from imagegen.generation import (
    Generation,
    GenerationRequest,
    StartRequest,
    Status,
    StoredImage,
    format_time,
    is_generation_id,
)
from imagegen.settings import ROUTE_PREFIX, Settings, SettingsError, is_loopback

LONGEST_BODY: Final = 256 * 1024
"""Bytes."""
_RETRY_AFTER_SECONDS: Final = 5
_STORAGE_RETRY_SECONDS: Final = 30
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


class Starter(Protocol):
    def start(self, request: GenerationRequest, *, metadata: dict[str, str], timeout: timedelta) -> Generation: ...


class Records(Protocol):
    def read(self, generation_id: str) -> Generation | None: ...
    def count_active(self) -> int: ...


class Links(Protocol):
    def link(self, image: StoredImage) -> str: ...
    def blob_url(self, image: StoredImage) -> str: ...


def answer(request: Request, handle: Callable[[Request], Response]) -> Response:
    """What `handle` says, with the headers and errors that every answer has. Never raises."""
    request_id = str(uuid.uuid4())
    client_request_id = _printable(request.headers.get("x-ms-client-request-id"))
    try:
        response = handle(request)
    except RequestError as error:
        response = _error(error)
    except StorageUnavailableError:
        response = _error(_unavailable("storageUnavailable", "Storage does not answer. Nothing was lost: try again."))
    except SettingsError as error:
        log_event("settings.invalid", level=logging.ERROR, problems=str(error))
        response = _error(_unavailable("configurationInvalid", str(error)))
    except Exception:
        logging.getLogger("imagegen").exception("request.failed x_ms_request_id=%s", request_id)
        message = "The app failed. Its log has the reason under this x-ms-request-id."
        response = _error(RequestError(status=500, code="internalError", message=message))
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


class Api:
    """The routes of the contract."""

    def __init__(self, *, settings: Settings, starter: Starter, records: Records, links: Links) -> None:
        self._settings = settings
        self._starter = starter
        self._records = records
        self._links = links

    def start_generation(self, request: Request) -> Response:
        """``POST /generations``."""
        base = self._base_url(request)
        asked = _parse_start(request)
        self._check_model(asked.model)
        self._check_capacity()
        seconds = asked.timeout_seconds or self._settings.generation_timeout_seconds
        generation = self._starter.start(
            asked.request, metadata=dict(asked.metadata), timeout=timedelta(seconds=seconds)
        )
        urls = _urls(generation, base)
        headers = {"Location": urls["result"], "Operation-Location": urls["self"], **_retry_after(generation)}
        return Response(202, self._monitor(generation, urls), headers)

    def get_generation(self, request: Request) -> Response:
        """``GET /generations/{id}``: the status monitor, always 200."""
        generation = self._find(request)
        urls = _urls(generation, self._base_url(request))
        headers = {} if generation.status.is_terminal else _retry_after(generation)
        return Response(200, self._monitor(generation, urls), headers)

    def get_generation_result(self, request: Request) -> Response:
        """``GET /generations/{id}/result``: what a 202's ``Location`` names."""
        generation = self._find(request)
        urls = _urls(generation, self._base_url(request))
        match generation.status:
            case Status.SUCCEEDED:
                return Response(200, self._monitor(generation, urls))
            case Status.FAILED:
                return _failed(generation)
            case Status.CANCELED:
                return _ended(generation, 410, {"code": "canceled", "message": "The generation was canceled."})
            case _:
                # Both headers every time: Logic Apps forgets those of the answer before.
                headers = {"Location": urls["result"], **_retry_after(generation)}
                return Response(202, self._monitor(generation, urls), headers)

    def _check_model(self, model: str | None) -> None:
        name = self._settings.default_deployment.name
        if model not in (None, name):
            raise RequestError.for_fields([FieldProblem("model", f"is not configured; leave it out or use '{name}'")])

    def _check_capacity(self) -> None:
        limit = self._settings.max_active_generations
        if self._records.count_active() >= limit:
            raise RequestError(
                status=429,
                code="tooManyRequests",
                message=f"{limit} generations are active, which is the limit (MAX_ACTIVE_GENERATIONS). Try later.",
                retry_after=_STORAGE_RETRY_SECONDS,
            )

    def _find(self, request: Request) -> Generation:
        """The generation that the URL names. An unknown id and a wrong token look the same."""
        generation_id, token = request.route.get("id", ""), request.query.get("token", "")
        generation = self._records.read(generation_id) if is_generation_id(generation_id) and token else None
        if generation is None or not hmac.compare_digest(generation.token.encode(), token.encode("utf-8", "replace")):
            message = "There is no such generation, or the token of its URL is wrong. Use the URL as it was handed out."
            raise RequestError(status=404, code="notFound", message=message)
        return generation

    def _monitor(self, generation: Generation, urls: Mapping[str, str]) -> dict[str, Any]:
        monitor: dict[str, Any] = {
            "id": generation.id,
            "status": generation.status.value,
            "createdDateTime": format_time(generation.created),
            "lastActionDateTime": format_time(generation.last_action),
            "expiresDateTime": format_time(generation.created + timedelta(days=self._settings.retention_days)),
            "request": generation.request.to_json(),
            "metadata": generation.metadata,
            "urls": dict(urls),
        }
        if generation.status is Status.SUCCEEDED:
            monitor["result"] = {"data": [self._image(image) for image in generation.images if image]}
        if generation.status is Status.FAILED and generation.error:
            monitor["error"] = generation.error.to_json()
        return monitor

    def _image(self, image: Any) -> dict[str, Any]:
        if not isinstance(image, StoredImage):
            return image.to_json()
        return {
            "url": self._links.link(image),
            "blobUrl": self._links.blob_url(image),
            "container": image.container,
            "blob": image.blob,
            "contentType": image.content_type,
            "contentLength": image.content_length,
            "sha256": image.sha256,
            "revisedPrompt": image.revised_prompt,
        }

    def _base_url(self, request: Request) -> str:
        """Where clients reach us. Never taken from a Host header that nobody vouches for."""
        if self._settings.public_base_url:
            return self._settings.public_base_url
        if host := self._settings.website_hostname:
            # Core Tools sets this too, to localhost and its port.
            scheme = "http" if is_loopback(host.partition(":")[0]) else "https"
            return f"{scheme}://{host}/{ROUTE_PREFIX}"
        parts = urlsplit(request.url)
        if not is_loopback(parts.hostname or ""):
            raise RequestError(
                status=503,
                code="configurationInvalid",
                message="PUBLIC_BASE_URL: is missing; set it to the URL at which clients reach the app, such as "
                "https://images.example.com/api",
                retry_after=_STORAGE_RETRY_SECONDS,
            )
        return f"{parts.scheme}://{parts.netloc}/{ROUTE_PREFIX}"


def _parse_start(request: Request) -> StartRequest:
    if len(request.body) > LONGEST_BODY:
        message = f"The body has {len(request.body)} bytes; {LONGEST_BODY} are taken."
        raise RequestError(status=413, code="payloadTooLarge", message=message)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", media_type):
        message = "Send JSON, with the header Content-Type: application/json."
        raise RequestError(status=415, code="unsupportedMediaType", message=message)
    try:
        body = from_json(request.body, allow_inf_nan=False)
    except ValueError as error:
        message = f"The body is not valid JSON: {error}"
        raise RequestError(status=400, code="invalidJson", message=message) from None
    if not isinstance(body, dict):
        message = 'The body must be a JSON object, such as {"prompt": "a lighthouse in fog"}.'
        raise RequestError(status=400, code="invalidPayload", message=message)
    try:
        return StartRequest.model_validate(body)
    except ValidationError as error:
        problems = [_field_problem(found) for found in error.errors(include_input=False, include_url=False)]
        raise RequestError.for_fields(problems) from None


def _field_problem(found: Mapping[str, Any]) -> FieldProblem:
    name = ".".join(str(part) for part in found["loc"] if part != "[key]")
    match found["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = f"is not a field of this API; it takes {', '.join(_FIELDS)}"
        case "string_pattern_mismatch" if name == "size":
            message = "must be 'auto' or WIDTHxHEIGHT, such as 1024x1024"
        case _:
            message = str(found["msg"]).removeprefix("Value error, ").replace("Input should", "should")
            message = message.replace("String should", "should")
    return FieldProblem(name[:100], message[:1].lower() + message[1:])


_FIELDS: Final = tuple(info.alias or name for name, info in StartRequest.model_fields.items())


def _urls(generation: Generation, base: str) -> dict[str, str]:
    itself, token = f"{base}/generations/{generation.id}", quote(generation.token, safe="")
    return {"self": f"{itself}?token={token}", "result": f"{itself}/result?token={token}"}


def _retry_after(generation: Generation) -> dict[str, str]:
    """Whole seconds; a caller that comes back sooner finds nothing new."""
    wait = (generation.due - generation.last_action).total_seconds() if generation.faults else 0
    return {"Retry-After": str(min(60, max(_RETRY_AFTER_SECONDS, round(wait))))}


def _failed(generation: Generation) -> Response:
    error = generation.error
    body = error.to_json() if error else {"code": "internalError", "message": "No reason was recorded."}
    return _ended(generation, 422 if error and error.is_refusal else 424, body)


def _ended(generation: Generation, status: int, error: dict[str, Any]) -> Response:
    body = {"error": error, "id": generation.id, "status": generation.status.value}
    return Response(status, body, {"x-ms-error-code": error["code"]})


def _error(error: RequestError) -> Response:
    headers = {"x-ms-error-code": error.code}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(error.status, error.to_json(), headers)


def _unavailable(code: str, message: str) -> RequestError:
    return RequestError(status=503, code=code, message=message, retry_after=_STORAGE_RETRY_SECONDS)


def _printable(text: str | None) -> str | None:
    """A caller's id, if it is fit for a header and the log."""
    return text if text and _PRINTABLE.fullmatch(text) else None
