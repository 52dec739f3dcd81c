"""A proxy before Azurite that delays and resets requests, answers with errors, loses responses, and repeats writes."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Generator
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit


class Fault(StrEnum):
    NONE = "none"
    DELAY = "delayed"
    RESET = "reset"
    """The connection is reset before the request reaches Azurite."""
    ERROR_500 = "500"
    ERROR_503 = "503"
    LOST = "response lost"
    """Azurite carries out the request. Then the connection is reset."""
    TWICE = "sent twice"
    """Azurite gets the request twice, as from a gateway that retries. The host gets the second response."""


_WEIGHTS: Final = {
    Fault.NONE: 93.0,
    Fault.DELAY: 2.0,
    Fault.RESET: 1.0,
    Fault.ERROR_500: 1.0,
    Fault.ERROR_503: 1.0,
    Fault.LOST: 1.0,
    Fault.TWICE: 1.0,
}
_CODES: Final = {Fault.ERROR_500: "InternalError", Fault.ERROR_503: "ServerBusy"}
_MOST_DELAY: Final = 2.0
_TIMEOUT: Final = 60.0
_MOST_IDLE: Final = 3.0
_WRITES: Final = frozenset({"PUT", "POST", "DELETE"})
_ONLY_WRITES: Final = frozenset({Fault.LOST, Fault.TWICE})
# http.server and http.client handle these for each connection.
_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length"})
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: `close` sends RST."""


class Faults:
    """Draws a fault for each request. Thread-safe."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)
        self._lock = threading.Lock()
        self._active = True
        self.counts: Counter[str] = Counter()

    def draw(self, method: str) -> tuple[Fault, float]:
        """Return the fault of the next request and the seconds of its delay."""
        with self._lock:
            fault = self._choose.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
            seconds = self._choose.uniform(0, _MOST_DELAY)
            if not self._active or (fault in _ONLY_WRITES and method not in _WRITES):
                fault = Fault.NONE
            self.counts[fault.value] += 1
            return fault, seconds if fault is Fault.DELAY else 0.0

    def stop(self) -> None:
        """Pass on every request from now on."""
        with self._lock:
            self._active = False

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, target: tuple[str, int], faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.faults = faults

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a killed host leaves broken connections."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a host, with a connection of its own to Azurite."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - no other server uses this class
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._faults = self.server.faults
        self._upstream = HTTPConnection(*self.server.target, timeout=_TIMEOUT)
        self._used = time.monotonic()

    def finish(self) -> None:
        self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the host was killed while it sent
            self.close_connection = True
            return
        fault, seconds = self._faults.draw(self.command)
        time.sleep(seconds)
        if fault is Fault.RESET:
            self._reset()
        elif fault in _CODES:
            self._refuse(fault)
        else:
            self._pass_on(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - the names that http.server looks for

    def _pass_on(self, body: bytes, fault: Fault) -> None:
        try:
            answer, content = self._ask(body)
            if fault is Fault.TWICE:
                answer, content = self._ask_again(body, answer.status)
        except (OSError, HTTPException) as error:
            self._faults.count(f"failed at Azurite with {type(error).__name__}")
            self._reset()
            return
        if answer.status == 412:
            self._faults.count("412 of Azurite")
        if fault is Fault.LOST:
            self._reset()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", length)
        self._send(content)

    def _ask_again(self, body: bytes, first: int) -> tuple[HTTPResponse, bytes]:
        answer, content = self._ask(body)
        if first < 300 <= answer.status:
            self._faults.count(f"written, then {answer.status}")
        return answer, content

    def _ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        """Send the request on. The path and the headers stay as they are, because the client signed them."""
        if time.monotonic() - self._used > _MOST_IDLE:
            self._upstream.close()  # Azurite closes idle connections too. The next request opens it again.
        self._upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"connection", "expect"}:
                self._upstream.putheader(name, value)
        self._upstream.endheaders(body or None)
        answer = self._upstream.getresponse()
        content = answer.read()
        self._used = time.monotonic()
        return answer, content

    def _refuse(self, fault: Fault) -> None:
        code = _CODES[fault]
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>chaos</Message></Error>".encode()
        self.send_response_only(int(fault.value))
        self.send_header("x-ms-error-code", code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self._send(b"" if self.command == "HEAD" else content)

    def _send(self, content: bytes) -> None:
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        pass


@contextlib.contextmanager
def storage_proxy(endpoint: str, faults: Faults) -> Generator[str]:
    """Run a proxy for this endpoint. Yields the endpoint to use instead."""
    target = urlsplit(endpoint)
    with _Server((target.hostname or "", target.port or 80), faults) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{target.path}"
        finally:
            server.shutdown()
            thread.join()
