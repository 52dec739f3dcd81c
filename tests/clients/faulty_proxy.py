"""A reverse proxy that spoils the first answers: between it and the app everything went well."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import requests

LOST = 0
"""In place of a status: the connection is closed without an answer."""
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}


@dataclass
class Proxy:
    """Where it is, and what passed it."""

    base_url: str
    """Of the app, seen through the proxy."""
    faults: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(method, status): this is what comes back instead of the next answer to that method."""
    seen: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(method, status) of each answer that came back."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str) -> int | None:
        with self.lock:
            for index, (of, status) in enumerate(self.faults):
                if of == method:
                    del self.faults[index]
                    return status
        return None


@contextlib.contextmanager
def faulty_proxy(base_url: str) -> Generator[Proxy]:
    """Before the app at `base_url`. Location leads through it too: it hands the Host header on."""
    upstream = urlsplit(base_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = f"{upstream.scheme}://{upstream.netloc}{self.path}"
            answer = requests.request(
                self.command, url, headers=dict(self.headers.items()), data=body, allow_redirects=False, timeout=60
            )
            fault = proxy.fault(self.command)
            with proxy.lock:
                proxy.seen.append((self.command, answer.status_code if fault is None else fault))
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

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815 - the names that http.server looks for

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
