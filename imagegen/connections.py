"""Connections that notice a dead peer, and responses that end in time.

Outbound NAT in Azure drops flows that are silent for four minutes, and an image model may be silent for longer. TCP
keep-alive prevents that. And a server that sends a header byte now and then never causes a read timeout: a deadline
bounds the response as a whole.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Buffer, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_IDLE_SECONDS: Final = 60
_PROBE_SECONDS: Final = 30
_PROBES: Final = 4


def _keep_alive() -> list[tuple[int, int, int | bytes]]:
    """Socket options. The names of the intervals differ by platform; a platform without them uses its defaults."""
    options: list[tuple[int, int, int | bytes]] = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    intervals = {"TCP_KEEPIDLE": _IDLE_SECONDS, "TCP_KEEPINTVL": _PROBE_SECONDS, "TCP_KEEPCNT": _PROBES}
    for name, value in intervals.items():
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


KEEP_ALIVE: Final = _keep_alive()

_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)
"""Of `time.monotonic`: end of the response that this thread waits for."""


@contextmanager
def response_deadline(seconds: float) -> Generator[None]:
    """Bound every response that begins inside, from now to its last byte."""
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


class _BoundedReader(io.RawIOBase):
    """Reads from a socket until a deadline, however slowly the bytes arrive."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline: float) -> None:
        self._sock = sock
        self._raw = raw
        self._deadline = deadline
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response did not end in time")
        self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
        return self._raw.readinto(buffer)  # pyright: ignore[reportArgumentType, reportUnknownVariableType] - as RawIOBase

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        if (deadline := _DEADLINE.get()) is not None:
            self.fp = io.BufferedReader(_BoundedReader(sock, self.fp.detach(), deadline))


class BoundedConnection(HTTPConnection):
    response_class = _BoundedResponse


class BoundedSecureConnection(HTTPSConnection):
    response_class = _BoundedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = BoundedConnection  # pyright: ignore[reportAssignmentType] - as urllib3's own class is


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = BoundedSecureConnection  # pyright: ignore[reportAssignmentType] - as above


type Pools = dict[str, type[HTTPConnectionPool | HTTPSConnectionPool]]
"""By the scheme of the URL."""

POOLS: Final[Pools] = {"http": _Pool, "https": _SecurePool}


class BoundedAdapter(HTTPAdapter):
    """Keep-alive sockets, and responses that obey `response_deadline`; through a proxy too."""

    pools: Pools = POOLS
    proxied_pools: Pools = POOLS

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, socket_options=KEEP_ALIVE)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options, socket_options=KEEP_ALIVE)
        manager.pool_classes_by_scheme = self.proxied_pools
        return manager


def bound(adapter: HTTPAdapter, *, connections: int) -> None:
    """Make an adapter of another library like a `BoundedAdapter`, except through a proxy.

    Parameters
    ----------
    connections
        The number of threads that send at the same time.
    """
    adapter.init_poolmanager(10, connections, socket_options=KEEP_ALIVE)
    adapter.poolmanager.pool_classes_by_scheme = POOLS
