"""The rest of the contract: cancel, delete, list, Prefer, health, unknown routes, the retired API."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import pytest
import requests

from local.azurite import azurite
from local.stack import KEY, Stack, app_environment, emulator, functions_host, isolated_stack
from tests.e2e.conftest import operations_of, result, start, until

LEGACY_KEY = "key-of-an-old-client"
VERSION = "api-version=2023-06-01-preview"


@pytest.fixture(scope="module")
def legacy() -> Generator[Stack]:
    with isolated_stack(
        "--speed", "0.2", POLL_SCHEDULE="*/2 * * * * *", COMPAT_API_KEYS=f"another, {LEGACY_KEY}"
    ) as stack:
        yield stack


def test_cancel_is_final(stack: Stack) -> None:
    urls = start(stack.base_url, "[never] a lighthouse").json()["urls"]
    answers = [requests.post(urls["cancel"], timeout=30) for _ in range(2)]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "canceled")] * 2
    assert "Retry-After" not in answers[0].headers
    assert result(urls["result"]).status_code == 410


def test_cancel_does_not_change_a_finished_generation(stack: Stack) -> None:
    urls = start(stack.base_url, "a lighthouse").json()["urls"]
    assert result(urls["result"]).status_code == 200

    assert requests.post(urls["cancel"], timeout=30).json()["status"] == "succeeded"


def test_delete_removes_everything_and_is_repeatable(stack: Stack) -> None:
    answer = requests.post(
        f"{stack.base_url}/generations", json={"prompt": "a lighthouse"}, headers={"Idempotency-Key": "d1"}, timeout=30
    )
    urls = answer.json()["urls"]
    image = result(urls["result"]).json()["result"]["data"][0]["url"]

    assert [requests.delete(urls["self"], timeout=30).status_code for _ in range(2)] == [204, 204]
    assert requests.get(urls["self"], timeout=30).status_code == 404
    assert requests.get(urls["result"], timeout=30).status_code == 404
    assert requests.get(image, timeout=30).status_code == 404
    again = requests.post(
        f"{stack.base_url}/generations", json={"prompt": "a lighthouse"}, headers={"Idempotency-Key": "d1"}, timeout=30
    )
    assert again.json()["id"] != answer.json()["id"], "delete must remove the key too"


def test_wrong_token_deletes_nothing(stack: Stack) -> None:
    urls = start(stack.base_url, "[never] a lighthouse").json()["urls"]

    assert requests.delete(urls["self"][:-3] + "AAA", timeout=30).status_code == 204
    assert requests.get(urls["self"], timeout=30).status_code == 200


def test_prefer_wait_returns_the_finished_monitor(stack: Stack) -> None:
    def post(prompt: str, wait: str) -> requests.Response:
        headers = {"Prefer": f"respond-async, wait={wait}"}
        return requests.post(f"{stack.base_url}/generations", json={"prompt": prompt}, headers=headers, timeout=60)

    done = post("a lighthouse", "30")
    assert (done.status_code, done.json()["status"], done.headers["Preference-Applied"]) == (
        200,
        "succeeded",
        "wait=30",
    )
    assert requests.get(done.json()["result"]["data"][0]["url"], timeout=30).status_code == 200
    refused = post("[contentFilter] a lighthouse", "30")
    assert (refused.status_code, refused.json()["error"]["code"]) == (200, "contentFilter")
    late = post("[never] a lighthouse", "1")
    assert (late.status_code, late.json()["status"]) == (202, "running")
    assert late.headers["Location"]
    assert post("a lighthouse", "soon").status_code == 202, "an invalid preference is ignored"


def test_same_key_returns_the_same_generation(stack: Stack) -> None:
    def post(headers: dict[str, str], prompt: str = "a lighthouse") -> requests.Response:
        return requests.post(f"{stack.base_url}/generations", json={"prompt": prompt}, headers=headers, timeout=30)

    first, second = (post({"Repeatability-Request-ID": "r-1"}) for _ in range(2))
    assert first.json()["urls"] == second.json()["urls"]
    assert {one.headers["Repeatability-Result"] for one in (first, second)} == {"accepted"}
    other = post({"Idempotency-Key": '"r-1"'}, "another thing")
    assert (other.status_code, other.headers["x-ms-error-code"]) == (422, "idempotencyKeyReused")
    assert "Repeatability-Result" not in other.headers
    assert operations_of(stack)[first.json()["id"]]["submits"] == 1


def test_list_pages_reach_every_generation(stack: Stack) -> None:
    ids = [start(stack.base_url, f"[never] {number}").json()["id"] for number in range(3)]
    page = requests.get(f"{stack.base_url}/generations", params={"maxpagesize": 2, "status": "running"}, timeout=30)
    following = requests.get(page.json()["nextLink"], timeout=30)

    listed = page.json()["value"] + following.json()["value"]
    assert [monitor["id"] for monitor in listed[:3]] == ids[::-1]
    assert {monitor["status"] for monitor in listed} == {"running"}
    for monitor in listed[:3]:
        assert requests.post(monitor["urls"]["cancel"], timeout=30).json()["status"] == "canceled"


@pytest.mark.parametrize("query", ["maxpagesize=0", "maxpagesize=101", "maxpagesize=x", "status=done", "after=x"])
def test_invalid_query_names_the_parameter(stack: Stack, query: str) -> None:
    answer = requests.get(f"{stack.base_url}/generations?{query}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "nothing", 404, None),
        ("POST", "generations/x/y/z", 404, None),
        ("PUT", "generations", 405, "GET, POST"),
        ("PATCH", "generations/x", 405, "GET, DELETE"),
        ("POST", "generations/x/result", 405, "GET"),
        ("GET", "generations/x/cancel", 405, "POST"),
        ("GET", "openai/images/generations:submit", 405, "POST"),
    ],
)
def test_unknown_route_or_method_has_the_error_schema(
    stack: Stack, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = requests.request(method, f"{stack.base_url}/{path}", timeout=30)
    assert (answer.status_code, answer.headers.get("Allow")) == (status, allow)
    assert answer.json()["error"]["code"] == answer.headers["x-ms-error-code"]
    assert answer.headers["x-ms-request-id"]


def test_every_answer_returns_the_client_request_id(stack: Stack) -> None:
    for path in ("generations/x", "nothing", "health"):
        answer = requests.get(f"{stack.base_url}/{path}", headers={"x-ms-client-request-id": "mine-1"}, timeout=30)
        assert answer.headers["x-ms-client-request-id"] == "mine-1"


def test_health_names_the_problem_without_secrets(stack: Stack) -> None:
    healthy = requests.get(f"{stack.base_url}/health", timeout=30)
    assert (healthy.status_code, healthy.json()["status"]) == (200, "healthy")
    submits = requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"]
    assert stack.storage
    env = app_environment(stack.storage.connection_string, f"{stack.emulator_url}", AZURE_OPENAI_API_KEY="wrong-key")
    with functions_host(env) as (base_url, _):
        answer = requests.get(f"{base_url}/health", timeout=30)

    checks = answer.json()["checks"]
    assert (answer.status_code, checks["storage"]["status"], checks["upstream"]["status"]) == (503, "ok", "failed")
    assert "AZURE_OPENAI_API_KEY" in checks["upstream"]["message"]
    assert not re.search(r"wrong-key|AccountKey|127\.0\.0\.1", answer.text)
    assert requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"] == submits


def test_post_without_storage_is_503_and_not_billed() -> None:
    with emulator() as (emulator_url, _), azurite() as storage:
        env = app_environment(storage.connection_string, emulator_url)
        with functions_host(env) as (base_url, _):
            storage.process.kill()
            answer = requests.post(f"{base_url}/generations", json={"prompt": "a lighthouse"}, timeout=60)
            health = requests.get(f"{base_url}/health", timeout=60)

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storageUnavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert (health.status_code, health.json()["checks"]["storage"]["status"]) == (503, "failed")
        assert requests.get(f"{emulator_url}/_emulator/stats", timeout=10).json()["submits"] == 0


def test_answer_names_all_invalid_settings() -> None:
    with azurite() as storage:
        env = app_environment(storage.connection_string, "ftp://nowhere", MAX_IMAGE_BYTES="much")
        with functions_host(env) as (base_url, host):
            answer = requests.post(f"{base_url}/generations", json={"prompt": "a lighthouse"}, timeout=30)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "configurationInvalid")
    for text in (answer.json()["error"]["message"], host.output):
        assert "AZURE_OPENAI_ENDPOINT" in text
        assert "MAX_IMAGE_BYTES" in text
        assert KEY not in text


def test_steps_of_the_official_guide_work(legacy: Stack) -> None:
    headers = {"api-key": LEGACY_KEY, "Content-Type": "application/json"}
    url = f"{legacy.base_url}/openai/images/generations:submit?{VERSION}"
    body = {"prompt": "a lighthouse in fog", "n": 2, "size": "512x512"}
    submission = requests.post(url, headers=headers, json=body, timeout=30)
    assert (submission.status_code, submission.json()["status"]) == (202, "notRunning")
    location = submission.headers["operation-location"]

    def succeeded() -> dict[str, Any] | None:
        answer = requests.get(location, headers=headers, timeout=30)
        assert answer.status_code == 200
        if answer.json()["status"] == "succeeded":
            assert "retry-after" not in answer.headers
            return answer.json()
        assert int(answer.headers["retry-after"]) > 0
        return None

    operation = until(succeeded, what="success")
    assert set(operation) == {"id", "status", "created", "expires", "result"}
    assert operation["created"] <= operation["result"]["created"] < operation["expires"]
    for image in operation["result"]["data"]:
        assert requests.get(image["url"], timeout=30).content.startswith(b"\x89PNG")
    assert requests.delete(location, headers=headers, timeout=30).status_code == 204
    assert requests.get(location, headers=headers, timeout=30).json()["error"]["code"] == "notFound"


def test_failed_operation_has_an_error(legacy: Stack) -> None:
    headers = {"api-key": LEGACY_KEY}
    url = f"{legacy.base_url}/openai/images/generations:submit?{VERSION}"
    location = requests.post(url, headers=headers, json={"prompt": "[contentFilter] x"}, timeout=30).headers[
        "operation-location"
    ]

    def failed() -> dict[str, Any] | None:
        operation = requests.get(location, headers=headers, timeout=30).json()
        return operation if operation["status"] == "failed" else None

    operation = until(failed, what="failure")
    assert operation["error"]["code"] == "contentFilter"
    assert "result" not in operation


@pytest.mark.parametrize(
    ("key", "query", "status", "code"),
    [
        (None, VERSION, 401, "401"),
        ("wrong", VERSION, 401, "401"),
        (LEGACY_KEY[:-1], VERSION, 401, "401"),
        (LEGACY_KEY, "", 404, "404"),
        (LEGACY_KEY, "api-version=2024-10-21", 404, "404"),
    ],
)
def test_legacy_api_checks_key_and_version(legacy: Stack, key: str | None, query: str, status: int, code: str) -> None:
    headers = {"api-key": key} if key else {}
    for method, path in (
        ("POST", "images/generations:submit"),
        ("GET", "operations/images/x"),
        ("DELETE", "operations/images/x"),
    ):
        answer = requests.request(
            method, f"{legacy.base_url}/openai/{path}?{query}", headers=headers, json={"prompt": "x"}, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_legacy_api_checks_operation_id_and_fields(legacy: Stack) -> None:
    url = f"{legacy.base_url}/openai/images/generations:submit?{VERSION}"
    headers = {"api-key": LEGACY_KEY, "Operation-Id": "f508bcf2-e651-4b4b-85a7-58ad77981ffa"}

    def post(**body: Any) -> requests.Response:
        return requests.post(url, headers=headers, json=body, timeout=30)

    assert post(prompt="x").json()["id"] == post(prompt="x").json()["id"]
    assert post(prompt="y").status_code == 400
    assert post(prompt="x", metadata={}).json()["error"]["target"] == "metadata"


def test_legacy_api_needs_configured_keys(stack: Stack) -> None:
    url = f"{stack.base_url}/openai/images/generations:submit?{VERSION}"
    answer = requests.post(url, headers={"api-key": "any"}, json={"prompt": "x"}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "404")
