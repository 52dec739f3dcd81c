"""A reverse proxy that replaces answers with faults. The app itself receives and answers each request normally."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import requests

LOST = 0
"""Instead of a status: the proxy closes the connection without an answer."""
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}


@dataclass
class Proxy:
    base_url: str
    """URL of the app through the proxy."""
    faults: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(method, status): replaces the next answer to that method."""
    answers: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(method, status) of each answer that the client got."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str) -> int | None:
        with self.lock:
            for index, (affected, status) in enumerate(self.faults):
                if affected == method:
                    del self.faults[index]
                    return status
        return None


@contextlib.contextmanager
def faulty_proxy(base_url: str) -> Generator[Proxy]:
    """A proxy for the app at `base_url`. It passes on the Host header, so ``Location`` names the proxy too."""
    upstream = urlsplit(base_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = f"{upstream.scheme}://{upstream.netloc}{self.path}"
            answer = requests.request(
                self.command, url, headers=dict(self.headers.items()), data=body, allow_redirects=False, timeout=60
            )
            fault = proxy.fault(self.command)
            with proxy.lock:
                proxy.answers.append((self.command, answer.status_code if fault is None else fault))
            self.close_connection = True
            if fault == LOST:
                return
            self.send_response(answer.status_code if fault is None else fault)
            content = answer.content if fault is None else b"Service Unavailable"
            for name, value in answer.headers.items() if fault is None else ():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = forward  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_port}{upstream.path}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
