"""A real HTTP server that answers what a test tells it to, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

type Reply = bytes | Callable[[socket.socket], None]
"""The bytes of an answer, or what to do with the connection. The connection is closed after it."""


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    method: str
    target: str
    """Byte for byte."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass
class ScriptedServer:
    """One connection, one answer; the last answer of the script is given for ever."""

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
        """From now on; what was asked before is forgotten."""
        self.script[:] = script
        self.seen.clear()

    def serve(self) -> None:
        """Until the listening socket is shut down."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        # A client that hangs up in the middle is what many tests are about.
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
    """An answer. A body that is no bytes goes as JSON. Header names have underscores; None leaves one out."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", "Connection: close"]
    if "transfer_encoding" not in headers:
        headers.setdefault("content_length", str(len(content)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
