from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient

from local.azurite import Azurite
from local.processes import Child, python, start

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "host" / "apps"


class RunHost(Protocol):
    def __call__(self, app: str, **env: str) -> AbstractContextManager[tuple[Child, str]]: ...


@pytest.fixture
def run_host() -> RunHost:
    """Run the host with one of tests/host/apps; gives the child and its base URL."""

    @contextlib.contextmanager
    def run(app: str, **env: str) -> Generator[tuple[Child, str]]:
        command = python("local.host", "--port", "0", "--root", str(APPS / app))
        with start(command, ready=r"Ready: http", env=env, cwd=ROOT) as child:
            yield child, child.ready_line.split()[1]

    return run


class QueuePair:
    """What the app `queues` reads from and writes to, for one test alone."""

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

    def take(self, client: QueueClient) -> str | None:
        """Return the content of the queue's next message and delete it; None if there is none."""
        try:
            message = client.receive_message()
        except ResourceNotFoundError:
            return None
        if message is None:
            return None
        client.delete_message(message)
        return str(message.content)


@pytest.fixture
def queue_pair(azurite: Azurite) -> QueuePair:
    return QueuePair(azurite.connection_string)
