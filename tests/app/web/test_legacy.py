"""The retired API: its requests and answers, over the models of today."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from imagegen.generation import Generation, GenerationRequest, Status, StoredImage
from imagegen.idempotency import IdempotencyKey
from imagegen.settings import read_settings
from imagegen.web.http import Request, Response, answer
from imagegen.web.legacy import LegacyRoutes
from tests.app.generations import ID, NOON, failed, new, running, seconds, stored
from tests.app.web.monitors import monitors

SETTINGS = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "AZURE_OPENAI_ENDPOINT": "https://upstream.example.com",
    "AZURE_OPENAI_DEPLOYMENT": "FLUX.2-pro",
    "POLL_SCHEDULE": "0 * * * * *",
    "PUBLIC_BASE_URL": "https://images.example.com/api",
    "COMPAT_API_KEYS": "first-key,second-key",
}
VERSION = "2023-06-01-preview"
HEADERS = {"api-key": "second-key"}


@dataclass
class Harness:
    """The retired API over fake records and a fake state machine."""

    api: str = "images"
    record: Generation | None = None
    asked: list[GenerationRequest] = field(default_factory=list[GenerationRequest])
    key: IdempotencyKey | None = None

    def __post_init__(self) -> None:
        self.legacy = LegacyRoutes(
            settings=read_settings(SETTINGS | {"AZURE_OPENAI_API": self.api}),
            generations=self,
            records=self,
            links=self,
            monitors=monitors(links=self, retention=timedelta(days=1)),
            retention=timedelta(days=1),
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
        assert (metadata, timeout) == ({}, seconds(3_600))
        self.asked.append(request)
        self.key = key
        return running(request=request)

    def wait(self, generation: Generation, until: object) -> Generation:
        raise NotImplementedError

    def cancel(self, generation: Generation) -> Generation | None:
        raise NotImplementedError

    def delete(self, generation: Generation) -> None:
        self.record = None

    def read(self, generation_id: str) -> Generation | None:
        return self.record if generation_id == ID else None

    def link(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.blob}?sig=1"

    def blob_url(self, image: StoredImage) -> str:
        raise NotImplementedError

    def submit(self, body: dict[str, Any], **headers: str) -> Response:
        sent = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request("POST", "https://x", sent, {"api-version": VERSION}, {}, json.dumps(body).encode())
        return answer(request, self.legacy.submit)

    def get(self, id: str = ID, **query: str) -> Response:  # noqa: A002 - the name in the route
        request = Request("GET", "https://x", HEADERS, {"api-version": VERSION} | query, {"id": id}, b"")
        return answer(request, self.legacy.get_operation)


@pytest.mark.parametrize(
    ("api", "asked", "used"),
    [
        # Today's models make no image below 1024 pixels.
        ("images", None, "1024x1024"),
        ("images", "256x256", "1024x1024"),
        ("images", "512x512", "1024x1024"),
        ("images", "1024x1024", "1024x1024"),
        ("flux", "256x256", "1024x1024"),
        ("mai", "512x512", "1024x1024"),
        # A deployment that speaks the retired API gets the size unchanged.
        ("operations", None, None),
        ("operations", "256x256", "256x256"),
        ("operations", "512x512", "512x512"),
    ],
)
def test_size_is_adapted_to_the_model(api: str, asked: str | None, used: str | None) -> None:
    harness = Harness(api)
    response = harness.submit({"prompt": "x", "n": 2, "user": "someone"} | ({"size": asked} if asked else {}))
    assert response.status == 202
    [request] = harness.asked
    assert (request.size, request.n, request.user, request.model) == (used, 2, "someone", None)


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"prompt": "x", "size": "1024x1536"}, "size"),  # valid for today's models, not for the retired API
        ({"prompt": "x", "size": "auto"}, "size"),
        ({"prompt": "x", "n": 6}, "n"),
        ({"prompt": "x" * 1_001}, "prompt"),
        ({"prompt": "x", "quality": "high"}, "quality"),
        ({"prompt": "x", "model": "other"}, "model"),
        ({"prompt": "x", "timeoutSeconds": 60}, "timeoutSeconds"),
        ({"n": 1}, "prompt"),
    ],
)
@pytest.mark.parametrize("api", ["images", "operations"])
def test_request_outside_the_retired_api_is_400(api: str, body: dict[str, Any], target: str) -> None:
    harness = Harness(api)
    response = harness.submit(body)
    assert (response.status, json.loads(response.content())["error"]["target"]) == (400, target)
    assert harness.asked == []


@pytest.mark.parametrize("name", ["model", "quality", "response_format"])
def test_refused_field_is_answered_with_the_four_fields(name: str) -> None:
    error = json.loads(Harness().submit({"prompt": "x", name: "y"}).content())["error"]
    assert error["message"] == f"{name}: is not a field of this API. Use only prompt, n, size, user."


@pytest.mark.parametrize("name", ["n", "size", "user"])
def test_null_is_left_out(name: str) -> None:
    """openai 0.28 sends `"n": null` for `n=None`."""
    harness = Harness()
    assert harness.submit({"prompt": "x", name: None}).status == 202
    assert harness.submit({"prompt": "x"}).status == 202
    assert harness.asked[0] == harness.asked[1]


@pytest.mark.parametrize("name", ["API-VERSION", "Api-Version"])
def test_name_of_the_version_has_any_case(name: str) -> None:
    request = Request("POST", "https://x", HEADERS, {name: VERSION}, {}, b'{"prompt": "x"}')
    response = answer(request, Harness().legacy.submit)
    assert response.status == 202
    assert response.headers["operation-location"].endswith(f"?api-version={VERSION}")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2024-02-01", 'api-version: "2024-02-01"; use 2023-MM-DD-preview, such as 2023-06-01-preview'),
        ("2023-13-99-preview", 'api-version: "2023-13-99-preview"; use 2023-MM-DD-preview'),
        ("", "api-version: is missing; use 2023-MM-DD-preview, such as 2023-06-01-preview"),
    ],
)
def test_wrong_version_is_answered_with_the_accepted_ones(version: str, message: str) -> None:
    request = Request("POST", "https://x", HEADERS, {"api-version": version} if version else {}, {}, b'{"prompt": "x"}')
    harness = Harness()
    response = answer(request, harness.legacy.submit)
    error = json.loads(response.content())["error"]
    assert (response.status, error["code"], harness.asked) == (404, "404", [])
    assert error["message"].startswith(message)


def test_submit_answers_as_the_retired_service_did() -> None:
    harness = Harness()
    operation_id = str(UUID(int=7))
    response = harness.submit({"prompt": "x"}, operation_id=operation_id, idempotency_key="ignored")
    assert json.loads(response.content()) == {"id": ID, "status": "notRunning"}  # although it runs already
    location = f"https://images.example.com/api/openai/operations/images/{ID}?api-version={VERSION}"
    assert response.headers["operation-location"] == location
    assert harness.key == IdempotencyKey("operation-id", operation_id)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (new(queued=True), {"status": "notRunning"}),
        (running(), {"status": "running"}),
        (
            running(status=Status.SUCCEEDED, images=(stored(), failed("contentFilter"))),
            {
                "status": "succeeded",
                "expires": int(NOON.timestamp()) + 86_400,
                "result": {
                    "created": int(NOON.timestamp()),
                    "data": [
                        {"url": f"https://a.blob.core.windows.net/{ID}/0.png?sig=1"},
                        {"error": {"code": "contentFilter", "message": "why"}},
                    ],
                },
            },
        ),
        (
            running(status=Status.FAILED, error=failed("outcomeUnknown").error),
            {
                "status": "failed",
                "expires": int(NOON.timestamp()) + 86_400,
                "error": {"code": "outcomeUnknown", "message": "why"},
            },
        ),
        (running(status=Status.CANCELED), {"status": "canceled", "expires": int(NOON.timestamp()) + 86_400}),
    ],
)
def test_operation_has_the_shape_of_the_retired_service(record: Generation, expected: dict[str, Any]) -> None:
    response = Harness(record=record).get()
    assert json.loads(response.content()) == {"id": ID, "created": int(NOON.timestamp()), **expected}
    assert ("Retry-After" in response.headers) is not record.status.is_terminal


def test_id_is_case_insensitive() -> None:
    assert Harness(record=running()).get(ID.upper()).status == 200


@pytest.mark.parametrize("id", ["", "x", str(UUID(int=7)), "../keys/1", ID.replace("-", ""), f"{{{ID}}}"])
def test_unknown_operation_is_404(id: str) -> None:  # noqa: A002
    assert Harness(record=running()).get(id).status == 404


@pytest.mark.parametrize(
    ("version", "key", "status"),
    [
        ("2023-06-01-preview", "first-key", 200),
        ("2023-10-01-preview", "second-key", 200),
        ("2024-10-21", "first-key", 404),  # not a version of the retired API
        ("", "first-key", 404),
        (VERSION, "", 401),
        (VERSION, "first-ke", 401),
        (VERSION, "first-key,second-key", 401),
        (VERSION, "\u00fc", 401),
    ],
)
def test_key_and_api_version_are_checked(version: str, key: str, status: int) -> None:
    harness = Harness(record=running())
    request = Request("GET", "https://x", {"api-key": key}, {"api-version": version}, {"id": ID}, b"")
    assert answer(request, harness.legacy.get_operation).status == status


def test_without_configured_keys_the_route_is_404() -> None:
    harness = Harness(record=running())
    settings = read_settings(SETTINGS | {"COMPAT_API_KEYS": ""})
    legacy = LegacyRoutes(
        settings=settings,
        generations=harness,
        records=harness,
        links=harness,
        monitors=monitors(links=harness, retention=timedelta(days=1)),
        retention=timedelta(days=1),
    )
    request = Request("GET", "https://x", {"api-key": ""}, {"api-version": VERSION}, {"id": ID}, b"")
    response = answer(request, legacy.get_operation)
    assert response.status == 404
    assert "POST /generations" in json.loads(response.content())["error"]["message"]


def test_repeated_delete_is_204() -> None:
    harness = Harness(record=running())
    for _ in range(2):
        request = Request("DELETE", "https://x", HEADERS, {"api-version": VERSION}, {"id": ID}, b"")
        response = answer(request, harness.legacy.delete_operation)
        assert (response.status, response.content()) == (204, b"")
    assert harness.record is None
