"""The command line: ``python -m local.emulator``."""

import argparse
import asyncio
import dataclasses
import logging
import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType

import uvicorn

from local.emulator.app import create_app
from local.emulator.auth import DEFAULT_KEY
from local.emulator.connection import Protocol
from local.emulator.emulator import Emulator, Options
from local.emulator.faults import WORDS
from local.emulator.kept import Kept


class Server(uvicorn.Server):
    """Prints when it is ready, and stops at once with exit code 0."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            print(f"Ready: {_url(listening)}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut open connections, as a crash does. uvicorn would answer hanging requests with a 500."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Stop on SIGINT and SIGTERM. uvicorn's own handler raises the signal again at the end."""
        self.should_exit = True


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        listening = _listen(arguments.host, arguments.port)
    except OSError as error:
        # asyncio and socket add the address to strerror; an unknown host name has no positive errno
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        print(f"Cannot listen on {arguments.host} port {arguments.port}: {reason}", file=sys.stderr)
        return 1
    options = Options(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)})
    try:
        kept = Kept(arguments.state)
        app = create_app(Emulator(options, kept=kept))
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        print(f"Cannot read the state in {arguments.state}: {error}. Delete this file to start anew.", file=sys.stderr)
        return 1
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=0,
    )
    with listening, closing(kept):
        asyncio.run(Server(config).serve(sockets=[listening]))
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _parser() -> argparse.ArgumentParser:
    width = max(len(word.usage) for word in WORDS.values()) + 2
    table = "\n".join(f"  {word.usage:{width}}{word.effect}" for word in WORDS.values())
    parser = argparse.ArgumentParser(
        prog="python -m local.emulator",
        description="An emulator of the Azure OpenAI image APIs. Details: docs/emulator.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"faults on request, as words in the prompt (:N: the first N tries only):\n{table}",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=7072, help="0: any free port (default: %(default)s)")
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="file that keeps operations and images across restarts (default: in memory only)",
    )
    add(
        "--key",
        nargs="+",
        dest="keys",
        metavar="KEY",
        default=Options.keys,
        help=f"accepted api-keys (default: {DEFAULT_KEY})",
    )
    add(
        "--speed",
        type=_number,
        default=Options.speed,
        metavar="FACTOR",
        help="multiplies all delays; 0: every operation has ended at its first poll (default: %(default)s)",
    )
    add(
        "--image-lifetime",
        type=_number,
        default=Options.image_lifetime,
        metavar="SECONDS",
        help="time until an image URL expires (default: %(default)s)",
    )
    add(
        "--location-path",
        choices=("documented", "example"),
        default=Options.location_path,
        help="path in operation-location: /openai/operations/images/ or, as in the official example, "
        "/openai/dalle/operations/images/; both are served (default: %(default)s)",
    )
    add(
        "--seconds",
        type=_number,
        default=Options.seconds,
        metavar="SECONDS",
        help="duration of a direct call, multiplied by --speed (default: %(default)s)",
    )
    add(
        "--quota",
        type=_quota,
        metavar="N",
        help="direct calls per deployment and window; 429 beyond that (default: no limit)",
    )
    add(
        "--quota-window",
        type=_number,
        default=Options.quota_window,
        metavar="SECONDS",
        help="length of a window, regardless of --speed (default: %(default)s)",
    )
    add(
        "--quota-part",
        type=_number,
        metavar="SECONDS",
        help="also allow only a proportional part of the quota in this time: Azure does so with 1 or 10 (default: off)",
    )
    return parser


def _quota(text: str) -> int:
    limit = int(text)
    if limit < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return limit


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return port


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError("must be a number, 0 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
