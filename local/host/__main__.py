"""`python -m local.host --port 7071 --root DIR`: run a function app until a signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from local.host import logs
from local.host.host import GRACE, Host
from local.host.logs import logger
from local.host.runtime import Worker
from local.host.settings import ConfigurationError, load
from local.host.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

# Storage calls of the listeners block; they must not wait for one another.
_STORAGE_THREADS = 64


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        listener = _listen(arguments.host, arguments.port)
        return asyncio.run(_run(arguments.root.resolve(), listener, arguments.host))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


async def _run(root: Path, listener: socket.socket, address: str) -> int:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_STORAGE_THREADS))
    stop = Stop()
    _stop_on_signals(stop)
    settings = load(root, os.environ)
    logs.configure(settings.log_levels)
    # The app and the runtime read the process environment.
    os.environ.update(settings.environ)
    host = Host(await Worker.start(root), settings)
    await host.prepare()
    base = f"http://{address}:{listener.getsockname()[1]}"
    print("Functions:", *host.describe(base), sep="\n")
    serving = asyncio.create_task(host.serve(listener, stop))
    # The socket listens already: who connects before the server's first turn waits in its backlog.
    print(f"Ready: {'/'.join(part for part in (base, settings.route_prefix) if part)}", flush=True)
    await _until_stopped(serving, stop)
    if not serving.done():
        _abandon(host)
    await serving
    print("Stopped", flush=True)
    return 0


async def _until_stopped(serving: asyncio.Task[None], stop: Stop) -> None:
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await asyncio.wait({serving}, timeout=GRACE)


def _abandon(host: Host) -> None:
    """Exit although functions are running: their threads cannot be stopped, and a clean exit would wait for them."""
    logger.warning("%d invocations did not end within %d s and are abandoned", host.invoker.running, GRACE)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _stop_on_signals(stop: Stop) -> None:
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on port {port} of {host}: {error.strerror}") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.host", description="A Functions host for development. No keys are checked."
    )
    parser.add_argument("--port", type=int, default=7071, help="0 picks a free one (default: 7071)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the function app (default: this one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
