"""What Azure's platform does to logs and requests, and the local host too."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
import requests

from local.stack import EVERY_MODEL, FUNCTION_KEY, Stack, app_environment, functions_host, isolated_stack
from tests.e2e.conftest import result, start, until


@pytest.fixture(scope="module")
def models() -> Generator[Stack]:
    settings = {"POLL_SCHEDULE": "*/2 * * * * *", "IMAGE_DEPLOYMENTS": EVERY_MODEL}
    with isolated_stack("--speed", "0.02", **settings) as stack:
        yield stack


def until_logged(stack: Stack, event: str) -> None:
    until(lambda: event if event in stack.host.output else None, what=f"log event {event!r}")


@pytest.mark.parametrize("model", ["operations", "gpt-image-2"])
def test_every_log_record_has_an_invocation(models: Stack, model: str) -> None:
    for prompt, status in (("a lighthouse", "succeeded"), ("[contentFilter] a thing", "failed")):
        answer = start(models.base_url, prompt, model=model)
        assert result(answer.headers["Location"]).json()["status"] == status
        assert "Azure would drop" not in models.host.output
        until_logged(models, f"generation.{status} id={answer.json()['id']}")
    assert "Azure would drop" not in models.host.output
    assert "azure.core" not in models.host.output  # two records for each storage request


def test_chunked_body_is_411(models: Stack) -> None:
    json = {"Content-Type": "application/json"}
    body = iter([b'{"prompt": ', b'"a lighthouse"}'])
    answer = requests.post(f"{models.base_url}/generations", data=body, headers=json, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (411, "lengthRequired")


@pytest.mark.parametrize(
    ("path", "status"),
    [("health", 200), ("openapi.json", 200), ("generations", 405), ("models", 405), ("generations/x/result", 405)],
)
def test_head_is_answered_only_where_declared(models: Stack, path: str, status: int) -> None:
    answer = requests.head(f"{models.base_url}/{path}", timeout=30)
    assert (answer.status_code, answer.content) == (status, b"")


@pytest.mark.skipif("FUNCTIONS_HOST" in os.environ, reason="Core Tools check no keys")
def test_function_key_is_needed_to_start_not_to_poll(models: Stack) -> None:
    assert models.storage
    env = app_environment(models.storage.connection_string, f"{models.emulator_url}")
    with functions_host(env, function_key=FUNCTION_KEY) as (base_url, _):
        key = {"x-functions-key": FUNCTION_KEY}
        body = {"prompt": "a lighthouse"}
        refused = requests.post(f"{base_url}/generations", json=body, timeout=30)
        assert (refused.status_code, refused.content) == (401, b"")
        started = requests.post(f"{base_url}/generations", json=body, headers=key, timeout=30)
        assert started.status_code == 202
        assert requests.get(started.headers["Operation-Location"], timeout=30).status_code == 200
        assert requests.get(f"{base_url}/models?code={FUNCTION_KEY}", timeout=30).status_code == 200
        assert requests.get(f"{base_url}/health", timeout=30).status_code == 200
