"""Starts that the quota of their model cannot begin in time, through the routes, with the real state machine."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from imagegen.lifecycle.ports import Pace
from imagegen.settings import read_settings
from imagegen.storage.listing import Page
from imagegen.web.http import Request, Response, answer
from imagegen.web.legacy import LegacyRoutes
from imagegen.web.routes import Routes
from tests.app.generations import DIRECT, NOON, seconds
from tests.app.lifecycle.fake_app import FakeApp
from tests.app.web.monitors import FakeLinks, monitors

SETTINGS = read_settings(
    {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "AZURE_OPENAI_ENDPOINT": "https://upstream.example.com",
        "AZURE_OPENAI_DEPLOYMENT": DIRECT,
        "POLL_SCHEDULE": "0 * * * * *",
        "PUBLIC_BASE_URL": "https://images.example.com/api",
        "COMPAT_API_KEYS": "the-key",
        "GENERATION_TIMEOUT_SECONDS": "600",
    }
)


class FullApp:
    """An app whose default model takes two calls a minute. After 18 starts, nine minutes of 600 seconds are used up."""

    def __init__(self) -> None:
        self.app = FakeApp(requests_per_minute={DIRECT: 2})
        self.app.configure({DIRECT: self.app.direct})  # the first is the default
        self.routes = Routes(
            settings=SETTINGS,
            generations=self.app.generations,
            records=self.app.records,
            listing=self,
            monitors=monitors(),
            clock=self.app.clock,
        )
        self.legacy = LegacyRoutes(
            settings=SETTINGS,
            generations=self.app.generations,
            records=self.app.records,
            links=FakeLinks(),
            monitors=monitors(),
            retention=timedelta(days=1),
        )

    def page(self, **_: object) -> Page:
        raise NotImplementedError

    def start(self, key: str | None = None, **fields: Any) -> Response:
        body = json.dumps({"prompt": "a lighthouse"} | fields).encode()
        headers = {"idempotency-key": key} if key else {}
        return answer(Request("POST", "https://x", headers, {}, {}, body), self.routes.start_generation)

    def submit(self, operation_id: str | None = None) -> Response:
        headers = {"api-key": "the-key"} | ({"operation-id": operation_id} if operation_id else {})
        query = {"api-version": "2023-06-01-preview"}
        body = json.dumps({"prompt": "a lighthouse"}).encode()
        return answer(Request("POST", "https://x", headers, query, {}, body), self.legacy.submit)

    def fill(self) -> None:
        for _ in range(19):
            assert self.start().status == 202


@pytest.fixture
def full() -> FullApp:
    app = FullApp()
    app.fill()
    return app


def body_of(response: Response) -> dict[str, Any]:
    return json.loads(response.content())


def test_refused_start_says_why_and_when_to_try_again(full: FullApp) -> None:
    refused = full.start()
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")  # one call of two a minute
    assert refused.headers["x-ms-error-code"] == "tooManyRequests"
    assert body_of(refused) == {
        "error": {
            "code": "tooManyRequests",
            "message": "The quota of 'gpt' is used up, and 19 generations wait for it: this one would begin in about "
            "570 seconds, too late for its timeout (timeoutSeconds). Nothing was started. Try again later, or raise "
            "the timeout.",
        }
    }
    assert len(full.app.records.active) == 19


def test_retry_after_is_in_whole_seconds_rounded_up(full: FullApp) -> None:
    refused = full.start(timeoutSeconds=601)
    assert refused.headers["Retry-After"] == "30"  # 29.1
    assert full.start(timeoutSeconds=30).headers["Retry-After"] == "543"


def test_longer_timeout_is_accepted(full: FullApp) -> None:
    assert full.start(timeoutSeconds=700).status == 202


def test_refused_start_leaves_its_key_free(full: FullApp) -> None:
    assert full.start(key="order-1").status == 429
    assert full.app.records.keys == {}
    full.app.records.active.popitem()
    accepted = full.start(key="order-1")
    assert accepted.status == 202
    assert body_of(accepted)["id"] in full.app.records.active


def test_known_key_is_answered_while_new_starts_are_refused() -> None:
    full = FullApp()
    first = full.start(key="order-1")
    for _ in range(18):
        assert full.start().status == 202
    assert full.start().status == 429
    again = full.start(key="order-1")
    assert (again.status, body_of(again)["id"]) == (202, body_of(first)["id"])
    assert full.start(key="order-1", prompt="another").status == 422
    assert full.start(key="order-2").status == 429


def test_retired_api_refuses_in_its_own_form(full: FullApp) -> None:
    refused = full.submit("11111111-1111-4111-8111-111111111111")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
    error = body_of(refused)["error"]
    assert error.keys() == {"code", "message"}
    assert error["code"] == "tooManyRequests"
    assert full.app.records.keys == {}


def test_pace_of_the_timer_counts_more_than_the_setting() -> None:
    """Another app may use a part of the quota. When the pace is old, no generation waits."""
    full = FullApp()
    full.app.throttling.set_pace(DIRECT, Pace(1, 1.1, NOON + seconds(15)))
    assert [full.start().status for _ in range(11)] == [202] * 10 + [429]
    full.app.clock.now += seconds(15)
    assert full.start().status == 202
