"""Direct models, with real processes: POST, queue, call, Blob Storage."""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
from azure.storage.blob import BlobServiceClient
from PIL import Image

from local.azurite import Azurite, azurite
from local.stack import EVERY_MODEL, Stack, app_environment, emulator, functions_host, isolated_stack
from tests.e2e.conftest import expire_claims, result, start, until

IN_FLIGHT = 12
"""Messages in progress on one instance: batchSize plus newBatchThreshold of host.json."""

DIRECT = ["gpt-image-2", "gpt-image-1.5", "dall-e-3", "FLUX.2-pro", "MAI-Image-2.5"]


@pytest.fixture(scope="module")
def models() -> Generator[Stack]:
    settings = {"POLL_SCHEDULE": "*/2 * * * * *", "IMAGE_DEPLOYMENTS": EVERY_MODEL, "COMPAT_API_KEYS": "old"}
    with isolated_stack("--speed", "0.02", **settings) as stack:
        yield stack


def stats(emulator_url: str | None) -> dict[str, Any]:
    return requests.get(f"{emulator_url}/_emulator/stats", timeout=10).json()


def billed(emulator_url: str | None, generation_id: str) -> int:
    return stats(emulator_url)["billed_by_client_request_id"].get(generation_id, 0)


def record(storage: Azurite | None, generation_id: str) -> dict[str, Any]:
    """Return the finished record."""
    assert storage
    container = BlobServiceClient.from_connection_string(storage.connection_string).get_container_client("generations")
    (name,) = [one for one in container.list_blob_names(name_starts_with="done/") if one.endswith(generation_id)]
    return json.loads(container.download_blob(name).readall())


@pytest.mark.parametrize("model", DIRECT)
def test_every_model_has_the_same_contract(models: Stack, model: str) -> None:
    answer = start(models.base_url, f"a lighthouse by {model}", model=model)
    assert answer.json()["status"] == "notRunning", "the POST must not wait for the call, which takes minutes"
    final = result(answer.headers["Location"])

    assert final.status_code == 200
    image = final.json()["result"]["data"][0]
    content = requests.get(image["url"], timeout=30).content
    assert Image.open(io.BytesIO(content)).size[0] >= 1024
    assert billed(models.emulator_url, answer.json()["id"]) == 1
    assert stats(models.emulator_url)["missing_quality"] == 0
    assert stats(models.emulator_url)["leaked_credentials"] == 0


def test_fields_are_translated_for_the_model(models: Stack) -> None:
    wide = start(models.base_url, "wide", model="gpt-image-2", size="3840x1600", output_format="jpeg", n=2)
    tall = start(models.base_url, "tall", model="FLUX.2-pro", size="1024x1536", n=2)
    vivid = start(models.base_url, "[url] vivid", model="dall-e-3", size="1792x1024", style="vivid", quality="hd")

    for answer, size, kind, count in (
        (wide, (3840, 1600), "JPEG", 2),
        (tall, (1024, 1536), "PNG", 2),
        (vivid, (1792, 1024), "PNG", 1),
    ):
        data = result(answer.headers["Location"]).json()["result"]["data"]
        pictures = [Image.open(io.BytesIO(requests.get(image["url"], timeout=30).content)) for image in data]
        assert [(picture.size, picture.format) for picture in pictures] == [(size, kind)] * count
    assert result(vivid.headers["Location"]).json()["result"]["data"][0]["revisedPrompt"]
    assert record(models.storage, wide.json()["id"])["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("model", "fields", "named"),
    [
        ("gpt-image-2", {"style": "vivid"}, "style"),
        ("gpt-image-2", {"size": "1000x1000"}, "size"),
        ("gpt-image-1.5", {"size": "2048x2048"}, "size"),
        ("gpt-image-1.5", {"output_format": "webp"}, "output_format"),
        ("gpt-image-1.5", {"output_compression": 50}, "output_compression"),
        ("dall-e-3", {"n": 2}, "n"),
        ("FLUX.2-pro", {"quality": "high"}, "quality"),
        ("MAI-Image-2.5", {"n": 2}, "n"),
        ("unknown", {}, "model"),
    ],
)
def test_unsupported_field_is_refused_and_not_billed(
    models: Stack, model: str, fields: dict[str, Any], named: str
) -> None:
    before = stats(models.emulator_url)["calls"]
    answer = requests.post(f"{models.base_url}/generations", json={"prompt": "x", "model": model, **fields}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, named)
    assert stats(models.emulator_url)["calls"] == before


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("[contentFilter]", 422, "contentFilter"),
        ("[contentFilter:content_policy_violation]", 422, "contentFilter"),
        ("[contentFilter:moderation_blocked]", 422, "contentFilter"),
        ("[call-401]", 424, "upstreamUnauthorized"),
        ("[call-403]", 424, "upstreamForbidden"),
        ("[call-404]", 424, "upstreamNotFound"),
    ],
)
def test_refusal_has_status_and_code(models: Stack, prompt: str, status: int, code: str) -> None:
    final = result(start(models.base_url, f"{prompt} x", model="gpt-image-2").headers["Location"])
    assert (final.status_code, final.json()["error"]["code"]) == (status, code)


def test_whole_answer_that_is_no_json_is_not_called_again(models: Stack) -> None:
    answer = result(start(models.base_url, "[call-garbage:1] x", model="gpt-image-2").headers["Location"])
    assert answer.status_code == 424
    assert answer.json()["error"]["code"] == "upstreamAnswerInvalid"


