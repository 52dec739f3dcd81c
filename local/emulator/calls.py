"""What the APIs that answer with the picture have in common: quota, faults, the bill, the answer."""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator.auth import wrong_key
from local.emulator.connection import Dropped
from local.emulator.emulator import Emulator, base_url
from local.emulator.errors import ServiceError
from local.emulator.faults import Fault, Faults
from local.emulator.images import Images
from local.emulator.pictured import PICTURE, Pictured
from local.emulator.pictures import Picture, Rendering
from local.emulator.quota import ClientThrottles, Quotas, Room, pause
from local.emulator.spelling import Spelling

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


@dataclass(frozen=True, kw_only=True)
class Order(ABC):
    """One call, checked, defaults filled in."""

    deployment: str
    prompt: str
    spelling: Spelling = field(repr=False)
    n: int = 1
    width: int = 1024
    height: int = 1024
    rendering: Rendering = field(default=Rendering())
    by_url: bool = False
    """The pictures are links, not base64."""

    @abstractmethod
    def document(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer; ``data`` holds a ``b64_json`` or a ``url`` for each picture, ``created`` is in unix seconds."""

    def pictures(self) -> list[Picture]:
        """What it shows."""
        return [Picture(self.prompt, index, self.n, self.width, self.height) for index in range(self.n)]


class Calls:
    """Answers orders. Each that gets as far as the generation is billed, whether or not its answer arrives."""

    def __init__(self, emulator: Emulator, images: Images) -> None:
        self._emulator = emulator
        self._images = images
        self._linked: deque[tuple[float, str]] = deque()  # when they expire, and under which id they lie
        self.clear()

    def routes(self) -> list[Route]:
        """None: the APIs have them."""
        return []

    def clear(self) -> None:
        """Forget the windows and the waits."""
        options = self._emulator.options
        self._quotas = Quotas(options.quota, options.quota_window)
        self._throttles = ClientThrottles()
        self._linked.clear()

    async def answer(self, request: Request, order: Order) -> Response:
        """The answer, late if so it is to be. Until the bill is written there is no await: counts are exact."""
        if order.deployment.lower().startswith("missing"):
            raise _refusal(order, "call-404")
        faults = Faults.parse(order.prompt)
        room = self._admit(order, faults)
        headers = {} if room is None else room.headers()
        fault = self._emulator.fault_counts.next(_digest(repr(order)), faults, _FAULTS)
        if (refused := self._refused(order, fault, faults, headers)) is not None:
            return refused
        self._emulator.stats.billed_call(
            order.deployment,
            digest=_digest(order.prompt),
            client_request_id=request.headers.get("x-ms-client-request-id"),
            pictures=order.n,
            now=self._emulator.clock(),
        )
        await asyncio.sleep(self._seconds(faults))
        return await self._delivered(request, order, faults, fault, headers)

    # Before the generation

    def _admit(self, order: Order, faults: Faults) -> Room | None:
        now = self._emulator.clock()
        counts = self._emulator.stats.deployment(order.deployment)
        counts.requests += 1
        counts.impatient += self._throttles.on(order.deployment, now)
        room = self._quotas.take(order.deployment, now)
        if room is not None and room.wait is not None:
            raise self._throttled(order, faults, room.wait, room.headers())
        return room

    def _refused(self, order: Order, fault: Fault | None, faults: Faults, headers: dict[str, str]) -> Response | None:
        if fault is not None and fault.word == "call-429":
            raise self._throttled(order, faults, 1.0, headers)
        if fault is not None and fault.word == "call-502":
            return Response(_BAD_GATEWAY, 502, headers, media_type="text/html")
        error = None
        if fault is not None and fault.word in _REFUSALS:
            error = _refusal(order, fault.word)
            if fault.word == "call-503" and (asked := faults.get("retry-after")):
                error.headers["retry-after"] = asked.argument
        elif filtered := faults.get("contentFilter"):
            error = order.spelling.filtered(filtered.argument or "contentFilter")
        if error is not None:
            error.headers.update(headers)
            raise error
        return None

    def _throttled(self, order: Order, faults: Faults, wait: float, headers: dict[str, str]) -> ServiceError:
        now = self._emulator.clock()
        waits = _waits(wait, faults)
        self._throttles.told(order.deployment, waits, now)
        self._emulator.stats.throttled_call(order.deployment, now)
        message = (
            f"Your requests to {order.deployment} have exceeded call rate limit of your current pricing tier. "
            f"Please retry after {pause(wait)['retry-after']} seconds."
        )
        error = order.spelling.error(429, order.spelling.rate_limited, message, kind="rate_limit_error")
        error.headers = headers | waits
        return error

    def _seconds(self, faults: Faults) -> float:
        fixed = faults.get("seconds")
        options = self._emulator.options
        return options.seconds * options.speed if fixed is None else fixed.seconds

    # After it

    async def _delivered(
        self, request: Request, order: Order, faults: Faults, fault: Fault | None, headers: dict[str, str]
    ) -> Response:
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
        if order.by_url:
            return Pictured(order.document(created, self._links(request, order, faults)), [], headers)
        rendering = order.rendering
        if padded := faults.get("bytes"):
            rendering = replace(rendering, size=int(padded.argument))
        files = [await self._images.render(picture, rendering) for picture in order.pictures()]
        cut = fault is not None and fault.word == "call-cut"
        return Pictured(order.document(created, [{"b64_json": PICTURE}] * order.n), files, headers, cut=cut)

    def _links(self, request: Request, order: Order, faults: Faults) -> list[dict[str, Any]]:
        now = self._emulator.clock()
        while self._linked and self._linked[0][0] <= now:
            self._images.remove(self._linked.popleft()[1])
        name, expires = self._emulator.new_id(), now + self._emulator.options.image_lifetime
        self._images.store(name, order.pictures(), faults, order.rendering)
        self._linked.append((expires, name))
        base = base_url(request)
        return [{"url": self._images.url(base, name, index, expires)} for index in range(order.n)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(order: Order, word: str) -> ServiceError:
    status, code, message = _REFUSALS[word]
    if status in {401, 403, 404}:
        return ServiceError(status, code, message)  # the gateway's, the same before every API
    return order.spelling.error(status, code, message, kind="server_error")


def _waits(seconds: float, faults: Faults) -> dict[str, str]:
    """The headers of a 429: both, none, or those asked for."""
    if "call-no-retry-after" in faults:
        return {}
    asked = {name: fault.argument for name in ("retry-after", "retry-after-ms") if (fault := faults.get(name))}
    return asked or pause(seconds)


def answered(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A route's handler whose errors are answers; ``x-ms-error-code`` is the older API's."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as error:
            refused = error.answer()
            del refused.headers["x-ms-error-code"]
            return refused

    return answer
