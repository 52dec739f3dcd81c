"""The asynchronous API of the emulator over HTTP, compared with the official swagger and its examples."""

import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from local.emulator.faults import WORDS
from tests.emulator.process import KEY, ROOT, VERSION, Emulator, running, statuses
from tests.emulator.tokens import ENTRA_TOKEN, OTHER_TOKEN

UNKNOWN_ID = "f508bcf2-e651-4b4b-85a7-58ad77981ffa"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Azure/azure-rest-api-specs, cognitiveservices/data-plane/AzureOpenAI, 2023-06-01-preview, examples:
# authoring post_images_generate.json, inference get_image_operation_status.json.
SUBMIT_REQUEST = {"prompt": "An avocado chair", "size": "512x512", "n": 3}
SUBMIT_ANSWER = {"id": "f508bcf2-e651-4b4b-85a7-58ad77981ffa", "status": "notRunning"}
SUBMIT_LOCATION = (
    "https://aoairesource.openai.azure.com/openai/dalle/operations/images/f508bcf2-e651-4b4b-85a7-58ad77981ffa"
    "?api-version=2023-06-01-preview"
)
POLL_ANSWER = {
    "created": 1686676595,
    "expires": 1686762999,
    "id": "<operation-id>",
    "result": {"created": 1686676595, "data": [{"url": "https://image/path"}]},
    "status": "succeeded",
}


def assert_same_shape(answer: object, example: object) -> None:
    """Compare fields and types recursively. Each item of a list has the shape of the example's first item."""
    assert type(answer) is type(example)
    if isinstance(example, dict):
        fields, expected = cast("dict[str, object]", answer), cast("dict[str, object]", example)
        assert fields.keys() == expected.keys()
        for name, value in expected.items():
            assert_same_shape(fields[name], value)
    elif isinstance(example, list):
        for item in cast("list[object]", answer):
            assert_same_shape(item, cast("list[object]", example)[0])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Emulator]:
    with running(tmp_path_factory.mktemp("emulator") / "log", "--speed", "0") as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: Emulator) -> Emulator:
    shared.reset()
    return shared


