"""The storage the images lie on: signed URLs, drawn when they are fetched."""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from local.emulator.connection import Truncated
from local.emulator.emulator import Emulator
from local.emulator.errors import StorageError
from local.emulator.faults import Fault, Faults
from local.emulator.pictures import CONTENT_TYPES, Picture, Rendering, encode

_HUGE = 200 * 1024 * 1024
_PIECE = 256 * 1024
_TRICKLES = 20
_LOGIN_PAGE = "<!doctype html><title>Sign in</title><h1>Sign in to your network</h1>"
_AS_IT_IS = Rendering()
_TIME = "%Y-%m-%dT%H:%M:%SZ"

_ERRORS: dict[str, StorageError] = {
    "image-403": StorageError(
        403, "AuthenticationFailed", "Server failed to authenticate the request.", "Signature not valid, as asked."
    ),
    "image-404": StorageError(404, "BlobNotFound", "The specified blob does not exist."),
    "image-500": StorageError(500, "InternalError", "Server encountered an internal error. Please try again."),
}


@dataclass(frozen=True)
class _Stored:
    picture: Picture
    faults: Faults
    rendering: Rendering


@dataclass(frozen=True)
class _Blob:
    body: bytes
    content_type: str


class Images:
    """Pictures by the operation they belong to."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._key = secrets.token_bytes(32)
        self._stored: dict[str, tuple[_Stored, ...]] = {}
        self._cores = anyio.CapacityLimiter(os.cpu_count() or 1)

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/images/{operation}/{index:int}.png", self._get)]

    def clear(self) -> None:
        """Forget every picture."""
        self._stored.clear()

    def store(self, operation: str, pictures: list[Picture], faults: Faults, rendering: Rendering = _AS_IT_IS) -> None:
        """Keep what is needed to draw them."""
        rendering = _wished(rendering, faults)
        self._stored[operation] = tuple(_Stored(picture, faults, rendering) for picture in pictures)

    async def render(self, picture: Picture, rendering: Rendering) -> bytes:
        """The picture as a file, drawn off the event loop."""
        return await anyio.to_thread.run_sync(encode, picture, rendering, limiter=self._cores)

    def remove(self, operation: str) -> None:
        """Drop the operation's pictures."""
        self._stored.pop(operation, None)

    def url(self, base: str, operation: str, index: int, expires: float) -> str:
        """The signed URL of one picture; ``expires`` in unix seconds."""
        path = f"/images/{operation}/{index}.png"
        until = datetime.fromtimestamp(int(expires), UTC).strftime(_TIME)
        return f"{base}{path}?{urlencode({'se': until, 'sp': 'r', 'sig': self._sign(path, until, 'r')})}"

    def _sign(self, path: str, until: str, permission: str) -> str:
        text = f"{path}\n{until}\n{permission}".encode()
        return base64.b64encode(hmac.digest(self._key, text, hashlib.sha256)).decode()

    async def _get(self, request: Request) -> Response:
        try:
            return await self._image(request)
        except StorageError as error:
            return error.answer(self._emulator.new_id())

    async def _image(self, request: Request) -> Response:
        operation: str = request.path_params["operation"]
        index: int = request.path_params["index"]
        self._emulator.stats.image_gets += 1
        self._emulator.stats.of(operation).image_gets += 1
        self._refuse_credentials(request)
        self._check_signature(request)
        stored = self._find(operation, index)
        words = (*_ERRORS, *_BODIES)
        fault = self._emulator.fault_counts.next(f"{operation}/{index}", stored.faults, words)
        if fault is not None and fault.word in _ERRORS:
            return _ERRORS[fault.word].answer(self._emulator.new_id())
        blob = _Blob(await self.render(stored.picture, stored.rendering), CONTENT_TYPES[stored.rendering.form])
        return _whole(blob) if fault is None else _BODIES[fault.word](fault, blob)

    def _refuse_credentials(self, request: Request) -> None:
        """Storage refuses a token beside a signature; a key sent here is a leak all the same."""
        if "authorization" in request.headers or "api-key" in request.headers:
            self._emulator.stats.leaked_credentials += 1
            raise StorageError(
                400,
                "InvalidAuthenticationInfo",
                "Authentication information is not given in the correct format: "
                "a signed URL takes neither an Authorization nor an api-key header.",
            )

    def _check_signature(self, request: Request) -> None:
        until, permission, signature = (request.query_params.get(name, "") for name in ("se", "sp", "sig"))
        expected = self._sign(request.url.path, until, permission)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise _unauthenticated("Signature did not match.")
        now = self._emulator.clock()
        if now >= datetime.strptime(until, _TIME).replace(tzinfo=UTC).timestamp():
            shown = datetime.fromtimestamp(now, UTC).strftime(_TIME)
            raise _unauthenticated(
                f"Signature not valid in the specified time frame: Expiry [{until}] - Current [{shown}]"
            )

    def _find(self, operation: str, index: int) -> _Stored:
        stored = self._stored.get(operation, ())
        if index >= len(stored):
            raise StorageError(404, "BlobNotFound", "The specified blob does not exist.")
        return stored[index]


def _unauthenticated(detail: str) -> StorageError:
    message = (
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
        "correctly including the signature."
    )
    return StorageError(403, "AuthenticationFailed", message, detail)


def _wished(rendering: Rendering, faults: Faults) -> Rendering:
    if "image-jpeg" in faults:
        rendering = replace(rendering, form="JPEG")
    elif "image-webp" in faults:
        rendering = replace(rendering, form="WEBP")
    if padded := faults.get("bytes"):
        rendering = replace(rendering, size=int(padded.argument))
    return rendering


def _whole(blob: _Blob) -> Response:
    return Response(blob.body, media_type=blob.content_type)


def _truncated(_fault: Fault, blob: _Blob) -> Response:
    return Truncated(blob.body, media_type=blob.content_type)


def _html(_fault: Fault, _blob: _Blob) -> Response:
    return Response(_LOGIN_PAGE, media_type="text/html")


def _empty(_fault: Fault, blob: _Blob) -> Response:
    return Response(b"", media_type=blob.content_type)


def _redirect(fault: Fault, _blob: _Blob) -> Response:
    return RedirectResponse(fault.argument, 302)


def _huge(_fault: Fault, blob: _Blob) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield blob.body
        sent = len(blob.body)
        while sent < _HUGE:
            piece = bytes(min(_PIECE, _HUGE - sent))
            yield piece
            sent += len(piece)

    return StreamingResponse(pieces(), media_type=blob.content_type)


def _slow(fault: Fault, blob: _Blob) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        step = -(-len(blob.body) // _TRICKLES)
        for start in range(0, len(blob.body), step):
            await asyncio.sleep(fault.seconds / _TRICKLES)
            yield blob.body[start : start + step]

    return StreamingResponse(pieces(), headers={"content-length": str(len(blob.body))}, media_type=blob.content_type)


_BODIES: dict[str, Callable[[Fault, _Blob], Response]] = {
    "image-truncated": _truncated,
    "image-html": _html,
    "image-empty": _empty,
    "image-huge": _huge,
    "image-slow": _slow,
    "image-redirect": _redirect,
}
