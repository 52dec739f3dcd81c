"""A real HTTP server with scripted answers, byte for byte. It records the requests."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

type Reply = bytes | Callable[[socket.socket], None]
"""The bytes of an answer, or a function that uses the connection. Then the connection is closed."""


@dataclass(frozen=True)
class Seen:
    """A request as received."""

    method: str
    target: str
    """Path and query, byte for byte."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass
class ScriptedServer:
    """One answer per connection. The last answer of the script repeats."""

    listening: socket.socket
    script: list[Reply] = field(default_factory=list[Reply])
    seen: list[Seen] = field(default_factory=list[Seen])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def answers(self, *script: Reply) -> None:
        """Replace the script, and clear the recorded requests."""
        self.script[:] = script
        self.seen.clear()

    def serve(self) -> None:
        """Serve until the listening socket is shut down."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        # Many tests have a client that disconnects early.
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as reader:
            request_line = reader.readline().decode("latin-1").split(" ")
            headers: dict[str, str] = {}
            while line := reader.readline().decode("latin-1").strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", "0")))
            self.seen.append(Seen(request_line[0], request_line[1], headers, body))
            reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if callable(reply):
                reply(connection)
            else:
                connection.sendall(reply)


def drip(start: bytes) -> Callable[[socket.socket], None]:
    """An answer that sends `start`, then one byte every 20 ms until the client disconnects, for 10 s at most."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(500):
            time.sleep(0.02)
            connection.sendall(b"0")

    return send


@contextlib.contextmanager
def scripted_server() -> Generator[ScriptedServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = ScriptedServer(listening)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(status: int, body: object = b"", /, **headers: str | None) -> bytes:
    """Build an answer. A body that is not bytes is sent as JSON. Header names have underscores; None omits a header."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Scripted", "Connection: close"]
    if "transfer_encoding" not in headers:
        headers.setdefault("content_length", str(len(content)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