def assert_error(answer: requests.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["message"]
    assert answer.headers["x-ms-error-code"] == code
    assert GUID.fullmatch(answer.headers["x-ms-request-id"])
    assert "operation-location" not in answer.headers


def test_generation_matches_the_official_examples(emulator: Emulator) -> None:
    submitted = emulator.submit(SUBMIT_REQUEST)
    assert submitted.status_code == 202
    assert_same_shape(submitted.json(), SUBMIT_ANSWER)
    assert submitted.json()["status"] == "notRunning"
    assert GUID.fullmatch(submitted.headers["x-ms-request-id"])
    assert "retry-after" not in submitted.headers

    polled = emulator.get(submitted.headers["operation-location"])
    assert polled.status_code == 200
    assert_same_shape(polled.json(), POLL_ANSWER)
    monitor = polled.json()
    assert (monitor["id"], monitor["status"]) == (submitted.json()["id"], "succeeded")
    assert abs(monitor["expires"] - monitor["created"] - 86_400) < 60
    assert abs(monitor["created"] - time.time()) < 60
    assert "retry-after" not in polled.headers
    assert GUID.fullmatch(polled.headers["x-ms-request-id"])

    urls = [item["url"] for item in monitor["result"]["data"]]
    assert len(set(urls)) == 3
    pictures = [emulator.image(url) for url in urls]
    assert {picture.headers["content-type"] for picture in pictures} == {"image/png"}
    assert len({picture.content for picture in pictures}) == 3
    for picture in pictures:
        with Image.open(io.BytesIO(picture.content)) as image:
            assert (image.format, image.size) == ("PNG", (512, 512))


@pytest.mark.parametrize(
    ("option", "path"),
    [("documented", "/openai/operations/images/"), ("example", urlsplit(SUBMIT_LOCATION).path[:-36])],
)
def test_operation_location_has_the_host_of_the_request(tmp_path: Path, option: str, path: str) -> None:
    with running(tmp_path / "log", "--location-path", option) as emulator:
        answer = emulator.submit(
            SUBMIT_REQUEST, headers={"host": "resource.example:8443"}, version="2023-08-01-preview"
        )
        expected = f"http://resource.example:8443{path}{answer.json()['id']}?api-version=2023-08-01-preview"
        assert answer.headers["operation-location"] == expected


def test_both_paths_serve_polls_and_deletes(emulator: Emulator) -> None:
    for path in ("/openai/operations/images/", "/openai/dalle/operations/images/"):
        location = emulator.start("chair").replace("/openai/operations/images/", path)
        assert emulator.get(location).json()["status"] == "succeeded"
        assert emulator.delete(location).status_code == 204


def test_ampersands_are_escaped_in_json(emulator: Emulator) -> None:
    answer = emulator.get(emulator.start("chair"))
    assert "&" not in answer.text
    assert "\\u0026sig=" in answer.text
    url = answer.json()["result"]["data"][0]["url"]
    assert re.search(r"\.png\?se=[^&]+&sp=r&sig=[^&]+$", url)


def test_queued_operation_is_not_running(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "1000") as emulator:
        answer = emulator.get(emulator.start("chair"))
        assert answer.json().keys() == {"id", "status", "created"}
        assert answer.json()["status"] == "notRunning"
        assert int(answer.headers["retry-after"]) == 3


def test_running_operation_has_no_result(emulator: Emulator) -> None:
    answer = emulator.get(emulator.start("[seconds:1000]"))
    assert answer.json().keys() == {"id", "status", "created"}
    assert answer.json()["status"] == "running"
    assert int(answer.headers["retry-after"]) == 3


# Credentials and requests


@dataclass(frozen=True)
class Refused:
    reason: str
    status: int
    code: str
    headers: dict[str, str | None] | None = None
    version: str | None = VERSION
    body: object = None


REFUSED = [
    Refused("no credential", 401, "401", {"api-key": None}),
    Refused("a wrong key", 401, "401", {"api-key": "wrong"}),
    Refused("an empty key", 401, "401", {"api-key": ""}),
    Refused("a wrong key and a token", 401, "401", {"api-key": "wrong", "authorization": "Bearer x"}),
    Refused("an empty key and a token", 401, "401", {"api-key": "", "authorization": "Bearer x"}),
    Refused("a token of another scope", 401, "401", {"api-key": None, "authorization": f"Bearer {OTHER_TOKEN}"}),
    Refused("a token that is no JWT", 401, "401", {"api-key": None, "authorization": "Bearer anything"}),
    Refused("an empty token", 401, "401", {"api-key": None, "authorization": "Bearer "}),
    Refused("another scheme", 401, "401", {"api-key": None, "authorization": "Basic eDp5"}),
    Refused("no api-version", 404, "404", version=None),
    Refused("an empty api-version", 404, "404", version=""),
    Refused("a later api-version", 404, "404", version="2024-02-01"),
    Refused("an unknown api-version", 404, "404", version="2023-06-01"),
    Refused("a form", 400, "invalidPayload", {"content-type": "application/x-www-form-urlencoded"}),
    Refused("no content type", 400, "invalidPayload", {"content-type": None}),
    Refused("an Operation-Id that is not a UUID", 400, "invalidPayload", {"operation-id": "one"}),
    Refused("an Operation-Id in braces", 400, "invalidPayload", {"operation-id": "{" + UNKNOWN_ID + "}"}),
    Refused("a body that is not JSON", 400, "invalidPayload", body=b"{"),
    Refused("n out of range", 400, "invalidPayload", body={"prompt": "chair", "n": 6}),
    Refused("an unknown field", 400, "invalidPayload", body={"prompt": "chair", "quality": "hd"}),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.reason)
def test_invalid_submit_is_refused(emulator: Emulator, row: Refused) -> None:
    answer = emulator.submit(row.body or SUBMIT_REQUEST, headers=row.headers, version=row.version)
    assert_error(answer, row.status, row.code)
    assert emulator.stats()["submits"] == 1
    assert emulator.stats()["operations"] == 0


ACCEPTED: list[tuple[dict[str, str | None], str]] = [
    ({"api-key": "second-key"}, "the second key"),
    ({"api-key": None, "authorization": f"Bearer {ENTRA_TOKEN}"}, "a token"),
    ({"api-key": None, "authorization": f"bearer {ENTRA_TOKEN}"}, "a scheme in lower case"),
    ({"content-type": "application/json; charset=utf-8"}, "a charset"),
]


@pytest.mark.parametrize(("headers", "reason"), ACCEPTED, ids=[row[1] for row in ACCEPTED])
def test_submit_is_accepted(emulator: Emulator, headers: dict[str, str | None], reason: str) -> None:
    assert emulator.submit(SUBMIT_REQUEST, headers=headers).status_code == 202, reason


@pytest.mark.parametrize("month", ["06", "07", "08", "09", "10"])
def test_every_2023_preview_is_served(emulator: Emulator, month: str) -> None:
    version = f"2023-{month}-01-preview"
    answer = emulator.submit(SUBMIT_REQUEST, version=version)
    assert emulator.get(answer.headers["operation-location"]).status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_poll_and_delete_check_credential_and_version(emulator: Emulator, method: str) -> None:
    location = emulator.start("chair")
    bare = location.partition("?")[0]
    rows: list[tuple[str, dict[str, str], int, str]] = [
        (location, {}, 401, "401"),
        (bare, {"api-key": KEY}, 404, "404"),
        (bare + "?api-version=2024-02-01", {"api-key": KEY}, 404, "404"),
        (location.replace(bare[-36:], UNKNOWN_ID), {"api-key": KEY}, 404, "notFound"),
        (location.replace(bare[-36:], "one"), {"api-key": KEY}, 404, "notFound"),
    ]
    for url, headers, status, code in rows:
        assert_error(requests.request(method, url, headers=headers, timeout=20), status, code)


@pytest.mark.parametrize("target", ["GET /", "GET /openai/images/generations:submit", "POST /images/generations"])
def test_unknown_route_is_404(emulator: Emulator, target: str) -> None:
    method, path = target.split()
    answer = emulator.session.request(method, emulator.base + path, headers={"api-key": KEY}, timeout=20)
    assert_error(answer, 404, "404")
    assert answer.json() == {"error": {"code": "404", "message": "Resource not found"}}


def test_head_is_not_a_poll(emulator: Emulator) -> None:
    location = emulator.start("chair")
    assert emulator.session.head(location, headers={"api-key": KEY}, timeout=20).status_code == 404
    assert emulator.stats()["polls"] == 0


# Operation-Id


def test_repeated_submit_is_the_same_operation(emulator: Emulator) -> None:
    given = str(uuid.uuid4())
    answers = [emulator.submit(SUBMIT_REQUEST, headers={"operation-id": given}) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["id"] for answer in answers} == {given}
    assert len({answer.headers["operation-location"] for answer in answers}) == 1
    stats = emulator.stats()
    assert (stats["submits"], stats["operations"]) == (3, 1)
    assert stats["by_operation"][given]["submits"] == 3
    assert stats["by_operation"][given]["operation_id_header"] == given


def test_defaults_do_not_change_the_request(emulator: Emulator) -> None:
    headers: dict[str, str | None] = {"operation-id": str(uuid.uuid4())}
    assert emulator.submit({"prompt": "chair"}, headers=headers).status_code == 202
    assert emulator.submit({"prompt": "chair", "n": 1, "size": "1024x1024"}, headers=headers).status_code == 202


def test_operation_id_with_another_request_is_refused(emulator: Emulator) -> None:
    headers: dict[str, str | None] = {"operation-id": str(uuid.uuid4())}
    emulator.submit({"prompt": "chair"}, headers=headers)
    assert_error(emulator.submit({"prompt": "table"}, headers=headers), 400, "invalidPayload")
    assert emulator.stats()["operations"] == 1


def test_submit_after_a_lost_response_finds_the_operation(emulator: Emulator) -> None:
    headers: dict[str, str | None] = {"operation-id": str(uuid.uuid4())}
    with pytest.raises(requests.ConnectionError):
        emulator.submit({"prompt": "[submit-drop:1]"}, headers=headers)
    assert emulator.submit({"prompt": "[submit-drop:1]"}, headers=headers).status_code == 202
    assert emulator.stats()["operations"] == 1


# Delete


def test_delete_removes_the_operation_and_its_images(emulator: Emulator) -> None:
    location = emulator.start("chair")
    url = emulator.get(location).json()["result"]["data"][0]["url"]
    assert emulator.image(url).status_code == 200
    deleted = emulator.delete(location)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert GUID.fullmatch(deleted.headers["x-ms-request-id"])
    assert_error(emulator.get(location), 404, "notFound")
    assert_error(emulator.delete(location), 404, "notFound")
    gone = emulator.image(url)
    assert (gone.status_code, gone.headers["x-ms-error-code"]) == (404, "BlobNotFound")
    assert emulator.stats()["deletes"] == 2


@pytest.mark.parametrize(
    ("prompt", "status"),
    [
        ("[never]", 409),
        ("[status:somethingNew]", 409),
        ("[contentFilter]", 204),
        ("[status:canceled]", 204),
        ("[status:Succeeded]", 204),
    ],
)
def test_delete_needs_a_terminal_state(emulator: Emulator, prompt: str, status: int) -> None:
    answer = emulator.delete(emulator.start(prompt))
    assert answer.status_code == status
    if status == 409:
        assert_error(answer, 409, "unexpectedEntityState")


# Images


@pytest.mark.parametrize("header", ["api-key", "Authorization"])
def test_credential_on_an_image_url_is_counted(emulator: Emulator, header: str) -> None:
    url = emulator.image_url("chair")
    answer = emulator.image(url, **{header: "Bearer x"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/xml")
    assert "<Code>InvalidAuthenticationInfo</Code>" in answer.text
    assert emulator.image(url).status_code == 200
    assert emulator.stats()["leaked_credentials"] == 1


def test_changed_image_url_is_refused(emulator: Emulator) -> None:
    url = emulator.image_url("chair")
    rows = [
        (url.partition("?")[0], "no signature"),
        (url.replace("/0.png", "/1.png"), "another image"),
        (re.sub(r"se=\d{4}", "se=2999", url), "a later expiry"),
        (url.replace("sp=r", "sp=rw"), "another permission"),
        (url.replace("&", "%26"), "ampersands escaped"),
        (url.partition("&sig")[0], "cut at an ampersand"),
    ]
    for changed, reason in rows:
        answer = emulator.image(changed)
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed"), reason
        assert answer.text.startswith('<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code>')


def test_expired_image_url_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0", "--image-lifetime", "0") as emulator:
        answer = emulator.image(emulator.image_url("chair"))
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
        assert "Signature not valid in the specified time frame" in answer.text


# Faults on request


@dataclass(frozen=True)
class Fault:
    prompt: str
    answers: list[int | str]  # the status of each try, or "lost"
    reason: str


SUBMIT_FAULTS = [
    Fault("[submit-400]", [400, 400], "without N: always"),
    Fault("[submit-401:1]", [401, 202], "as with a wrong key"),
    Fault("[submit-403:1]", [403, 202], "without permission"),
    Fault("[submit-429:2]", [429, 429, 202], "the first two"),
    Fault("[submit-500:1]", [500, 202], "nothing created"),
    Fault("[submit-drop:2]", ["lost", "lost", 202], "response lost"),
    Fault("[submit-500:1] [submit-429:1]", [500, 429, 202], "one after the other"),
    Fault("[submit-500:0]", [202], "no try"),
]


@pytest.mark.parametrize("row", SUBMIT_FAULTS, ids=lambda row: row.prompt)
def test_submit_fails_as_asked(emulator: Emulator, row: Fault) -> None:
    given: dict[str, str | None] = {"operation-id": str(uuid.uuid4())}
    body = {"prompt": row.prompt}
    tries = statuses(len(row.answers), lambda: emulator.submit(body, headers=given))
    assert list(tries) == row.answers, row.reason


def test_submit_faults_count_for_each_operation_id(emulator: Emulator) -> None:
    for _ in range(2):
        given: dict[str, str | None] = {"operation-id": str(uuid.uuid4())}
        tries = [emulator.submit({"prompt": "[submit-429:1]"}, headers=given).status_code for _ in range(2)]
        assert tries == [429, 202]


SUBMIT_ERRORS = [
    ("[submit-400]", 400, "invalidPayload"),
    ("[submit-401]", 401, "401"),
    ("[submit-403]", 403, "forbidden"),
    ("[submit-429]", 429, "tooManyRequests"),
    ("[submit-500]", 500, "internalFailure"),
]


@pytest.mark.parametrize(("prompt", "status", "code"), SUBMIT_ERRORS)
def test_refused_submit_creates_nothing(emulator: Emulator, prompt: str, status: int, code: str) -> None:
    answer = emulator.submit({"prompt": prompt})
    assert_error(answer, status, code)
    assert ("retry-after" in answer.headers) == (status == 429)
    assert emulator.stats()["operations"] == 0


def test_submit_without_operation_location(emulator: Emulator) -> None:
    answer = emulator.submit({"prompt": "[submit-no-location]"})
    assert answer.status_code == 202
    assert "operation-location" not in answer.headers
    assert emulator.stats()["operations"] == 1


def test_hanging_submit_creates_the_operation(emulator: Emulator) -> None:
    with pytest.raises(requests.ReadTimeout):
        emulator.submit({"prompt": "[submit-hang:60]"}, timeout=3)
    assert emulator.stats()["operations"] == 1
    assert emulator.submit({"prompt": "[submit-hang:0.01]"}).status_code == 202


@pytest.mark.parametrize(
    ("prompt", "origin"),
    [
        ("[location-elsewhere]", "http://localhost.invalid"),
        ("[location-origin:https://other.example:8443]", "https://other.example:8443"),
    ],
)
def test_operation_location_on_another_origin(emulator: Emulator, prompt: str, origin: str) -> None:
    assert emulator.start(prompt).startswith(f"{origin}/openai/operations/images/")


POLL_FAULTS = [
    Fault("[poll-404:2]", [404, 404, 200], "not visible yet"),
    Fault("[poll-500:1]", [500, 200], "internal"),
    Fault("[poll-429:1]", [429, 200], "too many"),
    Fault("[poll-drop:1]", ["lost", 200], "response lost"),
    Fault("[poll-404:1] [poll-500:1] [poll-drop:1]", [404, 500, "lost", 200], "one after the other"),
    Fault("[poll-404]", [404, 404, 404], "always"),
]


@pytest.mark.parametrize("row", POLL_FAULTS, ids=lambda row: row.prompt)
def test_polls_fail_as_asked(emulator: Emulator, row: Fault) -> None:
    location = emulator.start(row.prompt)
    assert list(statuses(len(row.answers), emulator.get, location)) == row.answers, row.reason


def test_poll_errors_have_codes(emulator: Emulator) -> None:
    location = emulator.start("[poll-404:1] [poll-500:1] [poll-429:1]")
    assert_error(emulator.get(location), 404, "notFound")
    assert_error(emulator.get(location), 500, "internalFailure")
    refused = emulator.get(location)
    assert_error(refused, 429, "tooManyRequests")
    assert int(refused.headers["retry-after"]) >= 1


def test_garbage_poll_is_not_json(emulator: Emulator) -> None:
    location = emulator.start("[poll-garbage:1]")
    answer = emulator.get(location)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()
    assert emulator.get(location).json()["status"] == "succeeded"


STATUSES = [
    ("[status:Succeeded]", ["Succeeded", "Succeeded"], "the case of an older service"),
    ("[status:canceled]", ["canceled"], "terminal, without result"),
    ("[status:deleted]", ["deleted"], "terminal, without result"),
    ("[status:somethingNew]", ["somethingNew", "somethingNew"], "an unknown word, always"),
    ("[status:somethingNew:2]", ["somethingNew", "somethingNew", "succeeded"], "an unknown word, twice"),
    ("[status:a:1] [status:b:1]", ["a", "b", "succeeded"], "one after the other"),
    ("[seconds:1000] [status:canceled]", ["running"], "a terminal word waits for the end"),
    ("[never]", ["running", "running"], "always"),
]


@pytest.mark.parametrize(("prompt", "statuses", "reason"), STATUSES, ids=[row[0] for row in STATUSES])
def test_polls_show_the_requested_status(emulator: Emulator, prompt: str, statuses: list[str], reason: str) -> None:
    location = emulator.start(prompt)
    answers = [emulator.get(location) for _ in statuses]
    assert [answer.json()["status"] for answer in answers] == statuses, reason
    for answer in answers:
        status = answer.json()["status"].lower()
        assert ("result" in answer.json()) == (status == "succeeded")
        assert ("retry-after" in answer.headers) == (status not in {"succeeded", "canceled", "deleted"})


def test_filtered_operation_has_an_inner_error(emulator: Emulator) -> None:
    monitor = emulator.get(emulator.start("[contentFilter]")).json()
    assert monitor["status"] == "failed"
    assert monitor["error"]["code"] == "contentFilter"
    assert monitor["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert monitor["error"]["innererror"]["content_filter_results"]["violence"]["filtered"] is True
    assert "result" not in monitor


def test_operation_fails_with_the_requested_code(emulator: Emulator) -> None:
    monitor = emulator.get(emulator.start("[failed:quotaExceeded]")).json()
    assert (monitor["status"], monitor["error"]["code"]) == ("failed", "quotaExceeded")
    assert emulator.get(emulator.start("[status:failed]")).json()["error"]["code"] == "internalFailure"


def test_retry_after_takes_the_requested_form(emulator: Emulator) -> None:
    location = emulator.start("[never] [poll-retry-date] [retry-after:30]")
    before = time.time()
    date = parsedate_to_datetime(emulator.get(location).headers["retry-after"]).timestamp()
    assert before + 30 <= date <= time.time() + 31
    assert "retry-after" not in emulator.get(emulator.start("[never] [poll-no-retry-after]")).headers
    assert emulator.get(emulator.start("[never] [retry-after:soon]")).headers["retry-after"] == "soon"
    assert emulator.submit({"prompt": "[submit-429] [retry-after:7]"}).headers["retry-after"] == "7"


def test_image_error_and_missing_created(emulator: Emulator) -> None:
    result = emulator.get(emulator.start("[image-error:1] [no-created]", n=3)).json()["result"]
    assert result.keys() == {"data"}
    assert [list(item) for item in result["data"]] == [["url"], ["error"], ["url"]]
    assert result["data"][1]["error"]["code"] == "contentFilter"


IMAGE_FAULTS = [
    Fault("[image-404:2]", [404, 404, 200], "not there yet"),
    Fault("[image-403:1]", [403, 200], "as when expired"),
    Fault("[image-500:1]", [500, 200], "internal"),
    Fault("[image-truncated:2]", ["lost", "lost", 200], "less than Content-Length"),
    Fault("[image-404]", [404, 404], "always"),
]


@pytest.mark.parametrize("row", IMAGE_FAULTS, ids=lambda row: row.prompt)
def test_images_fail_as_asked(emulator: Emulator, row: Fault) -> None:
    url = emulator.image_url(row.prompt)
    assert list(statuses(len(row.answers), emulator.image, url)) == row.answers, row.reason


def test_image_faults_count_for_each_image(emulator: Emulator) -> None:
    data = emulator.get(emulator.start("[image-404:1]", n=2)).json()["result"]["data"]
    assert [[emulator.image(item["url"]).status_code for _ in range(2)] for item in data] == [[404, 200]] * 2


def test_truncated_image_is_shorter_than_content_length(emulator: Emulator) -> None:
    url = emulator.image_url("[image-truncated:1]")
    with requests.get(url, stream=True, timeout=20) as answer:
        promised = int(answer.headers["content-length"])
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
            list(answer.iter_content(4096))
    assert len(emulator.image(url).content) == promised


def test_image_is_a_login_page_or_empty(emulator: Emulator) -> None:
    url = emulator.image_url("[image-html:1] [image-empty:1]")
    page, empty, picture = (emulator.image(url) for _ in range(3))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.text.startswith("<!doctype html>")
    assert (empty.status_code, empty.headers["content-type"], empty.content) == (200, "image/png", b"")
    assert picture.content.startswith(b"\x89PNG")


def test_huge_image_has_200_mib(emulator: Emulator) -> None:
    with requests.get(emulator.image_url("[image-huge]"), stream=True, timeout=20) as answer:
        assert "content-length" not in answer.headers
        pieces = answer.iter_content(1 << 20)
        first = next(pieces)
        assert first.startswith(b"\x89PNG")
        assert len(first) + sum(len(piece) for piece in pieces) == 200 * 1024 * 1024


def test_slow_image_takes_the_requested_time(emulator: Emulator) -> None:
    url = emulator.image_url("[image-slow:0.4]")
    started = time.monotonic()
    picture = emulator.image(url)
    assert time.monotonic() - started >= 0.4
    assert len(picture.content) == int(picture.headers["content-length"])


def test_image_redirects(emulator: Emulator) -> None:
    answer = emulator.image(emulator.image_url("[image-redirect:http://169.254.169.254/metadata?a=b&c=d]"))
    assert (answer.status_code, answer.headers["location"]) == (302, "http://169.254.169.254/metadata?a=b&c=d")


@pytest.mark.parametrize(("word", "form"), [("image-jpeg", "JPEG"), ("image-webp", "WEBP")])
def test_image_has_another_format(emulator: Emulator, word: str, form: str) -> None:
    answer = emulator.image(emulator.image_url(f"[{word}]"))
    assert answer.headers["content-type"] == f"image/{form.lower()}"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == form


# Stats, log and process


def test_stats_record_each_request(emulator: Emulator) -> None:
    submitted = emulator.submit(
        {"prompt": "chair"}, headers={"api-key": None, "authorization": f"Bearer {ENTRA_TOKEN}"}
    )
    location = submitted.headers["operation-location"]
    for suffix in ("", "&a=%2F%20&"):
        emulator.get(location + suffix)
    stats = emulator.stats()
    details = stats["by_operation"].pop(submitted.json()["id"])
    times = details.pop("poll_times")
    path = location.removeprefix(emulator.base)
    assert details == {
        "submits": 1,
        "polls": 2,
        "deletes": 0,
        "image_gets": 0,
        "operation_id_header": None,
        "authorization": "bearer",
        "poll_urls": [path, path + "&a=%2F%20&"],
    }
    assert len(times) == 2
    assert times == sorted(times)
    assert stats == {
        "submits": 1,
        "operations": 1,
        "polls": 2,
        "image_gets": 0,
        "deletes": 0,
        "leaked_credentials": 0,
        "calls": 0,
        "billed": 0,
        "missing_quality": 0,
        "billed_by_prompt": {},
        "billed_by_client_request_id": {},
        "by_deployment": {},
        "by_operation": {},
    }


def test_reset_clears_everything(emulator: Emulator) -> None:
    location = emulator.start("[poll-404:1]")
    emulator.get(location)
    emulator.reset()
    stats = emulator.stats()
    details = [stats.pop(name) for name in list(stats) if "by_" in name]
    assert details == [{}] * 4
    assert set(stats.values()) == {0}
    assert emulator.get(location).status_code == 404


def test_log_holds_no_prompt_key_or_signature(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--speed", "0") as emulator:
        url = emulator.image_url("unspeakable [poll-404:0]")
        emulator.image(url)
        emulator.submit(b"unspeakable")
        emulator.process.terminate()
        assert emulator.process.wait(60) == 0
        lines = emulator.log.read_text().splitlines()
    assert [line.split()[1:4:2] for line in lines] == [["POST", "202"], ["GET", "200"], ["GET", "200"], ["POST", "400"]]
    for secret in ("unspeakable", KEY, "sig", "?", "api-version"):
        assert secret not in "\n".join(lines)


def test_200_concurrent_generations(emulator: Emulator) -> None:
    def generate(number: int) -> bytes:
        location = requests.post(
            f"{emulator.base}/openai/images/generations:submit?api-version={VERSION}",
            json={"prompt": f"chair {number}", "size": "256x256"},
            headers={"api-key": KEY},
            timeout=60,
        ).headers["operation-location"]
        monitor = requests.get(location, headers={"api-key": KEY}, timeout=60).json()
        return requests.get(monitor["result"]["data"][0]["url"], timeout=60).content

    with ThreadPoolExecutor(200) as pool:
        pictures = set(pool.map(generate, range(200)))
    assert len(pictures) == 200
    assert emulator.stats()["operations"] == 200


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_emulator_despite_a_request(tmp_path: Path, stop: signal.Signals) -> None:
    with running(tmp_path / "log", "--speed", "0") as emulator:

        def hang() -> None:
            with pytest.raises(requests.ConnectionError):
                emulator.submit({"prompt": "[submit-hang:600]"}, timeout=300)

        hanging = threading.Thread(target=hang)
        hanging.start()
        while requests.get(f"{emulator.base}/_emulator/stats", timeout=20).json()["operations"] == 0:
            pass
        emulator.process.send_signal(stop)
        assert emulator.process.wait(60) == 0, "the request hangs for 600 s"
        hanging.join(60)
        assert not hanging.is_alive()
        assert "Traceback" not in emulator.log.read_text()


def test_occupied_port_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        command = [sys.executable, "-m", "local.emulator", "--port", str(port)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"Cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_help_and_docs_list_every_word_and_option() -> None:
    command = [sys.executable, "-m", "local.emulator", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    written = (ROOT / "docs" / "emulator.md").read_text()
    rows = re.findall(r"^  (\[.+?\])  +(\S.*)$", shown, re.MULTILINE)
    assert len(rows) == len(WORDS)
    for usage, effect in rows:
        assert f"| {usage.replace('[', '`[').replace(']', ']`')} | {effect} |" in written
    options = set(re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE))
    assert len(options) > 7
    assert {option for option in options if f"`{option}" not in written} == set()
