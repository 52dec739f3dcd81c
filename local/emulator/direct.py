"""Direct APIs: the response to the call holds the images. All of them share quota, faults, billing and response."""

import asyncio
import hashlib
import math
import secrets
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from local.emulator.auth import wrong_key
from local.emulator.connection import Dropped, Truncated
from local.emulator.drawing import Drawing
from local.emulator.emulator import Emulator, base_url
from local.emulator.errors import DirectErrors, ServiceError, json_response
from local.emulator.faults import Fault, Faults
from local.emulator.image_storage import ImageStorage
from local.emulator.quotas import GRACE, Quotas, RetryAfterWaits, retry_after_headers
from local.emulator.validation import RequestBody

_BLOCKED = (
    "Your resource has been temporarily blocked because we detected behavior that may violate our content policy. "
    "For more details on Azure OpenAI service content policy, please visit https://aka.ms/aoaicodeofconduct"
)
_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)
_UNAVAILABLE = "The service is temporarily unable to process your request. Please try again later."
_REFUSALS: dict[str, tuple[int, str, str]] = {
    "call-401": (401, wrong_key().code, wrong_key().message),
    "call-403": (403, "403", "Access denied due to Virtual Network/Firewall rules."),
    "call-blocked": (403, "Forbidden", _BLOCKED),
    "call-404": (404, "DeploymentNotFound", _NO_DEPLOYMENT),
    "call-408": (408, "Timeout", "The operation was timeout."),
    "call-500": (500, "InternalServerError", "The server had an error processing your request. Sorry about that!"),
    "call-503": (503, "ServiceUnavailable", _UNAVAILABLE),
}
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_FAULTS = (*_REFUSALS, "call-429", "call-502", "call-hang", "call-drop", "call-cut", "call-garbage")
_IMAGE_MARK = secrets.token_hex(16)  # stands for an image in the JSON; unguessable, so no prompt can contain it


