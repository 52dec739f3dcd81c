"""Counts what a process sends: every HTTP request and its bytes, whichever client sends it."""

from __future__ import annotations

from collections import Counter
from http.client import HTTPConnection, HTTPResponse
from threading import Lock
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from local.azurite import ACCOUNT


class Wire:
    """Patches `http.client` during a ``with`` block."""

    def __init__(self) -> None:
        self.transactions: Counter[str] = Counter()
        """Requests to storage, such as ``PUT active/``."""
        self.upstream: Counter[str] = Counter()
        """Requests to the image service, by method."""
        self.bytes = 0
        """Sent and received, with the headers of requests."""
        self._lock = Lock()

    def __enter__(self) -> Self:
        self._putrequest, self._send, self._begin = HTTPConnection.putrequest, HTTPConnection.send, HTTPResponse.begin
        wire, putrequest, send, begin = self, self._putrequest, self._send, self._begin

        def counted_putrequest(self: HTTPConnection, method: str, url: str, *args: Any, **options: Any) -> None:
            wire._count(method, url)
            putrequest(self, method, url, *args, **options)

        def counted_send(self: HTTPConnection, data: Any) -> None:
            wire._add(len(data) if isinstance(data, bytes) else 0)
            send(self, data)

        def counted_begin(self: HTTPResponse) -> None:
            begin(self)
            wire._add(int(self.headers.get("Content-Length") or 0))

        HTTPConnection.putrequest = counted_putrequest
        HTTPConnection.send = counted_send
        HTTPResponse.begin = counted_begin
        return self

    def __exit__(self, *_: object) -> None:
        HTTPConnection.putrequest, HTTPConnection.send, HTTPResponse.begin = self._putrequest, self._send, self._begin

    def _add(self, count: int) -> None:
        with self._lock:
            self.bytes += count

    def _count(self, method: str, url: str) -> None:
        with self._lock:
            if (name := _transaction(method, url)) is None:
                self.upstream[method] += 1
            else:
                self.transactions[name] += 1


def _transaction(method: str, url: str) -> str | None:
    """The kind of a request to storage; None for the image service."""
    parts = urlsplit(url)
    account, _, path = parts.path.strip("/").partition("/")
    if account != ACCOUNT:
        return None
    container, _, name = path.partition("/")
    if name.startswith("messages"):
        return f"{method} message"
    if container == "images":
        return f"{method} image"
    if name:
        folder, slash, _ = name.partition("/")
        return f"{method} {folder}{slash}"
    query = parse_qs(parts.query)
    return f"list {query.get('prefix', [''])[0]}" if query.get("comp") == ["list"] else f"{method} {container}"
