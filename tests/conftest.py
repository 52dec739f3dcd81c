from __future__ import annotations

from collections.abc import Generator

import pytest

from local.azurite import Azurite
from local.azurite import azurite as running_azurite
from tests.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Generator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture(scope="session")
def azurite() -> Generator[Azurite]:
    """One Azurite in memory for the whole run: a test makes its own containers and queues."""
    with running_azurite() as storage:
        yield storage
