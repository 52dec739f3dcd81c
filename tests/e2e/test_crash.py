"""The host is killed with SIGKILL, as may happen to any instance in Azure."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import requests

from local.azurite import Azurite, azurite
from local.stack import app_environment, emulator, functions_host
from tests.e2e.conftest import expire_claims, result, start, until


@pytest.fixture
def storage() -> Generator[Azurite]:
    with azurite() as running:
        yield running


def stats(emulator_url: str) -> dict[str, int]:
    return requests.get(f"{emulator_url}/_emulator/stats", timeout=10).json()


@pytest.mark.parametrize(
    ("prompt", "event"),
    [
        # During the work of the upstream.
        ("[seconds:2] a lighthouse", "upstream.polled"),
        # After a submit with a lost response: the operation exists, but the app does not know it.
        ("[submit-drop:1] a lighthouse", "upstream.unavailable"),
        # During the download of the image: the killed host holds the claim.
        ("[image-slow:2] a lighthouse", "upstream.polled"),
    ],
)
def test_generation_survives_a_killed_host(storage: Azurite, prompt: str, event: str) -> None:
    with emulator("--speed", "0.2") as (emulator_url, _):
        env = app_environment(storage.connection_string, emulator_url, POLL_SCHEDULE="*/2 * * * * *")
        with functions_host(env) as (base_url, first):
            answer = start(base_url, prompt)
            until(lambda: event in first.output or None, what=event)
            if "image-slow" in prompt:
                until(lambda: stats(emulator_url)["image_gets"] or None, what="image fetch")
            first.kill()
        port = int(base_url.rpartition(":")[2].partition("/")[0])
        expire_claims(storage, answer.json()["id"])
        with functions_host(env, port=port):
            final = result(answer.headers["Location"])

        assert final.json()["status"] == "succeeded"
        image = requests.get(final.json()["result"]["data"][0]["url"], timeout=30)
        assert image.content.startswith(b"\x89PNG")
        assert stats(emulator_url)["operations"] == 1
