"""Early ticks with real processes. The timer never comes: a generation that ends was advanced by a message's slot."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import requests

from local.azurite import azurite
from local.stack import Stack, app_environment, emulator, functions_host, isolated_stack
from tests.e2e.conftest import result, start, until

NEW_YEAR = "0 0 0 1 1 *"
OLD_KEY = "a-key-of-the-retired-api"


@pytest.fixture(scope="module")
def idle() -> Generator[Stack]:
    with isolated_stack(POLL_SCHEDULE=NEW_YEAR, COMPAT_API_KEYS=OLD_KEY) as stack:
        yield stack


def test_lone_generation_is_seen_without_the_timer(idle: Stack) -> None:
    for number in (1, 2):  # the second one: the mark of the first slot is cleared
        answer = start(idle.base_url, f"[seconds:2] lighthouse {number}")
        assert result(answer.headers["Location"]).json()["status"] == "succeeded"
        until(lambda number=number: idle.host.output.count("early=True") == number or None, what="end of the slot")
        assert idle.host.output.count("slot.requested") == number


def test_throttled_start_goes_on_without_the_timer(idle: Stack) -> None:
    answer = start(idle.base_url, "[submit-429:1] a lighthouse")
    assert result(answer.headers["Location"]).json()["status"] == "succeeded"


def test_operation_of_the_retired_api_is_seen_without_the_timer(idle: Stack) -> None:
    headers = {"api-key": OLD_KEY}
    url = f"{idle.base_url}/openai/images/generations:submit?api-version=2023-06-01-preview"
    submission = requests.post(url, headers=headers, json={"prompt": "[seconds:2] a lighthouse"}, timeout=30)
    assert submission.status_code == 202, submission.text

    def succeeded() -> bool | None:
        operation = requests.get(submission.headers["operation-location"], headers=headers, timeout=30).json()
        return operation["status"] == "succeeded" or None

    until(succeeded, what="success")


def test_message_survives_a_killed_host() -> None:
    with azurite() as storage, emulator() as (emulator_url, _):
        env = app_environment(storage.connection_string, emulator_url, POLL_SCHEDULE=NEW_YEAR)
        with functions_host(env) as (base_url, first):
            answer = start(base_url, "[seconds:3] a lighthouse")
            first.kill()
        port = int(base_url.rpartition(":")[2].partition("/")[0])
        with functions_host(env, port=port):
            assert result(answer.headers["Location"]).json()["status"] == "succeeded"
