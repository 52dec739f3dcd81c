"""What a caller sees, from the POST to the picture."""

from __future__ import annotations

import hashlib
import io
import re

import pytest
import requests
from PIL import Image

from local.stack import KEY, Stack
from tests.e2e.conftest import operations_of, result, start, until


def test_a_prompt_becomes_pictures_in_blob_storage(stack: Stack) -> None:
    answer = start(stack.base_url, "a lighthouse in fog", n=2, size="512x512", metadata={"order": "4711"})

    assert re.fullmatch(r"[1-9]\d*", answer.headers["Retry-After"])
    assert answer.headers["Location"].startswith(f"{stack.base_url}/generations/")
    assert answer.headers["Content-Type"].startswith("application/json")

    final = result(answer.headers["Location"])
    monitor = final.json()
    assert (final.status_code, monitor["status"]) == (200, "succeeded")
    assert monitor["metadata"] == {"order": "4711"}
    assert monitor == requests.get(answer.headers["Operation-Location"], timeout=30).json() | {
        "result": monitor["result"]  # its links are signed anew with each answer
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
        ("[submit-400] a thing", 422, "invalidPayload"),  # the same, refused at once
        ("[failed:internalFailure] a thing", 424, "internalFailure"),  # upstream's failure is not the caller's
        ("[submit-no-location] a thing", 424, "operationLocationMissing"),
        ("[status:canceled] a thing", 410, "canceled"),
        ("[status:deleted] a thing", 424, "operationDeleted"),
        ("[image-html] a thing", 424, "notAnImage"),  # five tries, then final
    ],
)
def test_a_failure_is_told_with_its_status_and_code(stack: Stack, prompt: str, status: int, code: str) -> None:
    final = result(start(stack.base_url, prompt).headers["Location"])

    assert (final.status_code, final.headers["x-ms-error-code"]) == (status, code)
    assert final.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "prompt",
    [
        "[submit-500:2] the service hiccups when it is asked",
        "[submit-drop:1] the answer to the submit is lost on its way",
        "[poll-404:2] the operation is not visible at once",
        "[poll-500:2] [poll-drop:1] [poll-garbage:1] polls fail",
        "[status:somethingNew:2] a status word of a later version",
        "[status:Succeeded] an older service writes capitals",
        "[poll-retry-date] Retry-After is a date",
        "[poll-no-retry-after] Retry-After is missing",
        "[image-truncated:1] the image breaks off",
        "[image-500:1] the image is not there yet",
        "[image-jpeg] a JPEG",
    ],
)
def test_a_passing_fault_costs_nothing_but_time(stack: Stack, prompt: str) -> None:
    answer = start(stack.base_url, prompt)

    assert result(answer.headers["Location"]).json()["status"] == "succeeded"
    counted = requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()
    assert counted["by_operation"][answer.json()["id"]]["operation_id_header"] == answer.json()["id"]
    assert counted["leaked_credentials"] == 0


def test_one_refused_image_does_not_spoil_the_others(stack: Stack) -> None:
    final = result(start(stack.base_url, "[image-error:0] two things", n=2).headers["Location"])

    refused, made = final.json()["result"]["data"]
    assert final.json()["status"] == "succeeded"
    assert refused["error"]["code"] == "contentFilter"
    assert requests.get(made["url"], timeout=30).status_code == 200


def test_operation_location_is_polled_byte_for_byte(stack: Stack) -> None:
    answer = start(stack.base_url, "a lighthouse")
    assert result(answer.headers["Location"]).status_code == 200

    urls = operations_of(stack)[answer.json()["id"]]["poll_urls"]
    assert set(urls) == {f"/openai/operations/images/{answer.json()['id']}?api-version=2023-06-01-preview"}


def test_what_is_wrong_with_a_request_is_named(stack: Stack) -> None:
    before = requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"]
    answer = requests.post(f"{stack.base_url}/generations", json={"promt": "x", "n": "2"}, timeout=30)

    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (400, "invalidPayload")
    assert [detail["target"] for detail in error["details"]] == ["prompt", "n", "promt"]
    assert requests.get(f"{stack.emulator_url}/_emulator/stats", timeout=10).json()["submits"] == before


def test_a_wrong_token_and_an_unknown_id_look_the_same(stack: Stack) -> None:
    monitor = start(stack.base_url, "a lighthouse").headers["Operation-Location"]
    answers = [
        requests.get(monitor[:-4] + "AAAA", timeout=30),
        requests.get(monitor.partition("?")[0], timeout=30),
        requests.get(re.sub(r"-7...-....-............", "-7abc-8abc-123456789abc", monitor), timeout=30),
        requests.get(f"{stack.base_url}/generations/no-id?token=x", timeout=30),
    ]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(404, "notFound")}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_the_log_holds_no_prompt_key_token_or_link(stack: Stack) -> None:
    answer = start(stack.base_url, "a very private prompt", user="a-private-user")
    data = result(answer.headers["Location"]).json()["result"]["data"]
    log = until(
        lambda: stack.host.output if f"generation.succeeded id={answer.json()['id']}" in stack.host.output else None,
        what="the event in the log",
    )

    token = answer.headers["Location"].partition("token=")[2]
    for secret in ("private prompt", "a-private-user", token, KEY, "sig=", data[0]["url"], "AccountKey"):
        assert secret not in log, secret[:4]