class DirectRequest(RequestBody, ABC):
    """A valid request of one direct API. ``null`` means that the field is absent, as in OpenAI's schema."""

    errors: ClassVar[DirectErrors]

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The deployment. On the deployment route it comes from the path."""
    prompt: str

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if value is not None or name not in cls.model_fields}

    @property
    def image_count(self) -> int:
        return 1

    @abstractmethod
    def drawing(self) -> Drawing:
        """Return the first image."""

    def drawings(self) -> list[Drawing]:
        count = self.image_count
        return [replace(self.drawing(), index=index, count=count) for index in range(count)]

    @property
    def wants_urls(self) -> bool:
        """The response holds URLs instead of base64."""
        return False

    @abstractmethod
    def response_body(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """``created`` is in unix seconds; ``data`` holds a ``b64_json`` or a ``url`` for each image."""


@dataclass(frozen=True)
class _Call:
    request: Request
    asked: DirectRequest
    faults: Faults
    time: float  # of its arrival, unix seconds

    @property
    def client_request_id(self) -> str | None:
        return self.request.headers.get("x-ms-client-request-id")


class DirectCalls:
    """Answers direct calls. A call that reaches the generation is billed, even if its response gets lost."""

    def __init__(self, emulator: Emulator, images: ImageStorage) -> None:
        self._emulator = emulator
        self._images = images
        self.reset()

    def reset(self) -> None:
        """Start new quota windows."""
        options = self._emulator.options
        self._quotas = Quotas(options.quota, options.quota_window, options.quota_part)
        self._waits = RetryAfterWaits()

    async def respond(self, request: Request, asked: DirectRequest) -> Response:
        """Answer a valid call. There is no ``await`` before the call is billed, so the counters are exact."""
        if asked.model.lower().startswith("missing"):
            raise _refusal(asked, "call-404")
        call = _Call(request, asked, Faults.parse(asked.prompt), self._emulator.clock())
        headers = self._admit(call)
        fault = self._emulator.fault_counts.next(_digest(repr(asked)), call.faults, _FAULTS)
        if (refused := self._refused(call, fault, headers)) is not None:
            return refused
        drawings = asked.drawings()
        self._emulator.stats.called(
            asked.model,
            digest=_digest(asked.prompt),
            client_request_id=call.client_request_id,
            images=len(drawings),
            now=call.time,
        )
        await asyncio.sleep(self._duration(call.faults))
        return await self._delivered(call, drawings, fault, headers)

    def _admit(self, call: _Call) -> dict[str, str]:
        """Count the call and check the quota. Returns the headers that describe the quota."""
        deployment = call.asked.model
        counts = self._emulator.stats.deployment(deployment)
        counts.requests += 1
        counts.impatient += self._waits.ignored_at(deployment, call.time, grace=GRACE)
        counts.early_retries += self._waits.ignored_at((deployment, call.client_request_id), call.time)
        allowance = self._quotas.take(deployment, call.time)
        if allowance is None:
            return {}
        if allowance.wait is not None:
            raise self._throttled(call, allowance.wait, allowance.headers())
        return allowance.headers()

    def _refused(self, call: _Call, fault: Fault | None, headers: dict[str, str]) -> Response | None:
        """Raise the error, or return the HTML, that a fault asks for before the generation."""
        if fault is not None and fault.word == "call-429":
            raise self._throttled(call, 1.0, headers)
        if fault is not None and fault.word == "call-502":
            return Response(_BAD_GATEWAY, 502, headers, media_type="text/html")
        error = None
        if fault is not None and fault.word in _REFUSALS:
            error = _refusal(call.asked, fault.word)
            if fault.word == "call-503" and (retry_after := call.faults.get("retry-after")):
                error.headers["retry-after"] = retry_after.argument
        elif filtered := call.faults.get("contentFilter"):
            error = call.asked.errors.filtered(filtered.argument or "contentFilter")
        if error is not None:
            error.headers.update(headers)
            raise error
        return None

    def _throttled(self, call: _Call, wait: float, headers: dict[str, str]) -> ServiceError:
        deployment, errors = call.asked.model, call.asked.errors
        retry_after = _retry_after(wait, call.faults)
        self._waits.add(deployment, retry_after, call.time)
        if call.client_request_id is not None:
            self._waits.add((deployment, call.client_request_id), retry_after, call.time)
        self._emulator.stats.throttled(deployment, call.time)
        message = (
            f"Your requests to {deployment} have exceeded call rate limit of your current pricing tier. "
            f"Please retry after {retry_after_headers(wait)['retry-after']} seconds."
        )
        error = errors.error(429, errors.rate_limited, message)
        error.headers = headers | retry_after
        return error

    def _duration(self, faults: Faults) -> float:
        fixed = faults.get("seconds")
        options = self._emulator.options
        return options.seconds * options.speed if fixed is None else fixed.seconds

    async def _delivered(
        self, call: _Call, drawings: list[Drawing], fault: Fault | None, headers: dict[str, str]
    ) -> Response:
        """Return the images, unless a fault withholds them."""
        match fault:
            case Fault(word="call-drop"):
                return Dropped()
            case Fault(word="call-garbage"):
                return Response('{"created": 17', headers=headers, media_type="application/json")
            case Fault(word="call-hang"):
                await asyncio.sleep(fault.seconds)
            case _:
                pass
        created = int(self._emulator.clock())
        if call.asked.wants_urls:
            return json_response(call.asked.response_body(created, self._urls(call, drawings)), headers=headers)
        if padded := call.faults.get("bytes"):
            drawings = [replace(drawing, padded_size=int(padded.argument)) for drawing in drawings]
        files = [await self._images.draw(drawing) for drawing in drawings]
        body = call.asked.response_body(created, [{"b64_json": _IMAGE_MARK}] * len(files))
        return _with_images(body, files, headers, truncated=fault is not None and fault.word == "call-cut")

    def _urls(self, call: _Call, drawings: list[Drawing]) -> list[dict[str, Any]]:
        name, base = self._emulator.new_id(), base_url(call.request)
        expires = self._emulator.clock() + self._emulator.options.image_lifetime
        self._images.store(name, drawings, call.faults, expires)
        return [{"url": self._images.url(base, name, drawing.index, expires)} for drawing in drawings]


def direct_route(path: str, handler: Callable[[Request], Awaitable[Response]], *, method: str = "POST") -> Route:
    """Return a route whose errors lack ``x-ms-error-code``: only the asynchronous API sends it."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as error:
            response = error.response()
            del response.headers["x-ms-error-code"]
            return response

    return Route(path, endpoint, methods=[method])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(asked: DirectRequest, word: str) -> ServiceError:
    status, code, message = _REFUSALS[word]
    if status in {401, 403, 404}:
        return ServiceError(status, code, message)  # from the gateway, which is the same for every API
    return asked.errors.error(status, code, message)


def _retry_after(seconds: float, faults: Faults) -> dict[str, str]:
    """Return the headers of a 429: both, none, or those that the prompt asks for."""
    if "call-no-retry-after" in faults:
        return {}
    asked = {name: fault.argument for name in ("retry-after", "retry-after-ms") if (fault := faults.get(name))}
    return asked or retry_after_headers(seconds)


def _with_images(body: dict[str, Any], files: list[bytes], headers: dict[str, str], *, truncated: bool) -> Response:
    """Return the body with the files in base64. They are encoded one after the other, to save memory."""
    texts = bytes(json_response(body).body).split(_IMAGE_MARK.encode())
    pieces = _pieces(texts, files)
    if truncated:
        return Truncated(b"".join(pieces), headers=headers, media_type="application/json")
    length = sum(map(len, texts)) + sum(4 * math.ceil(len(file) / 3) for file in files)
    headers = headers | {"content-length": str(length)}
    return StreamingResponse(pieces, headers=headers, media_type="application/json")


def _pieces(texts: list[bytes], files: list[bytes]) -> Iterator[bytes]:
    yield texts[0]
    for file, text in zip(files, texts[1:], strict=True):
        yield b64encode(file)
        yield text
