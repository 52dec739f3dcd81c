"""A proxy before Azurite that fails every request while a test says so."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from local.azurite import ACCOUNT, ACCOUNT_KEY, Azurite


class Failure(StrEnum):
    ERROR_500 = "500 without a body"
    ERROR_503 = "503 of storage"
    RESET = "reset"
    LOST = "request carried out, response lost"
    TRUNCATED = "body shorter than announced"


_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: `close` sends RST."""
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


@dataclass
class FailingStorage:
    """The blob and the queue service of one account, through the proxy."""

    connection_string: str = ""
    failure: Failure | None = None
    """What happens to each request. None: the proxy passes it on."""
    only: str = ""
    """Fails only requests whose method and path contain this text."""
    failed: list[str] = field(default_factory=list[str])
    """Method and path of each failed request."""

    def failure_of(self, request: str) -> Failure | None:
        if self.failure is None or self.only not in request:
            return None
        self.failed.append(request)
        return self.failure


@contextlib.contextmanager
def failing_storage(azurite: Azurite) -> Generator[FailingStorage]:
    storage = FailingStorage()
    with _proxy(azurite.blob_endpoint, storage) as blob, _proxy(azurite.queue_endpoint, storage) as queue:
        storage.connection_string = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={blob};QueueEndpoint={queue};"
        )
        yield storage


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, endpoint: str, storage: FailingStorage) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(endpoint)
        self.storage = storage
        self.url = f"http://127.0.0.1:{self.server_port}{self.target.path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a host that ends leaves broken connections."""


class _Handler(BaseHTTPRequestHandler):
    """One request. Path and headers stay as they are, because the client signed them."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - no other server uses this class

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.server.storage.failure_of(f"{self.command} {self.path}"):
            case Failure.ERROR_500:
                self._answer(500, b"")
            case Failure.ERROR_503:
                self._answer(503, b"<?xml version='1.0'?><Error><Code>ServerBusy</Code></Error>")
            case Failure.RESET:
                self._reset()
            case Failure.LOST:
                self._ask(body)
                self._reset()
            case Failure.TRUNCATED:
                self._answer(200, b"<?xml", length=500)
            case None:
                self._answer(*self._ask(body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - the names that http.server looks for

    def _ask(self, body: bytes) -> tuple[int, bytes, list[tuple[str, str]]]:
        target = self.server.target
        with contextlib.closing(HTTPConnection(target.hostname or "", target.port, timeout=30)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheaders()

    def _answer(
        self, status: int, content: bytes, headers: Sequence[tuple[str, str]] = (), *, length: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        pass


@contextlib.contextmanager
def _proxy(endpoint: str, storage: FailingStorage) -> Generator[str]:
    with _Server(endpoint, storage) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()
