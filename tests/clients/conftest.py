"""The running app for the client tests, and functions that they share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from local.stack import Stack, isolated_stack

COMPAT_KEY = "a-key-of-the-retired-api"
SPEED_UP = 20
"""Clients wait this many times shorter than `Retry-After` says. Their requests and the order stay the same."""


@pytest.fixture(scope="session")
def stack() -> Generator[Stack]:
    with isolated_stack("--speed", "0", POLL_SCHEDULE="* * * * * *", COMPAT_API_KEYS=COMPAT_KEY) as running:
        yield running


def fast_sleep(seconds: float) -> None:
    time.sleep(seconds / SPEED_UP)


@contextlib.contextmanager
def in_parallel[K, V](jobs: Mapping[K, Callable[[], V]]) -> Generator[Mapping[K, Future[V]]]:
    """Run the jobs in threads, because a client mostly waits. ``result()`` raises what its job raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        yield {key: pool.submit(job) for key, job in jobs.items()}


def stats(stack: Stack) -> dict[str, Any]:
    """The counters of the emulator."""
    return requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()


def all_generations(stack: Stack) -> list[dict[str, Any]]:
    """The generations on all pages of the list."""
    found: list[dict[str, Any]] = []
    url: str | None = f"{stack.base_url}/generations?maxpagesize=100"
    while url:
        page = requests.get(url, timeout=30).json()
        found += page["value"]
        url = page.get("nextLink")
    return found


def generations_of(stack: Stack, prompt: str) -> list[dict[str, Any]]:
    """The generations with this prompt."""
    return [found for found in all_generations(stack) if found["request"]["prompt"] == prompt]
