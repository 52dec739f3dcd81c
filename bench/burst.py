"""Duration of a burst relative to the minimum that the quota allows."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import requests

from bench.services import Options
from local.azurite import azurite
from local.stack import app_environment, emulator, functions_host

QUOTA, WINDOW = 10, 3
"""Calls that the model allows per window; seconds of a window."""
TIMEOUT_SECONDS = 300


def section(options: Options) -> str:
    count = options.generations
    model = {"AZURE_OPENAI_API": "images", "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2", "POLL_SCHEDULE": "*/2 * * * * *"}
    with (
        azurite() as storage,
        emulator("--speed", "0", "--quota", str(QUOTA), "--quota-window", str(WINDOW)) as (endpoint, _),
        functions_host(app_environment(storage.connection_string, endpoint, **model)) as (base_url, _),
    ):
        began = time.monotonic()
        ended = Counter(_drain(_start(base_url, count), began))
        seconds = time.monotonic() - began
        counted = requests.get(f"{endpoint}/_emulator/stats", timeout=10).json()
    deployment = counted["by_deployment"]["gpt-image-2"]
    ideal = max(1, (count / QUOTA - 1) * WINDOW)
    most = max(counted["billed_by_client_request_id"].values())
    outcomes = ", ".join(f"{number} {status}" for status, number in ended.items())
    return f"""{count} requests at once, to a model that allows {QUOTA} calls in {WINDOW} seconds, on one instance:
{outcomes} in {seconds:.0f} s, **{seconds / ideal:.2f} times** the minimum of the quota ({ideal:.0f} s). The service
answered 429 to {deployment["throttled"]} calls; {deployment["early_retries"]} calls came too early.
Most calls for one generation: {most}."""


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
