"""The retired API over the models of today: what its clients ask for is fitted to what there is."""

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
from imagegen.web.monitor import Monitors
from tests.app.generations import ID, NOON, failed, new, running, seconds, stored

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
    """The old API over played records."""

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
            monitors=Monitors(links=self, retention=timedelta(days=1), clock=lambda: NOON, backlog=lambda: 0),
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

    def get(self, id: str = ID, **query: str) -> Response:  # noqa: A002 - as the route calls it
        request = Request("GET", "https://x", HEADERS, {"api-version": VERSION} | query, {"id": id}, b"")
        return answer(request, self.legacy.get_operation)


@pytest.mark.parametrize(
    ("api", "asked", "taken"),
    [
        # The models that live make nothing below 1024, and what they make otherwise no old client has asked for.
        ("images", None, "1024x1024"),
        ("images", "256x256", "1024x1024"),
        ("images", "512x512", "1024x1024"),
        ("images", "1024x1024", "1024x1024"),
        ("flux", "256x256", "1024x1024"),
        ("mai", "512x512", "1024x1024"),
        # Whoever still speaks the old API itself is asked for what was asked for.
        ("operations", None, None),
        ("operations", "256x256", "256x256"),
        ("operations", "512x512", "512x512"),
    ],
)
def test_a_size_is_fitted_to_the_model_of_today(api: str, asked: str | None, taken: str | None) -> None:
    harness = Harness(api)
    response = harness.submit({"prompt": "x", "n": 2, "user": "someone"} | ({"size": asked} if asked else {}))
    assert response.status == 202
    [request] = harness.asked
    assert (request.size, request.n, request.user, request.model) == (taken, 2, "someone", None)


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"prompt": "x", "size": "1024x1536"}, "size"),  # fits the model of today, and was no size of that API
        ({"prompt": "x", "size": "auto"}, "size"),
        ({"prompt": "x", "n": 6}, "n"),
        ({"prompt": "x" * 1_001}, "prompt"),
        ({"prompt": "x", "quality": "high"}, "quality"),
        ({"prompt": "x", "model": "other"}, "model"),
        ({"prompt": "x", "timeoutSeconds": 60}, "timeout_seconds"),
        ({"n": 1}, "prompt"),
    ],
)
@pytest.mark.parametrize("api", ["images", "operations"])
def test_what_the_old_api_did_not_take_is_refused_as_ever(api: str, body: dict[str, Any], target: str) -> None:
    harness = Harness(api)
    response = harness.submit(body)
    assert (response.status, json.loads(response.content())["error"]["target"]) == (400, target)
    assert harness.asked == []


def test_an_accepted_request_looks_as_it_did_then() -> None:
    harness = Harness()
    operation_id = str(UUID(int=7))
    response = harness.submit({"prompt": "x"}, operation_id=operation_id, idempotency_key="not of that API")
    assert json.loads(response.content()) == {"id": ID, "status": "notRunning"}  # whatever has happened since
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
def test_an_operation_looks_as_it_did_then(record: Generation, expected: dict[str, Any]) -> None:
    response = Harness(record=record).get()
    assert json.loads(response.content()) == {"id": ID, "created": int(NOON.timestamp()), **expected}
    assert ("Retry-After" in response.headers) is not record.status.is_terminal


def test_an_id_is_taken_in_either_case() -> None:
    assert Harness(record=running()).get(ID.upper()).status == 200


@pytest.mark.parametrize("id", ["", "x", str(UUID(int=7)), "../keys/1", ID.replace("-", ""), f"{{{ID}}}"])
def test_an_unknown_operation_is_404(id: str) -> None:  # noqa: A002
    assert Harness(record=running()).get(id).status == 404


@pytest.mark.parametrize(
    ("version", "key", "status"),
    [
        ("2023-06-01-preview", "first-key", 200),
        ("2023-10-01-preview", "second-key", 200),
        ("2024-10-21", "first-key", 404),  # it has no such route
        ("", "first-key", 404),
        (VERSION, "", 401),
        (VERSION, "first-ke", 401),
        (VERSION, "first-key,second-key", 401),
        (VERSION, "\u00fc", 401),
    ],
)
def test_only_who_has_a_key_is_let_in(version: str, key: str, status: int) -> None:
    harness = Harness(record=running())
    request = Request("GET", "https://x", {"api-key": key}, {"api-version": version}, {"id": ID}, b"")
    assert answer(request, harness.legacy.get_operation).status == status


def test_without_keys_there_is_no_old_api() -> None:
    harness = Harness(record=running())
    settings = read_settings(SETTINGS | {"COMPAT_API_KEYS": ""})
    legacy = LegacyRoutes(
        settings=settings,
        generations=harness,
        records=harness,
        links=harness,
        monitors=Monitors(links=harness, retention=timedelta(days=1), clock=lambda: NOON, backlog=lambda: 0),
        retention=timedelta(days=1),
    )
    request = Request("GET", "https://x", {"api-key": ""}, {"api-version": VERSION}, {"id": ID}, b"")
    assert answer(request, legacy.get_operation).status == 404


def test_a_delete_is_204_a_second_time_too() -> None:
    harness = Harness(record=running())
    for _ in range(2):
        request = Request("DELETE", "https://x", HEADERS, {"api-version": VERSION}, {"id": ID}, b"")
        response = answer(request, harness.legacy.delete_operation)
        assert (response.status, response.content()) == (204, b"")
    assert harness.record is None
