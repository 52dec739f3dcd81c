"""The routes under ``/generations``: requests, answers and invalid input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from imagegen.errors import StorageUnavailableError, TooManyActiveError
from imagegen.generation import Generation, GenerationError, GenerationRequest, Status, StoredImage
from imagegen.idempotency import IdempotencyKey
from imagegen.settings import read_settings
from imagegen.storage.listing import Page
from imagegen.web.http import LONGEST_BODY, Request, Response, answer
from imagegen.web.routes import Routes
from tests.app.generations import ID, NOON, PROMPT, TOKEN, failed, new, running, seconds, stored
from tests.app.web.monitors import monitors

BASE = "https://images.example.com/api"
SETTINGS = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "AZURE_OPENAI_ENDPOINT": "https://upstream.example.com",
    "AZURE_OPENAI_DEPLOYMENT": "dalle",
    "POLL_SCHEDULE": "0 * * * * *",
    "PUBLIC_BASE_URL": BASE,
}

type Handle = Callable[[Routes, Request], Response]


@dataclass
class Harness:
    """The routes over fake records and a fake state machine."""

    record: Generation | None = None
    settings: dict[str, str] = field(default_factory=dict[str, str])
    asked: list[GenerationRequest] = field(default_factory=list[GenerationRequest])
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    read_ids: list[str] = field(default_factory=list[str])
    failure: Exception | None = None
    waited: datetime | None = None
    failed_wait: Exception | None = None
    backlog: int = 0
    pages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    next: str | None = None

    def routes(self) -> Routes:
        return Routes(
            settings=read_settings(SETTINGS | self.settings),
            generations=self,
            records=self,
            listing=self,
            monitors=monitors(self.backlog, links=self),
            clock=lambda: NOON,
        )

    def start(
        self,
        request: GenerationRequest,
        *,
        metadata: dict[str, str],
        timeout: timedelta,
        asked_seconds: int | None = None,
        key: IdempotencyKey | None = None,
        traceparent: str | None = None,
    ) -> Generation:
        if self.failure:
            raise self.failure
        self.asked.append(request)
        self.options = {"metadata": metadata, "timeout": timeout, "key": key, "traceparent": traceparent}
        return new(request=request, metadata=metadata)

    def wait(self, generation: Generation, until: datetime) -> Generation:
        self.waited = until
        if self.failed_wait:
            raise self.failed_wait
        return self.record or generation

    def cancel(self, generation: Generation) -> Generation | None:
        self.record = generation.changed(status=Status.CANCELED)
        return self.record

    def delete(self, generation: Generation) -> None:
        self.record = None

    def read(self, generation_id: str) -> Generation | None:
        self.read_ids.append(generation_id)
        if self.failure:
            raise self.failure
        return self.record

    def page(self, *, size: int, status: Status | None, after: str | None) -> Page:
        self.pages.append({"size": size, "status": status, "after": after})
        return Page((self.record,) if self.record else (), self.next)

    def link(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.container}/{image.blob}?sig=1"

    def blob_url(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.container}/{image.blob}"

    def post(
        self, body: object = None, *, url: str = f"{BASE}/generations", headers: dict[str, str] | None = None
    ) -> Response:
        content = body if isinstance(body, bytes) else json.dumps(body or {"prompt": "x"}).encode()
        return answer(Request("POST", url, headers or {}, {}, {}, content), self.routes().start_generation)

    def ask(
        self,
        handle: Handle,
        *,
        id: str = ID,  # noqa: A002 - the name in the route
        token: str | None = TOKEN,
    ) -> Response:
        query = {} if token is None else {"token": token}
        request = Request("GET", f"{BASE}/generations/{id}", {}, query, {"id": id}, b"")
        return answer(request, partial(handle, self.routes()))


MONITOR, RESULT = Routes.get_generation, Routes.get_generation_result
CANCEL, DELETE = Routes.cancel_generation, Routes.delete_generation


@pytest.fixture
def harness() -> Harness:
    return Harness()


def error_of(response: Response) -> dict[str, Any]:
    """The error of the answer, after a check of the parts that every error has."""
    error = json.loads(response.content())["error"]
    assert response.headers["x-ms-error-code"] == error["code"]
    assert response.headers["x-ms-request-id"]
    assert error["message"]
    return error


# --- POST /generations


def test_start_returns_monitor_urls_and_retry_after(harness: Harness) -> None:
    response = harness.post({"prompt": PROMPT, "metadata": {"order": "1"}, "timeoutSeconds": 90})
    monitor = f"{BASE}/generations/{ID}?token={TOKEN}"
    result = f"{BASE}/generations/{ID}/result?token={TOKEN}"
    assert response.status == 202
    assert response.headers["Operation-Location"] == monitor
    assert response.headers["Location"] == result
    assert response.headers["Retry-After"].isdigit()
    assert response.headers["x-ms-request-id"]
    body = json.loads(response.content())
    assert (body["id"], body["status"], body["metadata"]) == (ID, "notRunning", {"order": "1"})
    assert body["request"]["prompt"] == PROMPT
    assert body["urls"] == {
        "self": monitor,
        "result": result,
        "cancel": f"{BASE}/generations/{ID}/cancel?token={TOKEN}",
    }
    assert body["createdDateTime"] == "2026-11-23T12:00:00.000Z"
    assert body["expiresDateTime"] == "2026-12-23T12:00:00.000Z"
    assert "result" not in body
    assert "error" not in body
    assert harness.options == {
        "metadata": {"order": "1"},
        "timeout": seconds(90),
        "key": None,
        "traceparent": None,
    }


def test_default_timeout_is_the_setting(harness: Harness) -> None:
    harness.settings = {"GENERATION_TIMEOUT_SECONDS": "77"}
    harness.post({"prompt": "x"})
    assert harness.asked == [GenerationRequest(prompt="x")]
    assert harness.options["timeout"] == seconds(77)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x" * 32_000},
        {"prompt": "\U0001f5fc \u0007 \u202e"},
        {"prompt": "x", "n": 1},
        {"prompt": "x", "n": 10},
        {"prompt": "x", "size": "auto"},
        {"prompt": "x", "size": "1024x1536"},
        {"prompt": "x", "quality": "hd", "output_format": "png", "background": "opaque", "style": "vivid"},
        {"prompt": "x", "output_compression": 0},
        {"prompt": "x", "output_compression": 100},
        {"prompt": "x", "model": "dalle", "user": "someone"},
        {"prompt": "x", "timeoutSeconds": 30},
        {"prompt": "x", "timeoutSeconds": 86_400},
        {"prompt": "x", "metadata": {}},
        {"prompt": "x", "metadata": {"k" * 64: "v" * 512}},
        {"prompt": "x", "metadata": {str(number): "" for number in range(16)}},
    ],
)
def test_every_field_of_the_contract_is_accepted(harness: Harness, body: dict[str, Any]) -> None:
    assert harness.post(body).status == 202
    expected = {name: value for name, value in body.items() if name not in ("metadata", "timeoutSeconds")}
    assert harness.asked[0].model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    ("body", "target", "message"),
    [
        ({}, "prompt", "prompt: is missing. Send text of 1 to 32,000 characters."),
        ({"prompt": None}, "prompt", "prompt: null; use text of 1 to 32,000 characters."),
        ({"prompt": 7}, "prompt", "prompt: 7 is a number; use text of"),
        ({"prompt": ["x"]}, "prompt", "prompt: […] is a list; use text of"),
        ({"prompt": ""}, "prompt", 'prompt: ""; use text of 1 to'),
        ({"prompt": " \n\t\u2003"}, "prompt", "prompt: contains only white space. Send text of 1 to"),
        ({"prompt": "\u00a0\u200b\ufeff"}, "prompt", "prompt: contains only white space. Send text of 1 to"),
        ({"prompt": "a\0b"}, "prompt", "prompt: contains the character U+0000 (NUL)"),
        ({"prompt": "x" * 32_001}, "prompt", "prompt: has 32,001 characters; use text of 1 to 32,000 characters."),
        ({"prompt": "x", "n": 0}, "n", "n: 0; use 1 to 10."),
        ({"prompt": "x", "n": 11}, "n", "n: 11; use 1 to 10."),
        ({"prompt": "x", "n": "1"}, "n", 'n: "1" is text. Send the number 1 without quotes.'),  # no conversion of types
        ({"prompt": "x", "n": "\u0661"}, "n", 'n: "\u0661" is text; use a whole number, 1 to 10.'),
        ({"prompt": "x", "n": "two"}, "n", 'n: "two" is text; use a whole number, 1 to 10.'),
        ({"prompt": "x", "n": True}, "n", "n: true is a boolean; use a whole number, 1 to 10."),
        ({"prompt": "x", "n": 1.5}, "n", "n: 1.5 is a number; use a whole number, 1 to 10."),  # but 1.0 is 1
        ({"prompt": "x", "n": 10**300}, "n", f"n: 1{'0' * 39}…; use 1 to 10."),
        ({"prompt": "x", "n": -(10**30)}, "n", "; use 1 to 10."),
        ({"prompt": "x", "size": "big"}, "size", 'size: "big"; use WIDTHxHEIGHT, such as 1024x1024.'),
        ({"prompt": "x", "size": "1024X1024"}, "size", "; use WIDTHxHEIGHT, such as 1024x1024. Write a lower-case x"),
        ({"prompt": "x", "size": "1024\u00d71024"}, "size", "Write a lower-case x, without blanks."),
        ({"prompt": "x", "size": "1024 x 1024"}, "size", "Write a lower-case x, without blanks."),
        ({"prompt": "x", "size": "AUTO"}, "size", 'size: "AUTO"; write auto in lower case.'),
        ({"prompt": "x", "size": "0x0"}, "size", 'size: "0x0"; use WIDTHxHEIGHT, such as 1024x1024, with 10 to 99,999'),
        ({"prompt": "x", "size": "99999999x1"}, "size", "with 10 to 99,999 pixels a side"),
        ({"prompt": "x", "size": "0x1024"}, "size", "; use WIDTHxHEIGHT"),
        ({"prompt": "x", "size": "1024x1024\n"}, "size", r'size: "1024x1024\n"; use WIDTHxHEIGHT'),
        ({"prompt": "x", "size": "\u0661024x1024"}, "size", "; use WIDTHxHEIGHT"),  # an Arabic-Indic digit
        ({"prompt": "x", "size": "x" * 200_000}, "size", f'size: "{"x" * 39}…; use WIDTHxHEIGHT'),
        ({"prompt": "x", "size": 1024}, "size", "size: 1024 is a number; use WIDTHxHEIGHT"),
        ({"prompt": "x", "quality": ""}, "quality", 'quality: ""; use text of 1 to 64 characters.'),
        ({"prompt": "x", "output_compression": 101}, "output_compression", "output_compression: 101; use 0 to 100."),
        ({"prompt": "x", "user": "u" * 257}, "user", "user: has 257 characters; use text of 1 to 256 characters."),
        ({"prompt": "x", "timeoutSeconds": 29}, "timeoutSeconds", "timeoutSeconds: 29; use 30 to 86,400."),
        ({"prompt": "x", "timeoutSeconds": 86_401}, "timeoutSeconds", "timeoutSeconds: 86401; use 30 to 86,400."),
        ({"prompt": "x", "metadata": []}, "metadata", "metadata: […] is a list; use an object with at most 16 texts"),
        ({"prompt": "x", "metadata": {"k": 1}}, "metadata.k", "metadata.k: 1 is a number; use text of at most 512"),
        ({"prompt": "x", "metadata": {"k": None}}, "metadata.k", "metadata.k: null; use text of at most 512"),
        (
            {"prompt": "x", "metadata": {"k": "v" * 513}},
            "metadata.k",
            "metadata.k: has 513 characters; use text of at most",
        ),
        (
            {"prompt": "x", "metadata": {"k" * 65: ""}},
            f"metadata.{'k' * 65}",
            "the key has 65 characters; use text of 1 to 64",
        ),
        ({"prompt": "x", "metadata": {"": ""}}, "metadata.", 'the key ""; use text of 1 to 64'),
        (
            {"prompt": "x", "metadata": {str(n): "" for n in range(17)}},
            "metadata",
            "has 17 entries; use an object with at most 16",
        ),
        # A typo must not be billed: the message names it and lists the valid fields.
        (
            {"prompt": "x", "Prompt": "y"},
            "Prompt",
            "is not a field of this API. Did you mean prompt? Use only prompt, n, size",
        ),
        ({"prompt": "x", "timeout_seconds": 60}, "timeout_seconds", "Did you mean timeoutSeconds?"),
        ({"prompt": "x", "outputFormat": "png"}, "outputFormat", "Did you mean output_format?"),
        (
            {"prompt": "x", "response_format": "url"},
            "response_format",
            "is not a field of this API. Use only prompt, n, size",
        ),
        ({"prompt": "x", "sise": None}, "sise", "is not a field"),  # null does not make it a field
        ({"prompt": "x", "f" * 5_000: 1}, "f" * 100, "is not a field"),
    ],
)
def test_wrong_field_is_400_and_named(harness: Harness, body: dict[str, Any], target: str, message: str) -> None:
    response = harness.post(json.dumps(body).encode())
    error = error_of(response)
    assert (response.status, error["code"], error["target"]) == (400, "invalidPayload", target)
    assert message in error["message"]
    assert harness.asked == []


def test_every_wrong_field_is_named(harness: Harness) -> None:
    error = error_of(harness.post({"n": 0, "metadata": {"k": 1}, "sise": "1x1"}))
    assert [detail["target"] for detail in error["details"]] == ["prompt", "n", "metadata.k", "sise"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"prompt=x",
        b'{"prompt": "x",}',
        b"{'prompt': 'x'}",
        b'{"prompt": "x"} {}',
        '{"prompt": "x"}'.encode("utf-16"),
        b'{"prompt": "\xe9"}',  # Latin-1
        b'{"prompt": "\\ud83d"}',  # half of a surrogate pair: UTF-8 cannot encode it
        b'{"prompt": "x", "n": NaN}',
        b'{"prompt": "x", "n": Infinity}',
        b'{"prompt": "x", "n": ' + b"9" * 5_000 + b"}",
        b'{"prompt":' * 10_000 + b'"x"' + b"}" * 10_000,
        b"[" * 100_000,
    ],
)
def test_invalid_json_is_400(harness: Harness, body: bytes) -> None:
    response = harness.post(body)
    assert (response.status, error_of(response)["code"]) == (400, "invalidJson")


@pytest.mark.parametrize("body", [b"[]", b'[{"prompt": "x"}]', b'"x"', b"1", b"null", b"true"])
def test_json_that_is_not_an_object_is_400(harness: Harness, body: bytes) -> None:
    response = harness.post(body)
    assert (response.status, error_of(response)["code"]) == (400, "invalidPayload")
    assert '{"prompt": ' in error_of(response)["message"]


@pytest.mark.parametrize(
    "field",
    [
        *("n", "size", "quality", "output_format", "output_compression", "background", "style", "model", "user"),
        *("metadata", "timeoutSeconds"),
    ],
)
def test_null_is_the_same_request_as_left_out(harness: Harness, field: str) -> None:
    requests: list[tuple[GenerationRequest, dict[str, Any]]] = []
    for body in ({"prompt": "x"}, {"prompt": "x", field: None}):
        assert harness.post(body).status == 202
        requests.append((harness.asked[-1], harness.options))
    # The idempotency digest is made of these.
    assert requests[0] == requests[1]
    assert requests[0][0].to_json() == requests[1][0].to_json()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 202),
        ("application/json", 202),
        ("Application/JSON; charset=utf-8", 202),
        ("application/cloudevents+json", 202),
        ("", 415),
        ("text/plain", 415),
        ("text/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("multipart/form-data; boundary=application/json", 415),
    ],
)
def test_content_type_must_be_json(harness: Harness, content_type: str | None, status: int) -> None:
    response = harness.post(headers={} if content_type is None else {"content-type": content_type})
    assert response.status == status
    if status == 415:
        assert error_of(response)["code"] == "unsupportedMediaType"


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("chunked", b"", 411),  # as Azure Functions passes it on
        ("gzip, Chunked", b"", 411),
        ("chunked", b'{"prompt": "x"}', 202),  # a host that passes the body on
        ("identity", b"", 400),
    ],
)
def test_body_without_length_is_411(harness: Harness, encoding: str, body: bytes, status: int) -> None:
    response = harness.post(body, headers={"content-type": "application/json", "transfer-encoding": encoding})
    assert response.status == status
    if status == 411:
        assert error_of(response)["code"] == "lengthRequired"
        assert "Content-Length" in error_of(response)["message"]


@pytest.mark.parametrize(("size", "status"), [(LONGEST_BODY, 202), (LONGEST_BODY + 1, 413)])
def test_body_over_256_kib_is_413(harness: Harness, size: int, status: int) -> None:
    body = b'{"prompt": "x"}'.ljust(size)
    response = harness.post(body)
    assert response.status == status
    if status == 413:
        assert error_of(response)["code"] == "payloadTooLarge"


@pytest.mark.parametrize(
    ("headers", "key", "result"),
    [
        ({"idempotency-key": '"a b"'}, IdempotencyKey("idempotency-key", "a b"), None),
        ({"repeatability-request-id": "r"}, IdempotencyKey("repeatability-request-id", "r"), "accepted"),
        ({"operation-id": ID.upper()}, IdempotencyKey("operation-id", ID), None),
    ],
)
def test_idempotency_key_is_passed_on(
    harness: Harness, headers: dict[str, str], key: IdempotencyKey, result: str | None
) -> None:
    response = harness.post(headers=headers)
    assert harness.options["key"] == key
    assert response.headers.get("Repeatability-Result") == result


@pytest.mark.parametrize(
    ("prefer", "waits"),
    [
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ('wait="7"', 7),
        ("WAIT = 3 ; x=1", 3),
        ("wait=999", 50),  # some callers time out after 60
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=10", 0),
        (f"wait={'9' * 5_000}", 0),
        ("", 0),
    ],
)
def test_prefer_wait_is_applied_or_ignored(harness: Harness, prefer: str, waits: int) -> None:
    response = harness.post(headers={"prefer": prefer})
    assert response.status == 202
    assert harness.waited == (NOON + seconds(waits) if waits else None)
    assert response.headers.get("Preference-Applied") == (f"wait={waits}" if waits else None)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_ended_generation_after_wait_is_200(harness: Harness, status: Status) -> None:
    harness.record = running(status=status, images=(stored(),))
    response = harness.post(headers={"prefer": "wait=10"})
    assert (response.status, json.loads(response.content())["status"]) == (200, status)
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize(
    "failure", [StorageUnavailableError("read record"), UnicodeEncodeError("ascii", "x", 0, 1, "")]
)
def test_failed_wait_is_202(harness: Harness, failure: Exception) -> None:
    """The generation exists. After an error, the caller would start and pay for another one."""
    harness.failed_wait = failure
    response = harness.post(headers={"prefer": "wait=10"})
    assert response.status == 202
    assert "Preference-Applied" not in response.headers


def test_fifth_request_does_not_wait(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = harness.routes()
    request = Request("POST", BASE, {"prefer": "wait=10"}, {}, {}, b'{"prompt": "x"}')
    responses: list[Response] = []

    def wait(generation: Generation, until: datetime) -> Generation:
        responses.append(answer(request, routes.start_generation))  # the next request, while this one waits
        return generation

    monkeypatch.setattr(harness, "wait", wait)
    responses.append(answer(request, routes.start_generation))
    assert [response.headers.get("Preference-Applied") for response in responses] == [None, *["wait=10"] * 4]
    assert {response.status for response in responses} == {202}


def test_storage_error_during_the_wait_is_202(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object) -> Generation:
        raise StorageUnavailableError("read record")

    monkeypatch.setattr(harness, "wait", wait)
    response = harness.post(headers={"prefer": "wait=10"})
    assert (response.status, "Preference-Applied" in response.headers) == (202, False)


def test_result_without_signed_links_is_200(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_: StoredImage) -> str:
        raise StorageUnavailableError("sign link")

    monkeypatch.setattr(harness, "link", link)
    harness.record = running(status=Status.SUCCEEDED, images=(stored(),))
    responses = [harness.post(headers={"prefer": "wait=10"}), harness.ask(MONITOR), harness.ask(RESULT)]
    assert [response.status for response in responses] == [200] * 3
    for response in responses:
        body = json.loads(response.content())
        [image] = body["result"]["data"]
        assert (body["status"], image["urlError"]["code"], "url" in image) == ("succeeded", "linkUnavailable", False)
    page = harness.ask(Routes.list_generations, token=None)
    assert (page.status, json.loads(page.content())["value"][0]["status"]) == (200, "succeeded")


def test_repeated_start_of_ended_generation_is_202(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> Generation:
        return running(status=Status.SUCCEEDED, images=(stored(),))

    monkeypatch.setattr(harness, "start", start)
    response = harness.post(headers={"idempotency-key": "k"})
    assert response.status == 202  # Logic Apps polls only after a 202
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (TooManyActiveError(7), 429, "tooManyRequests", "30"),
        (StorageUnavailableError("create record"), 503, "storageUnavailable", "30"),
        (RuntimeError(PROMPT), 500, "internalError", None),
    ],
)
def test_failed_start_has_status_code_and_retry_after(
    harness: Harness, failure: Exception, status: int, code: str, retry_after: str | None
) -> None:
    harness.failure = failure
    response = harness.post()
    error = error_of(response)
    assert (response.status, error["code"], response.headers.get("Retry-After")) == (status, code, retry_after)
    assert PROMPT not in error["message"]


# --- monitor and result

SUCCEEDED = running(status=Status.SUCCEEDED, images=(stored(), failed("contentFilter")))
FILTERED = running(status=Status.FAILED, error=GenerationError(code="contentFilter", message="No."))
CANCELED = running(status=Status.CANCELED)


def test_monitor_lists_images_in_order(harness: Harness) -> None:
    harness.record = SUCCEEDED
    body = json.loads(harness.ask(MONITOR).content())
    assert body["result"]["data"] == [
        {
            "url": f"https://a.blob.core.windows.net/images/{ID}/0.png?sig=1",
            "blobUrl": f"https://a.blob.core.windows.net/images/{ID}/0.png",
            "container": "images",
            "blob": f"{ID}/0.png",
            "contentType": "image/png",
            "contentLength": 8,
            "sha256": "0" * 64,
            "revisedPrompt": None,
        },
        {"error": {"code": "contentFilter", "message": "why"}},
    ]
    assert "error" not in body


@pytest.mark.parametrize("record", [new(), running(), SUCCEEDED, FILTERED, CANCELED])
def test_monitor_is_200_in_every_status(harness: Harness, record: Generation) -> None:
    harness.record = record
    response = harness.ask(MONITOR)
    body = json.loads(response.content())
    assert (response.status, body["status"]) == (200, record.status)
    assert ("Retry-After" in response.headers) is not record.status.is_terminal
    assert ("result" in body, "error" in body) == (record is SUCCEEDED, record is FILTERED)
    assert TOKEN not in json.dumps({name: value for name, value in body.items() if name != "urls"})


def ended(code: str) -> Generation:
    return running(status=Status.FAILED, error=GenerationError(code=code, message="m", innererror={"code": "i"}))


@pytest.mark.parametrize(
    ("record", "status", "code"),
    [
        (new(), 202, None),
        (running(), 202, None),
        (SUCCEEDED, 200, None),
        (ended("contentFilter"), 422, "contentFilter"),  # the input was refused
        (ended("invalidPayload"), 422, "invalidPayload"),
        # 424: Logic Apps would retry a 408, 429 or 5xx four times.
        (ended("deadlineExceeded"), 424, "deadlineExceeded"),
        (ended("tooManyRequests"), 424, "tooManyRequests"),
        (ended("internalFailure"), 424, "internalFailure"),
        (running(status=Status.FAILED), 424, "internalError"),
        (CANCELED, 410, "canceled"),
    ],
)
def test_result_status_follows_the_generation(
    harness: Harness, record: Generation, status: int, code: str | None
) -> None:
    harness.record = record
    response = harness.ask(RESULT)
    body = json.loads(response.content())
    assert response.status == status
    assert (body["id"], body["status"]) == (ID, record.status)
    if status == 202:
        assert response.headers["Location"] == f"{BASE}/generations/{ID}/result?token={TOKEN}"
        assert response.headers["Retry-After"].isdigit()
    else:
        assert not {"Location", "Retry-After"} & response.headers.keys()
    if code:
        assert error_of(response)["code"] == code
    if status in (422, 424) and record.error:
        assert body["error"] == {"code": code, "message": "m", "innererror": {"code": "i"}}


@pytest.mark.parametrize(
    ("faults", "due", "expected"),
    [(0, 1, "5"), (0, 600, "5"), (3, 4, "5"), (3, 17.4, "17"), (3, 60, "60"), (9, 3_600, "60")],
)
def test_retry_after_is_whole_seconds_and_follows_back_off(
    harness: Harness, faults: int, due: float, expected: str
) -> None:
    harness.record = running(faults=faults, due=NOON + seconds(due))
    assert harness.ask(MONITOR).headers["Retry-After"] == expected


def test_cancel_of_deleted_generation_is_404(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Generation) -> None:
        return None

    harness.record = running()
    monkeypatch.setattr(harness, "cancel", gone)
    response = harness.ask(CANCEL)
    assert (response.status, error_of(response)["code"]) == (404, "notFound")


def test_cancel_is_200_and_delete_is_204(harness: Harness) -> None:
    harness.record = running()
    response = harness.ask(CANCEL)
    assert (response.status, json.loads(response.content())["status"]) == (200, "canceled")
    for _ in range(2):
        response = harness.ask(DELETE)
        assert (response.status, response.content()) == (204, b"")
    assert harness.record is None


# --- token and id


@pytest.mark.parametrize("handle", [MONITOR, RESULT, CANCEL])
@pytest.mark.parametrize(
    "token",
    [None, "", "wrong", TOKEN[:-1], f"{TOKEN} ", TOKEN.upper(), "\u00fc" * 22, "\ud800", "x" * 100_000, "\x00"],
)
def test_wrong_token_is_answered_like_an_unknown_id(harness: Harness, handle: Handle, token: str | None) -> None:
    unknown = error_of(harness.ask(handle))
    harness.record = SUCCEEDED
    response = harness.ask(handle, token=token)
    assert response.status == 404
    assert error_of(response) == unknown
    assert harness.record is SUCCEEDED


def test_delete_with_wrong_token_is_204_and_deletes_nothing(harness: Harness) -> None:
    harness.record = SUCCEEDED
    assert harness.ask(DELETE, token="wrong").status == 204
    assert harness.record is SUCCEEDED


@pytest.mark.parametrize(
    "id",
    [
        "",
        "1",
        "../keys/1",
        "..%2f..",
        ID.upper(),
        ID.replace("-", ""),
        f"{{{ID}}}",
        f"urn:uuid:{ID}",
        f"{ID}/",
        f"{ID}\n",
        "f508bcf2-e651-4b4b-85a7-58ad77981ffa",  # a UUID, but not of version 7
        "\u0660" * 36,
        "x" * 10_000,
    ],
)
def test_invalid_id_does_not_reach_storage(harness: Harness, id: str) -> None:  # noqa: A002
    assert harness.ask(MONITOR, id=id).status == 404
    assert harness.read_ids == []


def test_unavailable_storage_is_503(harness: Harness) -> None:
    harness.failure = StorageUnavailableError("read record")
    response = harness.ask(RESULT)
    assert (response.status, error_of(response)["code"]) == (503, "storageUnavailable")
    assert response.headers["Retry-After"] == "30"


def test_delete_without_storage_is_503(harness: Harness) -> None:
    harness.failure = StorageUnavailableError("read record")
    assert harness.ask(DELETE).status == 503


# --- lists


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"size": 20, "status": None, "after": None}),
        ({"maxpagesize": "1"}, {"size": 1, "status": None, "after": None}),
        ({"maxpagesize": "100", "status": "failed", "after": "x"}, {"size": 100, "status": "failed", "after": "x"}),
    ],
)
def test_list_reads_its_page_from_the_query(harness: Harness, query: dict[str, str], expected: dict[str, Any]) -> None:
    harness.record, harness.next = SUCCEEDED, "a b/c"
    response = answer(Request("GET", BASE, {}, query, {}, b""), harness.routes().list_generations)
    body = json.loads(response.content())
    assert (response.status, harness.pages) == (200, [expected])
    assert [found["id"] for found in body["value"]] == [ID]
    assert body["nextLink"].startswith(f"{BASE}/generations?maxpagesize={expected['size']}")
    assert body["nextLink"].endswith("&after=a+b%2Fc")
    assert ("&status=failed&" in body["nextLink"]) is (expected["status"] is not None)


def test_last_page_has_no_next_link(harness: Harness) -> None:
    response = answer(Request("GET", BASE, {}, {}, {}, b""), harness.routes().list_generations)
    assert json.loads(response.content()) == {"value": []}


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ({"maxpagesize": "0"}, "maxpagesize"),
        ({"maxpagesize": "101"}, "maxpagesize"),
        ({"maxpagesize": "-1"}, "maxpagesize"),
        ({"maxpagesize": ""}, "maxpagesize"),
        ({"maxpagesize": "\u0661"}, "maxpagesize"),
        ({"maxpagesize": "9" * 5_000}, "maxpagesize"),
        ({"status": "done"}, "status"),
        ({"status": ""}, "status"),
        ({"status": "Succeeded"}, "status"),
    ],
)
def test_wrong_query_parameter_is_400_and_named(harness: Harness, query: dict[str, str], target: str) -> None:
    response = answer(Request("GET", BASE, {}, query, {}, b""), harness.routes().list_generations)
    assert (response.status, error_of(response)["target"]) == (400, target)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"maxpagesize": "0"}, 'maxpagesize: "0"; use 1 to 100.'),
        ({"status": "done"}, 'status: "done"; use one of notRunning, running, succeeded, failed, canceled.'),
        ({"top": "5"}, "top: is not a query parameter of this route. Use only status, maxpagesize, after."),
        ({"Status": "failed"}, "Status: is not a query parameter of this route. Use only status, maxpagesize, after."),
        ({"a": "1", "status": "failed", "b": "2"}, "a: is not a query parameter of this route."),
    ],
)
def test_message_names_parameter_and_value(harness: Harness, query: dict[str, str], message: str) -> None:
    response = answer(Request("GET", BASE, {}, query, {}, b""), harness.routes().list_generations)
    assert (response.status, harness.pages) == (400, [])
    assert error_of(response)["message"].startswith(message)


def test_query_parameter_of_a_start_is_400(harness: Harness) -> None:
    request = Request("POST", BASE, {}, {"n": "3"}, {}, b'{"prompt": "x"}')
    response = answer(request, harness.routes().start_generation)
    assert (response.status, error_of(response)["target"], harness.asked) == (400, "n", [])
    assert "JSON body" in error_of(response)["message"]


@pytest.mark.parametrize("name", ["code", "Code", "clientId", "clientid", "api-version"])
def test_parameter_of_the_host_is_ignored(harness: Harness, name: str) -> None:
    for method, body in (("start_generation", b'{"prompt": "x"}'), ("list_generations", b"")):
        request = Request("GET", BASE, {}, {name: "x"}, {}, body)
        assert answer(request, getattr(harness.routes(), method)).status in (200, 202)


# --- base URL


@pytest.mark.parametrize(
    ("settings", "url", "expected"),
    [
        ({}, "https://evil.example/api/generations", BASE),
        (
            {"PUBLIC_BASE_URL": "", "WEBSITE_HOSTNAME": "a.azurewebsites.net"},
            "http://x/",
            "https://a.azurewebsites.net/api",
        ),
        ({"PUBLIC_BASE_URL": "", "WEBSITE_HOSTNAME": "localhost:7071"}, "http://x/", "http://localhost:7071/api"),
        ({"PUBLIC_BASE_URL": ""}, "http://localhost:7071/api/generations", "http://localhost:7071/api"),
        ({"PUBLIC_BASE_URL": ""}, "http://127.0.0.1:7071/api/generations", "http://127.0.0.1:7071/api"),
    ],
)
def test_urls_use_the_base_of_the_app(harness: Harness, settings: dict[str, str], url: str, expected: str) -> None:
    harness.settings = settings
    foreign = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher"}
    response = harness.post(url=url, headers=foreign)
    assert response.headers["Location"].startswith(f"{expected}/generations/{ID}/result?")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/api/generations",
        "http://127.evil.example/",
        "http://localhost@evil.example/",
        "http://localhost.evil.example/",
        "",
    ],
)
def test_untrusted_host_is_503_and_starts_nothing(harness: Harness, url: str) -> None:
    harness.settings = {"PUBLIC_BASE_URL": ""}
    response = harness.post(url=url)
    assert (response.status, error_of(response)["code"]) == (503, "configurationInvalid")
    assert "PUBLIC_BASE_URL" in error_of(response)["message"]
    assert harness.asked == []


def test_local_host_is_503_with_the_setting_to_use(harness: Harness) -> None:
    harness.settings = {"PUBLIC_BASE_URL": ""}
    message = error_of(harness.post(url="http://host.docker.internal:7071/api/generations"))["message"]
    assert message.endswith("such as PUBLIC_BASE_URL=http://host.docker.internal:7071/api")
    harness.settings = {"PUBLIC_BASE_URL": message.partition("PUBLIC_BASE_URL=")[2]}
    response = harness.post(url="http://host.docker.internal:7071/api/generations")
    assert response.headers["Location"].startswith("http://host.docker.internal:7071/api/generations/")


def test_compressed_body_is_415(harness: Harness) -> None:
    response = harness.post(headers={"content-encoding": "gzip"})
    assert (response.status, error_of(response)["message"]) == (
        415,
        "Content-Encoding gzip is not supported. Send the body uncompressed.",
    )
    assert harness.post(headers={"content-encoding": "identity"}).status == 202
