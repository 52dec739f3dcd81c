from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient

from local.azurite import Azurite
from local.host.__main__ import GRACE
from local.processes import Child, python, start

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "host" / "apps"

CopyApp = Callable[[str, dict[str, Any]], Path]
"""Copies one of tests/host/apps with this host.json."""


class RunHost(Protocol):
    def __call__(
        self, app: str | Path, grace: float = GRACE, /, **env: str
    ) -> AbstractContextManager[tuple[Child, str]]: ...


@pytest.fixture
def run_host() -> RunHost:
    """Run the host with one of tests/host/apps, or with the app of a path; gives the child and its base URL."""

    @contextlib.contextmanager
    def run(app: str | Path, grace: float = GRACE, /, **env: str) -> Generator[tuple[Child, str]]:
        command = python("local.host", "--port", "0", "--root", str(APPS / app), "--grace", str(grace))
        with start(command, ready=r"Ready: http", env=env, cwd=ROOT) as child:
            yield child, child.ready_line.split()[1]

    return run


@pytest.fixture
def copy_app(tmp_path: Path) -> CopyApp:
    def copy(app: str, host_json: dict[str, Any]) -> Path:
        shutil.copytree(APPS / app, tmp_path / app, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / app / "host.json").write_text(json.dumps(host_json))
        return tmp_path / app

    return copy


class Queues:
    """The queues of the app `queues`, for one test."""

    def __init__(self, connection_string: str) -> None:
        name = uuid4().hex
        self.env = {
            "AzureWebJobsStorage": connection_string,
            "IN": f"in-{name}",
            "OUT": f"out-{name}",
        }
        self.incoming, self.outgoing, self.poison = (
            QueueClient.from_connection_string(connection_string, queue)
            for queue in (f"in-{name}", f"out-{name}", f"in-{name}-poison")
        )
        self.outgoing.create_queue()

    def receive(self, client: QueueClient) -> str | None:
        """Return the content of the queue's next message and delete it. None: the queue is empty or missing."""
        try:
            message = client.receive_message()
        except ResourceNotFoundError:
            return None
        if message is None:
            return None
        client.delete_message(message)
        return str(message.content)


@pytest.fixture
def queues(azurite: Azurite) -> Queues:
    return Queues(azurite.connection_string)
