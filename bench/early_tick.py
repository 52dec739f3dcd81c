"""Time from the end of a lone operation to the end of its generation, with and without early ticks."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import requests

from bench.services import Options, spread, table
from local.azurite import azurite
from local.stack import app_environment, emulator, functions_host

SECONDS = 8
"""Duration of an operation."""
WAYS: dict[str, dict[str, str]] = {"with": {}, "without": {"AzureWebJobs.poll_early.Disabled": "true"}}


def section(options: Options) -> str:
    count = 3 * options.rounds
    with ThreadPoolExecutor() as pool:
        lags = dict(zip(WAYS, pool.map(partial(_measure, count), WAYS.values()), strict=True))
    rows = [[way, f"{spread(found, 1)} s", ", ".join(f"{lag:.1f}" for lag in found)] for way, found in lags.items()]
    return f"""Time from the end of a lone operation of {SECONDS} s to the end of its generation, which a client sees by
asking ten times a second. Two idle apps at the same time, each with one tick a minute. The {count} rounds begin at
different seconds of the minute. In Azure, the cold start of the instance that gets the message comes on top.

{table(["early ticks", "lag", "rounds"], rows)}"""


def _measure(count: int, settings: dict[str, str]) -> list[float]:
    """The lag of each round."""
    with _app(settings) as base_url:
        lags: list[float] = []
        for number in range(count):
            _wait_for_second(5 + number * 60 / count)
            lags.append(_lag(base_url))
        return lags


@contextmanager
def _app(settings: dict[str, str]) -> Generator[str]:
    with azurite() as storage, emulator() as (endpoint, _):
        env = app_environment(storage.connection_string, endpoint, POLL_SCHEDULE="0 * * * * *", **settings)
        with functions_host(env) as (base_url, _):
            yield base_url


def _wait_for_second(second: float) -> None:
    """Wait for this second of a minute."""
    time.sleep((second - time.time()) % 60)


def _lag(base_url: str) -> float:
    """Seconds from the end of an operation to the end of its generation."""
    body = {"prompt": f"[seconds:{SECONDS}] a lighthouse"}
    location = requests.post(f"{base_url}/generations", json=body, timeout=60).headers["Location"]
    ends = time.monotonic() + SECONDS
    while (answer := requests.get(location, timeout=60)).status_code == 202:
        time.sleep(0.1)
    assert answer.json()["status"] == "succeeded", answer.text
    return time.monotonic() - ends
