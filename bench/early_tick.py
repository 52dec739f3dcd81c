"""Time from the end of a lone operation to its image, with and without early ticks: ``python -m bench.early_tick``.

Both apps have the default schedule, one tick a minute, and no other work. The result is in docs/benchmarks.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import requests

from local.azurite import azurite
from local.stack import app_environment, emulator, functions_host

SECONDS, ROUNDS = 8, 9
"""Duration of an operation; rounds, which begin at different seconds of the minute."""
WAYS = {"with": {}, "without": {"AzureWebJobs.poll_early.Disabled": "true"}}


def main() -> None:
    with ThreadPoolExecutor() as pool:
        lags = dict(zip(WAYS, pool.map(_measure, WAYS.values()), strict=True))
    for way, found in lags.items():
        rounds = ", ".join(f"{lag:.1f}" for lag in found)
        print(f"{way} early ticks: median {statistics.median(found):.1f} s, of {rounds}")


def _measure(settings: dict[str, str]) -> list[float]:
    """The lag of each round."""
    with _app(settings) as base_url:
        lags: list[float] = []
        for number in range(ROUNDS):
            _wait_for_second(5 + number * 60 / ROUNDS)
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


if __name__ == "__main__":
    main()
