"""Blob storage for the images: signed URLs. An image is drawn when it is fetched."""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from local.emulator.connection import Truncated
from local.emulator.drawing import Drawing
from local.emulator.emulator import Emulator
from local.emulator.errors import StorageError
from local.emulator.faults import Fault, Faults

_HUGE = 200 * 1024 * 1024
_HUGE_PIECE = 256 * 1024
_SLOW_PIECES = 20
_LOGIN_PAGE = "<!doctype html><title>Sign in</title><h1>Sign in to your network</h1>"
_TIME = "%Y-%m-%dT%H:%M:%SZ"

_NOT_FOUND = StorageError(404, "BlobNotFound", "The specified blob does not exist.")
_ERRORS: dict[str, StorageError] = {
    "image-403": StorageError(
        403, "AuthenticationFailed", "Server failed to authenticate the request.", "Signature not valid, as asked."
    ),
    "image-404": _NOT_FOUND,
    "image-500": StorageError(500, "InternalError", "Server encountered an internal error. Please try again."),
}
_FAULTS = (
    *_ERRORS,
    "image-truncated",
    "image-html",
    "image-empty",
    "image-huge",
    "image-slow",
    "image-redirect",
)


@dataclass(frozen=True)
class _Stored:
    drawings: list[Drawing]
    faults: Faults
    expires: float

    def to_keep(self) -> dict[str, Any]:
        return {"drawings": [asdict(drawing) for drawing in self.drawings], "expires": self.expires}


def _from_kept(kept: dict[str, Any]) -> _Stored:
    drawings = [Drawing(**fields) for fields in kept["drawings"]]
    return _Stored(drawings, Faults.parse(drawings[0].prompt), kept["expires"])


class ImageStorage:
    """The images, grouped by the operation or call that made them."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._key = _key(emulator)
        self._stored = {group: _from_kept(kept) for group, kept in emulator.kept.rows("images")}
        self._cores = anyio.CapacityLimiter(os.cpu_count() or 1)

    def routes(self) -> list[Route]:
        return [Route("/images/{group}/{index:int}.png", self._get)]

    def reset(self) -> None:
        self._stored.clear()
        self._emulator.kept.remove("images")

    def store(self, group: str, drawings: list[Drawing], faults: Faults, expires: float) -> None:
        """Keep what is needed to draw the images until ``expires`` (unix seconds)."""
        now = self._emulator.clock()
        for old, stored in list(self._stored.items()):
            if stored.expires > now:
                break  # the newer groups are very likely not expired either
            self.remove(old)
        self._stored[group] = _Stored([_as_asked(drawing, faults) for drawing in drawings], faults, expires)
        self._emulator.kept.put("images", group, self._stored[group].to_keep())

    def remove(self, group: str) -> None:
        self._stored.pop(group, None)
        self._emulator.kept.remove("images", group)

    async def draw(self, drawing: Drawing) -> bytes:
        """Return the file, drawn outside the event loop."""
        return await anyio.to_thread.run_sync(drawing.encode, limiter=self._cores)

    def url(self, base: str, group: str, index: int, expires: float) -> str:
        """Return the signed URL of one image, valid until ``expires`` (unix seconds)."""
        path = f"/images/{group}/{index}.png"
        until = datetime.fromtimestamp(int(expires), UTC).strftime(_TIME)
        return f"{base}{path}?{urlencode({'se': until, 'sp': 'r', 'sig': self._sign(path, until, 'r')})}"

    def _sign(self, path: str, until: str, permission: str) -> str:
        text = f"{path}\n{until}\n{permission}".encode()
        return base64.b64encode(hmac.digest(self._key, text, hashlib.sha256)).decode()

    async def _get(self, request: Request) -> Response:
        group: str = request.path_params["group"]
        index: int = request.path_params["index"]
        self._emulator.stats.image_gets += 1
        self._emulator.stats.operation(group).image_gets += 1
        self._refuse_credentials(request)
        self._check_signature(request)
        stored = self._stored.get(group)
        if stored is None or index >= len(stored.drawings):
            raise _NOT_FOUND
        fault = self._emulator.fault_counts.next(f"{group}/{index}", stored.faults, _FAULTS)
        if fault is not None and fault.word in _ERRORS:
            raise _ERRORS[fault.word]
        drawing = stored.drawings[index]
        body, media_type = await self.draw(drawing), f"image/{drawing.format.lower()}"
        return Response(body, media_type=media_type) if fault is None else _with_fault(fault, body, media_type)

    def _refuse_credentials(self, request: Request) -> None:
        """Refuse and count an api-key too. Azure Storage ignores it, but sending it here leaks it."""
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


def _key(emulator: Emulator) -> bytes:
    """Return the key that signs the URLs. It is kept, so that a restart does not invalidate them."""
    for _, key in emulator.kept.rows("key"):
        return bytes.fromhex(key)
    key = secrets.token_bytes(32)
    emulator.kept.put("key", "image-urls", key.hex())
    return key


def _unauthenticated(detail: str) -> StorageError:
    message = (
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
        "correctly including the signature."
    )
    return StorageError(403, "AuthenticationFailed", message, detail)


def _as_asked(drawing: Drawing, faults: Faults) -> Drawing:
    if "image-jpeg" in faults:
        drawing = replace(drawing, format="JPEG")
    elif "image-webp" in faults:
        drawing = replace(drawing, format="WEBP")
    if padded := faults.get("bytes"):
        drawing = replace(drawing, padded_size=int(padded.argument))
    return drawing


def _with_fault(fault: Fault, body: bytes, media_type: str) -> Response:
    match fault.word:
        case "image-truncated":
            return Truncated(body, media_type=media_type)
        case "image-html":
            return Response(_LOGIN_PAGE, media_type="text/html")
        case "image-empty":
            return Response(b"", media_type=media_type)
        case "image-huge":
            return StreamingResponse(_huge(body), media_type=media_type)
        case "image-slow":
            headers = {"content-length": str(len(body))}
            return StreamingResponse(_slow(body, fault.seconds), headers=headers, media_type=media_type)
        case "image-redirect":
            return RedirectResponse(fault.argument, 302)
        case word:
            raise AssertionError(f"no response for the fault {word}")


async def _huge(body: bytes) -> AsyncIterator[bytes]:
    yield body
    left = _HUGE - len(body)
    while left > 0:
        yield bytes(min(_HUGE_PIECE, left))
        left -= _HUGE_PIECE


async def _slow(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = -(-len(body) // _SLOW_PIECES)
    for start in range(0, len(body), step):
        await asyncio.sleep(seconds / _SLOW_PIECES)
        yield body[start : start + step]
