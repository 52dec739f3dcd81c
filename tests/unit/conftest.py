from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Generator[ScriptedServer]:
    with scripted_server() as running:
        yield running
