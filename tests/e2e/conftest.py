"""The whole app as processes: host, emulator, Azurite, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
import requests

from local.stack import Stack, isolated_stack

PATIENCE = 60.0
"""Seconds. Only ever reached by a test that fails."""


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    with isolated_stack("--speed", "0.2", POLL_SCHEDULE="*/2 * * * * *") as running:
        yield running


def until[T](look: Callable[[], T | None], *, what: str) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    pytest.fail(f"{PATIENCE:.0f} s passed without {what}")


def start(base_url: str, prompt: str, **fields: Any) -> requests.Response:
    """POST a generation; its answer must be the 202 that it always is."""
    answer = requests.post(f"{base_url}/generations", json={"prompt": prompt, **fields}, timeout=30)
    assert answer.status_code == 202, answer.text
    return answer


def result(location: str) -> requests.Response:
    """Follow Location until it is no longer 202."""

    def look() -> requests.Response | None:
        answer = requests.get(location, timeout=30)
        return None if answer.status_code == 202 else answer

    return until(look, what="a result")


def operations_of(stack: Stack) -> dict[str, Any]:
    """What the emulator counted, by generation id: our id is its operation's."""
    return requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["by_operation"]
