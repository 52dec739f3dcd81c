"""The command line: ``python -m local.emulator``."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from types import FrameType

import uvicorn

from local.emulator.app import create_app
from local.emulator.auth import DEFAULT_KEY
from local.emulator.connection import Protocol
from local.emulator.emulator import Emulator, Options
from local.emulator.faults import WORDS


class Server(uvicorn.Server):
    """Says when it listens, and stops at once with code 0: nobody waits for a test double."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        for listening in sockets or []:
            print(f"Ready: {_url(listening)}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn, which would answer what still hangs with a 500: cut it off, as a crash does."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Called on SIGINT and SIGTERM; uvicorn's own raises the signal again in the end, so not called."""
        self.should_exit = True


def main() -> int:
    """Serve until told to stop."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        listening = _listen(arguments.host, arguments.port)
    except OSError as error:
        # asyncio and socket put the address into strerror; a name that does not resolve has no errno to look up
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        print(f"Cannot listen on {arguments.host} port {arguments.port}: {reason}", file=sys.stderr)
        return 1
    options = Options(
        keys=tuple(arguments.key),
        speed=arguments.speed,
        image_lifetime=arguments.image_lifetime,
        location_path=arguments.location_path,
        seconds=arguments.seconds,
        quota=arguments.quota,
        quota_window=arguments.quota_window,
    )
    config = uvicorn.Config(
        create_app(Emulator(options)),
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
    with listening:
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
    table = "\n".join(f"  {word.usage:{width}}{word.does}" for word in WORDS.values())
    parser = argparse.ArgumentParser(
        prog="python -m local.emulator",
        description="An emulator of the Azure OpenAI image APIs. Details: docs/emulator.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"failures on request, as words in the prompt (:N: the first N tries only):\n{table}",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7072, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--key", nargs="+", default=[DEFAULT_KEY], help=f"api-keys to accept (default: {DEFAULT_KEY})")
    parser.add_argument(
        "--speed",
        type=_seconds,
        default=1.0,
        metavar="FACTOR",
        help="delays are multiplied by it; 0: done at the first poll (default: %(default)s)",
    )
    parser.add_argument(
        "--image-lifetime",
        type=_seconds,
        default=86_400.0,
        metavar="SECONDS",
        help="how long an image URL is good for (default: %(default)s)",
    )
    parser.add_argument(
        "--location-path",
        choices=("documented", "example"),
        default="documented",
        help="path in operation-location: /openai/operations/images/ or the official example's "
        "/openai/dalle/operations/images/; both are served (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=8.0,
        metavar="SECONDS",
        help="what a call takes that answers with the picture, multiplied by --speed (default: %(default)s)",
    )
    parser.add_argument(
        "--quota",
        type=_quota,
        metavar="N",
        help="such calls for each deployment and window, 429 after that (default: no limit)",
    )
    parser.add_argument(
        "--quota-window",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a window is; --speed leaves it alone (default: %(default)s)",
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


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError("must be a number, 0 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