@pytest.mark.parametrize(
    ("prompt", "model", "bills"),
    [
        ("[call-500:1] x", "gpt-image-2", 1),  # not billed
        ("[call-503:1] x", "FLUX.2-pro", 1),
        ("[call-429:2] [retry-after-ms:300] x", "dall-e-3", 1),
        ("[call-408:1] x", "MAI-Image-2.5", 1),  # the app cannot know whether it was billed, so the log has a warning
        ("[call-drop:1] x", "gpt-image-2", 2),  # billed, the response is lost
        ("[call-cut:1] x", "gpt-image-1.5", 2),
    ],
)
def test_transient_fault_repeats_the_call(models: Stack, prompt: str, model: str, bills: int) -> None:
    answer = start(models.base_url, prompt, model=model)
    assert result(answer.headers["Location"]).json()["status"] == "succeeded"

    assert billed(models.emulator_url, answer.json()["id"]) == bills
    repeated = f"generation.call_repeated id={answer.json()['id']}"
    assert (repeated in models.host.output) == (bills == 2 or "call-408" in prompt)


def test_prefer_wait_works_for_direct_models(models: Stack) -> None:
    body = {"prompt": "Prefer: wait", "model": "gpt-image-2"}
    answer = requests.post(f"{models.base_url}/generations", json=body, headers={"Prefer": "wait=40"}, timeout=60)
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


def test_model_list_shows_the_limits(models: Stack) -> None:
    listed = requests.get(f"{models.base_url}/models", timeout=30).json()["value"]
    assert [model["name"] for model in listed] == [*DIRECT, "operations"]
    assert [model["isDefault"] for model in listed] == [True, False, False, False, False, False]
    assert listed[2]["mostImages"] == 1  # dall-e-3
    assert "key" not in json.dumps(listed).lower()
    assert requests.get(f"{models.base_url}/health", timeout=30).json()["status"] == "healthy"


@pytest.fixture
def storage() -> Generator[Azurite]:
    with azurite() as running:
        yield running


def gpt(storage: Azurite, emulator_url: str, **settings: str) -> dict[str, str]:
    """Return settings with one gpt-image deployment."""
    image = {"AZURE_OPENAI_API": "images", "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2"}
    return app_environment(storage.connection_string, emulator_url, POLL_SCHEDULE="*/2 * * * * *", **image, **settings)


@pytest.mark.parametrize(("repeat", "code", "bills"), [("true", None, 2), ("false", "outcomeUnknown", 1)])
def test_host_killed_during_a_call(storage: Azurite, repeat: str, code: str | None, bills: int) -> None:
    with emulator("--speed", "0.02") as (emulator_url, _):
        env = gpt(storage, emulator_url, REPEAT_LOST_CALLS=repeat)
        with functions_host(env) as (base_url, first):
            # The call is billed at once, but its response comes after the host has been killed.
            answer = start(base_url, "[call-hang:5:1] x")
            generation_id = answer.json()["id"]
            until(lambda: billed(emulator_url, generation_id) or None, what="call")
            first.kill()
        port = int(base_url.rpartition(":")[2].partition("/")[0])
        expire_claims(storage, generation_id)
        with functions_host(env, port=port) as (_, second):
            final = result(answer.headers["Location"])
            log = second.output

        assert final.json().get("error", {}).get("code") == code
        assert billed(emulator_url, generation_id) == bills
        assert ("may be billed twice" in log) == (bills == 2)


def test_burst_beyond_the_quota_is_queued(storage: Azurite) -> None:
    count, quota, window = 40, 10, 4.0
    with emulator("--speed", "0", "--quota", str(quota), "--quota-window", str(window)) as (emulator_url, _):
        env = gpt(storage, emulator_url)
        with functions_host(env) as (base_url, _):
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(partial(start, base_url), [f"burst {number}" for number in range(count)]))
            finals = [result(answer.headers["Location"]) for answer in answers]
            counted = stats(emulator_url)

    assert {final.json()["status"] for final in finals} == {"succeeded"}
    calls = counted["billed_by_client_request_id"]
    assert calls == {answer.json()["id"]: 1 for answer in answers}, "each generation must be called exactly once"
    deployment = counted["by_deployment"]["gpt-image-2"]
    assert deployment["early_retries"] == 0, "a generation was called again before its Retry-After had passed"
    call_times, throttled_times = deployment["call_times"], deployment["throttled_times"]
    rounding = 0.001  # of unix seconds as floats
    assert call_times[-1] - call_times[0] >= (count / quota - 1) * window - rounding, "the quota was not enforced"
    # The first 429 of a window must stop all calls but those that are already in progress.
    assert max(throttled_per_window(call_times, throttled_times, window), default=0) <= IN_FLIGHT


def throttled_per_window(call_times: list[float], throttled_times: list[float], window: float) -> list[int]:
    """Count the 429s in each quota window. A window starts with the first request after the previous one."""
    counts: list[int] = []
    ends = 0.0
    for at, is_429 in sorted([(at, 0) for at in call_times] + [(at, 1) for at in throttled_times]):
        if at >= ends:
            ends = at + window
            counts.append(0)
        counts[-1] += is_429
    return counts


def test_retry_after_grows_with_the_queue(storage: Azurite) -> None:
    with emulator("--speed", "0") as (emulator_url, _), functions_host(gpt(storage, emulator_url)) as (base_url, _):
        answers = [start(base_url, f"[call-429] never finished {number}") for number in range(9)]
    waits = [int(answer.headers["Retry-After"]) for answer in answers]
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
