# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trustme
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.azurite import Azurite, AzuriteError, azurite
from local.processes import start

if TYPE_CHECKING:
    from pathlib import Path


def containers(storage: Azurite) -> list[str]:
    with BlobServiceClient.from_connection_string(storage.connection_string) as service:
        return [str(container.name) for container in service.list_containers()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_installed_sdks_reach_blobs_and_queues(azurite: Azurite) -> None:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as blobs:
        assert blobs.url.rstrip("/") == azurite.blob_endpoint
        blobs.create_container("from-test-azurite")
    assert "from-test-azurite" in containers(azurite)
    with QueueServiceClient.from_connection_string(azurite.connection_string) as queues:
        assert queues.url.rstrip("/") == azurite.queue_endpoint
        assert queues.create_queue("from-test-azurite").get_queue_properties().name == "from-test-azurite"


def test_data_is_kept_with_a_location_only(tmp_path: Path) -> None:
    with azurite(tmp_path) as storage, BlobServiceClient.from_connection_string(storage.connection_string) as blobs:
        blobs.create_container("kept")
    with azurite(tmp_path) as storage:
        assert containers(storage) == ["kept"]
    with azurite() as storage:
        assert containers(storage) == []


def test_azurite_ends_with_the_block() -> None:
    with azurite() as storage:
        pid = storage.process.pid
    assert not is_running(pid)


def test_azurite_ends_with_a_killed_parent() -> None:
    script = """
import time
from local.azurite import azurite
with azurite() as storage:
    print("pid", storage.process.pid, flush=True)
    time.sleep(600)
"""
    with start([sys.executable, "-c", script], ready=r"pid \d+") as parent:
        pid = int(parent.ready_line.split()[1])
        parent.signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 60
        while is_running(pid):
            assert time.monotonic() < deadline, "Azurite outlived its parent"
            time.sleep(0.02)


def test_killed_parent_loses_no_data(tmp_path: Path) -> None:
    # Azurite itself writes every five seconds.
    script = """
import os, signal, sys, threading
from pathlib import Path
from azure.storage.blob import BlobServiceClient
from local.azurite import azurite
for _ in range(8):  # a parent with threads, such as the pool of make start
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with azurite(Path(sys.argv[1])) as storage:
    print("pid", storage.process.pid, flush=True)
    with BlobServiceClient.from_connection_string(storage.connection_string) as blobs:
        blobs.create_container("just-written")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with start([sys.executable, "-c", script, str(tmp_path)], ready=r"pid \d+") as parent:
        pid = int(parent.ready_line.split()[1])
        assert parent.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while is_running(pid):
            assert time.monotonic() < deadline, "Azurite outlived its parent"
            time.sleep(0.02)
    with azurite(tmp_path) as storage:
        assert containers(storage) == ["just-written"]


def test_port_in_use_shows_the_output_of_azurite() -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        with pytest.raises(AzuriteError, match="EADDRINUSE"), azurite(blob_port=port):
            pass


def test_missing_azurite_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("local.azurite._SCRIPT", tmp_path / "azurite.js")
    with pytest.raises(AzuriteError, match="make start"), azurite():
        pass


def test_certificate_enables_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    with azurite(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem") as storage:
        assert storage.blob_endpoint.startswith("https://127.0.0.1:")
        service = BlobServiceClient.from_connection_string(
            storage.connection_string, connection_verify=str(tmp_path / "ca.pem")
        )
        with service:
            service.create_container("secure")
            assert [str(container.name) for container in service.list_containers()] == ["secure"]
