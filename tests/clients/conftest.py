"""The whole app for clients to work against, and what they may share of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from local.stack import Stack, isolated_stack

COMPAT_KEY = "a-key-of-the-old-api"
HASTE = 20
"""How much faster than told a client waits here. It asks for nothing else, and in no other order, than it would."""


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    with isolated_stack("--speed", "0", POLL_SCHEDULE="* * * * * *", COMPAT_API_KEYS=COMPAT_KEY) as running:
        yield running


def hurried_sleep(seconds: float) -> None:
    time.sleep(seconds / HASTE)


@contextlib.contextmanager
def at_once[K, V](jobs: Mapping[K, Callable[[], V]]) -> Generator[Mapping[K, Future[V]]]:
    """All of these, side by side: a client mostly waits. What one raises is raised where its result is asked for."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        yield {key: pool.submit(job) for key, job in jobs.items()}


def stats(stack: Stack) -> dict[str, Any]:
    """What the image API counted."""
    return requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()


def all_generations(stack: Stack) -> list[dict[str, Any]]:
    """Every page of the list."""
    found: list[dict[str, Any]] = []
    url: str | None = f"{stack.base_url}/generations?maxpagesize=100"
    while url:
        page = requests.get(url, timeout=30).json()
        found += page["value"]
        url = page.get("nextLink")
    return found


def of_prompt(stack: Stack, prompt: str) -> list[dict[str, Any]]:
    """The generations of this prompt."""
    return [found for found in all_generations(stack) if found["request"]["prompt"] == prompt]
