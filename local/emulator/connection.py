"""Responses that break the connection, which plain ASGI cannot do."""

import asyncio
import socket
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """Give the transport of the connection to the application: only the transport can close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does it only for sockets with a protocol number, and this server's have none. Otherwise each response,
        # which is written in two parts, waits 40 ms for an acknowledgement of the first part.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope["transport"] = transport
            await app(scope, receive, send)  # type: ignore[arg-type]

        self.app = with_transport  # type: ignore[assignment]


class Dropped(Response):
    """No response: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        _transport(scope).abort()
        await _disconnected(receive)


class Truncated(Response):
    """All headers and half of the body, then the end of the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        _transport(scope).close()
        await _disconnected(receive)


def _transport(scope: Scope) -> asyncio.Transport:
    return cast("asyncio.Transport", scope["transport"])


async def _disconnected(receive: Receive) -> None:
    """Wait until uvicorn notices. Before that, it would treat the missing response as a defect and send a 500."""
    while (await receive())["type"] != "http.disconnect":
        pass
