"""A generation as the caller sees it, from the POST to the image."""

from __future__ import annotations

import hashlib
import io
import re

import pytest
import requests
from PIL import Image

from local.stack import KEY, Stack
from tests.e2e.conftest import operations_of, result, start, until


def test_prompt_becomes_images_in_blob_storage(stack: Stack) -> None:
    answer = start(stack.base_url, "a lighthouse in fog", n=2, size="512x512", metadata={"order": "4711"})

    assert re.fullmatch(r"[1-9]\d*", answer.headers["Retry-After"])
    assert answer.headers["Location"].startswith(f"{stack.base_url}/generations/")
    assert answer.headers["Content-Type"].startswith("application/json")

    final = result(answer.headers["Location"])
    monitor = final.json()
    assert (final.status_code, monitor["status"]) == (200, "succeeded")
    assert monitor["metadata"] == {"order": "4711"}
    assert monitor == requests.get(answer.headers["Operation-Location"], timeout=30).json() | {
        "result": monitor["result"]  # every answer signs the URLs again
    }
    assert len(monitor["result"]["data"]) == 2
    for index, image in enumerate(monitor["result"]["data"]):
        blob = requests.get(image["url"], timeout=30)
        assert image["blob"] == f"{monitor['id']}/{index}.png"
        assert blob.headers["Content-Type"] == image["contentType"] == "image/png"
        assert (len(blob.content), hashlib.sha256(blob.content).hexdigest()) == (
            image["contentLength"],
            image["sha256"],
        )
        assert Image.open(io.BytesIO(blob.content)).size == (512, 512)
        assert requests.get(image["blobUrl"], timeout=30).status_code >= 400, "the blob must not be public"


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("[contentFilter] a thing", 422, "contentFilter"),  # the caller must change the prompt
        ("[submit-400] a thing", 422, "invalidPayload"),  # refused at the submit
        ("[failed:internalFailure] a thing", 424, "internalFailure"),  # the upstream failed, not the caller
        ("[submit-no-location] a thing", 424, "operationLocationMissing"),
        ("[status:canceled] a thing", 410, "canceled"),
        ("[status:deleted] a thing", 424, "operationDeleted"),
        ("[image-html] a thing", 424, "notAnImage"),  # final after five tries
    ],
)
def test_failure_has_status_and_code(stack: Stack, prompt: str, status: int, code: str) -> None:
    final = result(start(stack.base_url, prompt).headers["Location"])

    assert (final.status_code, final.headers["x-ms-error-code"]) == (status, code)
    assert final.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "prompt",
    [
        "[submit-500:2] the submit fails twice",
        "[submit-drop:1] the response to the submit is lost",
        "[poll-404:2] the operation is not visible at once",
        "[poll-500:2] [poll-drop:1] [poll-garbage:1] polls fail",
        "[status:somethingNew:2] a status word of a later version",
        "[status:Succeeded] the case of an older service",
        "[poll-retry-date] Retry-After is a date",
        "[poll-no-retry-after] Retry-After is missing",
        "[image-truncated:1] the image is truncated",
        "[image-500:1] the image is not there yet",
        "[image-jpeg] a JPEG",
    ],
)
def test_transient_fault_does_not_fail_the_generation(stack: Stack, prompt: str) -> None:
    answer = start(stack.base_url, prompt)

    assert result(answer.headers["Location"]).json()["status"] == "succeeded"
    counted = requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()
    assert counted["by_operation"][answer.json()["id"]]["operation_id_header"] == answer.json()["id"]
    assert counted["leaked_credentials"] == 0


def test_refused_image_keeps_the_other_images(stack: Stack) -> None:
    final = result(start(stack.base_url, "[image-error:0] two things", n=2).headers["Location"])

    refused, made = final.json()["result"]["data"]
    assert final.json()["status"] == "succeeded"
    assert refused["error"]["code"] == "contentFilter"
    assert requests.get(made["url"], timeout=30).status_code == 200


def test_operation_location_is_polled_unchanged(stack: Stack) -> None:
    answer = start(stack.base_url, "a lighthouse")
    assert result(answer.headers["Location"]).status_code == 200

    urls = operations_of(stack)[answer.json()["id"]]["poll_urls"]
    assert set(urls) == {f"/openai/operations/images/{answer.json()['id']}?api-version=2023-06-01-preview"}


def test_invalid_request_names_each_field(stack: Stack) -> None:
    before = requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"]
    answer = requests.post(f"{stack.base_url}/generations", json={"promt": "x", "n": "2"}, timeout=30)

    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (400, "invalidPayload")
    assert [detail["target"] for detail in error["details"]] == ["prompt", "n", "promt"]
    assert requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"] == before


def test_wrong_token_and_unknown_id_are_the_same_404(stack: Stack) -> None:
    monitor = start(stack.base_url, "a lighthouse").headers["Operation-Location"]
    answers = [
        requests.get(monitor[:-4] + "AAAA", timeout=30),
        requests.get(monitor.partition("?")[0], timeout=30),
        requests.get(re.sub(r"-7...-....-............", "-7abc-8abc-123456789abc", monitor), timeout=30),
        requests.get(f"{stack.base_url}/generations/no-id?token=x", timeout=30),
    ]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(404, "notFound")}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_log_holds_no_prompt_key_token_or_url(stack: Stack) -> None:
    answer = start(stack.base_url, "a very private prompt", user="a-private-user")
    data = result(answer.headers["Location"]).json()["result"]["data"]
    log = until(
        lambda: stack.host.output if f"generation.succeeded id={answer.json()['id']}" in stack.host.output else None,
        what="log event",
    )

    token = answer.headers["Location"].partition("token=")[2]
    for secret in ("private prompt", "a-private-user", token, KEY, "sig=", data[0]["url"], "AccountKey"):
        assert secret not in log, secret[:4]
