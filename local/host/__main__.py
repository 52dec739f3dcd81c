"""`python -m local.host --port 7071 --root DIR`: run a function app until a signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local.host import logs
from local.host.host import Host
from local.host.listeners import Stop
from local.host.runtime import Worker, current_invocation_id
from local.host.settings import ConfigurationError, load

logger = logging.getLogger("local.host")

GRACE = 10.0
"""Seconds that running functions have after a signal, without `--grace`. Azure allows minutes, or only seconds."""

# The listeners' calls to storage block, and must not wait for one another.
_STORAGE_THREADS = 64


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        listener = _listen(arguments.host, arguments.port)
        return asyncio.run(_run(arguments, listener))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


async def _run(arguments: argparse.Namespace, listener: socket.socket) -> int:
    root: Path = arguments.root.resolve()
    grace: float = arguments.grace
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_STORAGE_THREADS, logs.STORAGE_THREADS))
    stop = Stop()
    _stop_on_signals(stop)
    settings = load(root, os.environ)
    logs.to_stderr(current_invocation_id)
    worker = await Worker.start(root)
    address = f"http://{arguments.host}:{listener.getsockname()[1]}"
    host = Host(worker, settings, address, function_key=arguments.function_key)
    serving = asyncio.create_task(_serve(host, listener, stop))
    await asyncio.wait({serving, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    _, unfinished = await asyncio.wait({serving}, timeout=grace)
    if unfinished:
        _exit_with_running_functions(worker.running, grace)
    await serving
    print("Stopped", flush=True)
    return 0


async def _serve(host: Host, listener: socket.socket, stop: Stop) -> None:
    # The socket listens already: early connections wait in its backlog.
    await host.prepare(stop)
    if stop.is_set():
        listener.close()
        return
    print("Functions:", *host.descriptions, sep="\n  ")
    print(f"Ready: {host.base_url}", flush=True)
    await host.serve(listener, stop)


def _exit_with_running_functions(count: int, grace: float) -> None:
    """End the process. Threads cannot be stopped, and a clean exit would wait for them."""
    logger.warning("%d invocations did not end within %g s and are abandoned", count, grace)
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
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on port {port} of {host}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.host",
        description="A Functions host for development. Settings come from the environment; `make start` also reads "
        "local.settings.json.",
    )
    parser.add_argument("--port", type=int, default=7071, help="0: any free port (default: 7071)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--function-key",
        metavar="KEY",
        help="what functions with the level FUNCTION require in the header x-functions-key or the query parameter "
        "`code` (default: nothing)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=GRACE,
        metavar="SECONDS",
        help="time for running functions to end after SIGTERM or SIGINT. The host then accepts no requests, receives "
        f"no messages and starts no timers. Functions that still run are abandoned (default: {GRACE:g})",
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the function app (default: this one)")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError
    return seconds


if __name__ == "__main__":
    sys.exit(main())
