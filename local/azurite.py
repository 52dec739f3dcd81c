"""Azurite, Microsoft's storage emulator, as a context manager."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local.processes import Child, ChildError, start

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

ACCOUNT = "devstoreaccount1"
# Public: the key of every Azurite, https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
# pragma: allowlist nextline secret
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_SCRIPT = Path(__file__).parent / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
# When the parent is killed, Azurite must still write its data. The closed pipe to the parent would end it at its next
# message. A second SIGTERM would too, and the kernel sends one for each thread of the parent.
_END_IN_ORDER = (
    "data:text/javascript,"
    "for (const out of [process.stdout, process.stderr]) out.on('error', () => {}); process.on('SIGTERM', () => {});"
)
_LISTENING = r"Azurite {} service is successfully listening at (https?://\S+)"


class AzuriteError(Exception):
    """Azurite is not installed, or it did not start. The message contains the output of Azurite."""


@dataclass(frozen=True)
class Azurite:
    connection_string: str
    """Account name, key and the three endpoints."""
    blob_endpoint: str
    """`http://127.0.0.1:<port>/devstoreaccount1`, or https with a certificate."""
    queue_endpoint: str
    process: Child
    """The running process. Tests of a failing storage account `kill` it."""


@contextlib.contextmanager
def azurite(
    location: Path | None = None,
    *,
    blob_port: int = 0,
    queue_port: int = 0,
    table_port: int = 0,
    cert: Path | None = None,
    key: Path | None = None,
    keep_open: Collection[int] = (),
    access_log: bool = False,
    timeout: float = 30,
) -> Generator[Azurite]:
    """Run Azurite on 127.0.0.1.

    Parameters
    ----------
    location
        Folder for the data. None keeps the data in memory.
    blob_port, queue_port, table_port
        0: any free port. The kernel chooses it and Azurite prints it, so no other process can take it in between.
    cert, key
        PEM files. With both, Azurite speaks https and accepts Entra tokens, which user delegation keys need
        (`--oauth basic`: Azurite checks their form, not their signature).
    keep_open
        File descriptors that Azurite inherits.
    access_log
        Whether Azurite prints a line for each request.

    Raises
    ------
    AzuriteError
        Azurite is not installed, or it did not start, for example because a port is in use.
    """
    with contextlib.ExitStack() as stack:
        # Without a location, Azurite writes a workspace file to the current folder, even in memory.
        folder = location or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="azurite-")))
        folder.mkdir(parents=True, exist_ok=True)
        command = _command(folder, in_memory=location is None, ports=(blob_port, queue_port, table_port))
        command += _tls(cert, key)
        command += [] if access_log else ["--silent"]
        try:
            ready = _LISTENING.format("Table")
            # Azurite writes its lists of blobs and messages to disk every five seconds, and when SIGTERM ends it. So
            # a killed parent loses nothing.
            child = stack.enter_context(
                start(
                    command,
                    ready=ready,
                    name="Azurite",
                    timeout=timeout,
                    keep_open=keep_open,
                    death_signal=signal.SIGTERM,
                )
            )
            endpoints = [_endpoint(child, service) for service in ("Blob", "Queue", "Table")]
            for endpoint in endpoints[:2]:
                _check_connection(endpoint, timeout)
        except ChildError as error:
            raise AzuriteError(str(error)) from error
        except OSError as error:
            raise AzuriteError(f"Azurite did not start: {error}") from error
        blob, queue, table = endpoints
        yield Azurite(
            connection_string=(
                f"DefaultEndpointsProtocol={blob.partition(':')[0]};AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
                f"BlobEndpoint={blob};QueueEndpoint={queue};TableEndpoint={table};"
            ),
            blob_endpoint=blob,
            queue_endpoint=queue,
            process=child,
        )


def _command(folder: Path, *, in_memory: bool, ports: tuple[int, int, int]) -> list[str]:
    node = shutil.which("node")
    if node is None:
        raise AzuriteError("Azurite needs Node.js, but `node` is not on the PATH: install Node.js 20 or later")
    if not _SCRIPT.is_file():
        raise AzuriteError(f"Azurite is not installed ({_SCRIPT} is missing): run `make start`, or `npm ci` in local/")
    where = ["--inMemoryPersistence"] if in_memory else ["--location", str(folder)]
    # The installed SDKs send a newer API version than Azurite supports (12.31: 2026-10-06, Azurite 3.35: 2025-11-05).
    # Without --skipApiVersionCheck, Azurite refuses every request.
    options = ["--disableTelemetry", "--skipApiVersionCheck"]
    for service, port in zip(("blob", "queue", "table"), ports, strict=True):
        options += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    return [node, "--import", _END_IN_ORDER, str(_SCRIPT), *where, *options]


def _tls(cert: Path | None, key: Path | None) -> list[str]:
    if (cert is None) != (key is None):
        raise ValueError("cert and key must be given together")
    if cert is None:
        return []
    return ["--cert", str(cert), "--key", str(key), "--oauth", "basic"]


def _endpoint(child: Child, service: str) -> str:
    return f"{child.wait_for(_LISTENING.format(service)).group(1)}/{ACCOUNT}"


def _check_connection(endpoint: str, timeout: float) -> None:
    match = re.match(r"https?://([^:/]+):(\d+)/", endpoint)
    if match is None:
        raise AzuriteError(f"Azurite printed an endpoint without a port: {endpoint}")
    socket.create_connection((match[1], int(match[2])), timeout).close()
