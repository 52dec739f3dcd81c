"""Azurite, Microsoft's storage emulator, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local.processes import Child, ChildError, start

if TYPE_CHECKING:
    from collections.abc import Generator

ACCOUNT = "devstoreaccount1"
# Public: the key of every Azurite, https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_SCRIPT = Path(__file__).parent / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
_LISTENING = r"Azurite {} service is successfully listening at (https?://\S+)"


class AzuriteError(Exception):
    """Azurite is not installed, or did not start. The message says why and holds Azurite's own output."""


@dataclass(frozen=True)
class Azurite:
    connection_string: str
    """Account name, key and the three endpoints."""
    blob_endpoint: str
    """`http://127.0.0.1:<port>/devstoreaccount1`, https when started with a certificate."""
    queue_endpoint: str
    process: Child
    """The running Azurite; its output, and `kill` for tests of a storage account that goes away."""


@contextlib.contextmanager
def azurite(
    location: Path | None = None,
    *,
    blob_port: int = 0,
    queue_port: int = 0,
    table_port: int = 0,
    cert: Path | None = None,
    key: Path | None = None,
    timeout: float = 30,
) -> Generator[Azurite]:
    """Run Azurite on 127.0.0.1.

    Parameters
    ----------
    location
        Folder that keeps the data. None: in memory, gone at the end.
    blob_port, queue_port, table_port
        0 lets the kernel pick, and Azurite says which: no port is looked up first that another could take.
    cert, key
        PEM files. With both, Azurite speaks https and accepts Entra tokens, which user delegation keys need
        (`--oauth basic`: it checks their form, not their signature).

    Raises
    ------
    AzuriteError
        Not installed, or it did not start: a port taken, a certificate that cannot be read.
    """
    with contextlib.ExitStack() as stack:
        # Azurite writes its workspace file to the current folder when it has no location, also in memory.
        folder = location or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="azurite-")))
        folder.mkdir(parents=True, exist_ok=True)
        command = _command(folder, in_memory=location is None, ports=(blob_port, queue_port, table_port))
        command += _tls(cert, key)
        try:
            ready = _LISTENING.format("Table")
            child = stack.enter_context(start(command, ready=ready, what="Azurite", timeout=timeout))
            endpoints = [_endpoint(child, service) for service in ("Blob", "Queue", "Table")]
            for endpoint in endpoints[:2]:
                _answers(endpoint, timeout)
        except ChildError as error:  # it says what did not start
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
        raise AzuriteError("Azurite needs Node.js 20 or later, and there is no `node` on the path")
    if not _SCRIPT.is_file():
        raise AzuriteError(f"Azurite is not installed ({_SCRIPT} is missing): run `make start` or `npm ci` in local/")
    where = ["--inMemoryPersistence"] if in_memory else ["--location", str(folder)]
    # The installed SDKs speak API versions newer than any Azurite knows (12.31: 2026-10-06, Azurite 3.35:
    # 2025-11-05). Without --skipApiVersionCheck every request would be refused.
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    for service, port in zip(("blob", "queue", "table"), ports, strict=True):
        options += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
    return [node, str(_SCRIPT), *where, *options]


def _tls(cert: Path | None, key: Path | None) -> list[str]:
    if (cert is None) != (key is None):
        raise ValueError("cert and key go together")
    if cert is None:
        return []
    return ["--cert", str(cert), "--key", str(key), "--oauth", "basic"]


def _endpoint(child: Child, service: str) -> str:
    return f"{child.wait_for(_LISTENING.format(service)).group(1)}/{ACCOUNT}"


def _answers(endpoint: str, timeout: float) -> None:
    match = re.match(r"https?://([^:/]+):(\d+)/", endpoint)
    if match is None:
        raise AzuriteError(f"Azurite named an endpoint without a port: {endpoint}")
    socket.create_connection((match[1], int(match[2])), timeout).close()
