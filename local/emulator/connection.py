"""Connections that break: what a plain HTTP response cannot say."""

import asyncio
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """Hands the connection's transport to the application, which is the only way to close it from there."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope["transport"] = transport
            await app(scope, receive, send)  # type: ignore[arg-type]

        self.app = with_transport  # type: ignore[assignment]


class Dropped(Response):
    """No answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Called by Starlette."""
        _transport(scope).abort()
        await _gone(receive)


class Truncated(Response):
    """All the headers and half the body, then the end of the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by Starlette."""
        body = bytes(self.body)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await cut_off(scope, receive)


async def cut_off(scope: Scope, receive: Receive) -> None:
    """End the connection after what has been sent."""
    _transport(scope).close()
    await _gone(receive)


def _transport(scope: Scope) -> asyncio.Transport:
    return cast("asyncio.Transport", scope["transport"])


async def _gone(receive: Receive) -> None:
    """Wait until the server knows: before, it would take the missing answer for a defect and send a 500."""
    while (await receive())["type"] != "http.disconnect":
        pass
