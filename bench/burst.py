"""Duration of a burst relative to the minimum that the quota allows, and what it costs in storage."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

import requests

from bench.services import Options
from local.azurite import Azurite, azurite
from local.stack import app_environment, emulator, functions_host

QUOTA, WINDOW = 10, 3
"""Calls that the model allows per window; seconds of a window."""
TIMEOUT_SECONDS = 300
_WRITE = re.compile(
    r'"(?:PUT /devstoreaccount1/generations/(active|done|throttling)/|POST /devstoreaccount1/[^/ ]+/(messages))'
)


def section(options: Options) -> str:
    count = options.generations
    rows = [
        ("learned from 429s", _burst(count)),
        ("configured", _burst(count, AZURE_OPENAI_REQUESTS_PER_MINUTE=str(QUOTA * 60 // WINDOW))),
    ]
    table = "\n".join(f"| {name} | {row}" for name, row in rows)
    return f"""{count} requests at once, to a model that allows {QUOTA} calls in {WINDOW} seconds, on one instance.
Time: relative to the minimum of the quota ({_minimum(count):.0f} s). Record writes and messages: for each generation.

| quota | outcomes | time | 429s | most calls for one | record writes | messages | writes of the pace |
| --- | --- | --- | --- | --- | --- | --- | --- |
{table}"""


def _minimum(count: int) -> float:
    return max(1, (count / QUOTA - 1) * WINDOW)


def _burst(count: int, **settings: str) -> str:
    """The cells of a row of the table."""
    model = {"AZURE_OPENAI_API": "images", "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2", "POLL_SCHEDULE": "*/2 * * * * *"}
    with (
        azurite(access_log=True) as storage,
        _counted_writes(storage) as writes,
        emulator("--speed", "0", "--quota", str(QUOTA), "--quota-window", str(WINDOW)) as (endpoint, _),
        functions_host(app_environment(storage.connection_string, endpoint, **model, **settings)) as (base_url, _),
    ):
        began = time.monotonic()
        ended = Counter(_drain(_start(base_url, count), began))
        seconds = time.monotonic() - began
        counted = requests.get(f"{endpoint}/_emulator/stats", timeout=10).json()
    most = max(counted["billed_by_client_request_id"].values())
    outcomes = ", ".join(f"{number} {status}" for status, number in ended.items())
    throttled = counted["by_deployment"]["gpt-image-2"]["throttled"]
    records, messages = (writes["active"] + writes["done"]) / count, writes["messages"] / count
    return (
        f"{outcomes} | {seconds / _minimum(count):.2f} | {throttled} | {most} | {records:.1f} | {messages:.1f} | "
        f"{writes['throttling']} |"
    )


@contextmanager
def _counted_writes(storage: Azurite) -> Generator[Counter[str]]:
    """Count the writes of records and paces, and the messages."""
    counted = Counter[str]()

    def count() -> None:
        for line in storage.process.lines():
            if found := _WRITE.search(line):
                counted[found[1] or found[2]] += 1

    Thread(target=count, daemon=True).start()
    yield counted


def _start(base_url: str, count: int) -> list[str]:
    def post(number: int) -> str:
        body = {"prompt": f"burst {number}"}
        return requests.post(f"{base_url}/generations", json=body, timeout=60).headers["Location"]

    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(post, range(count)))


def _drain(locations: list[str], began: float) -> list[str]:
    ended: list[str] = []
    while locations and time.monotonic() - began < TIMEOUT_SECONDS:
        answers = {location: requests.get(location, timeout=60) for location in locations}
        ended += [answer.json()["status"] for answer in answers.values() if answer.status_code != 202]
        locations = [location for location, answer in answers.items() if answer.status_code == 202]
        time.sleep(0.5)
    return ended
