"""A pool on real parts: Azurite, and deployments of the emulator with a quota each."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests

from imagegen.app import App, build, utc_now
from imagegen.generation import Generation, GenerationRequest, Status
from imagegen.settings import read_settings
from imagegen.storage.clients import open_storage
from imagegen.storage.records import BlobRecords
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Throttle
from imagegen.web.http import Request
from local.azurite import Azurite
from local.stack import KEY, app_environment, emulator

QUOTA = 2
"""Calls of each deployment during a test."""


@pytest.fixture
def endpoint() -> Generator[str]:
    with emulator("--speed", "0", "--quota", str(QUOTA), "--quota-window", "600") as (url, _):
        yield url


@dataclass
class PoolApp:
    """The app with a pool of these deployments. The test receives the queue messages."""

    azurite: Azurite
    endpoint: str
    deployments: list[dict[str, Any]]
    started: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        container = f"g-{uuid4().hex}"
        environment = app_environment(
            self.azurite.connection_string,
            self.endpoint,
            GENERATIONS_CONTAINER=container,
            IMAGE_DEPLOYMENTS=json.dumps([{"name": "pool", "api": "images", **one} for one in self.deployments]),
            WRONG_KEY="wr0ng-key",
        )
        settings = read_settings(environment)
        self.addresses = [deployment.address for deployment in settings.deployments]
        self.app: App = build(settings)
        storage = open_storage(settings, connections=2)
        self.records = BlobRecords(storage, container)
        self.throttling = Throttling(storage, container)

    def throttled_before(self, address: str) -> None:
        """Pause a deployment until a moment ago: the others come first."""
        self.throttling.pause(f"pool@{address}", Throttle(utc_now() - timedelta(seconds=1), "status 429"))

    def start(self, prompt: str = "a private prompt") -> None:
        request = GenerationRequest(prompt=prompt, size="1024x1024")
        started = self.app.generations.start(request, metadata={}, timeout=timedelta(seconds=600))
        self.started.append(started.id)

    def work(self) -> list[Generation]:
        """Receive a message for each generation, three times. Return the records."""
        for _ in range(3):
            for one in self.started:
                self.app.call(json.dumps({"ids": [one]}))
        found = [self.records.read(one) for one in self.started]
        return [one for one in found if one]

    def stats(self) -> dict[str, Any]:
        return requests.get(f"{self.endpoint}/_emulator/stats", timeout=10).json()


def test_burst_uses_the_quota_of_each_deployment(azurite: Azurite, endpoint: str) -> None:
    app = PoolApp(azurite, endpoint, [{"deployment": "east"}, {"deployment": "west"}])
    for _ in range(2 * QUOTA + 1):
        app.start()
    done = app.work()
    assert Counter(one.status for one in done) == {Status.SUCCEEDED: 2 * QUOTA, Status.RUNNING: 1}
    assert Counter(one.deployment for one in done if one.deployment) == dict.fromkeys(app.addresses, QUOTA)
    stats = app.stats()
    assert {name: one["billed"] for name, one in stats["by_deployment"].items()} == {"east": QUOTA, "west": QUOTA}
    assert all(one["early_retries"] == 0 for one in stats["by_deployment"].values())
    assert set(stats["billed_by_client_request_id"].values()) == {1}


def test_refused_app_falls_over_and_pays_once(
    azurite: Azurite, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    refusing: list[dict[str, Any]] = [
        {"deployment": "missing"},  # 404
        {"deployment": "closed", "apiKeySetting": "WRONG_KEY"},  # 401
    ]
    app = PoolApp(azurite, endpoint, [*refusing, {"deployment": "open"}])
    app.throttled_before(app.addresses[-1])
    with caplog.at_level(logging.INFO):
        app.start()
        [done] = app.work()
    assert (done.status, done.deployment, done.lost_calls) == (Status.SUCCEEDED, app.addresses[-1], 0)
    assert set(done.refused_by) == set(app.addresses[:-1])
    assert app.stats()["billed_by_client_request_id"] == {done.id: 1}

    lines = [line for line in caplog.messages if line.startswith("generation.fell_over ")]
    assert sorted(lines) == sorted(
        f"generation.fell_over id={done.id} deployment={address} code={code}"
        for address, code in zip(app.addresses, ["upstreamNotFound", "upstreamUnauthorized"], strict=False)
    )
    for secret in ("private", KEY, "wr0ng-key", done.token):
        assert secret not in caplog.text


def test_health_of_a_pool_shows_no_address(azurite: Azurite, endpoint: str) -> None:
    one_wrong = [{"deployment": "open"}, {"deployment": "closed", "apiKeySetting": "WRONG_KEY"}]
    for deployments, expected in (
        (one_wrong, ("warning", "1 of 2 deployments with one name: the ")),
        (one_wrong[1:], ("failed", "the ")),
        ([one_wrong[1], {"deployment": "shut", "apiKeySetting": "WRONG_KEY"}], ("failed", "the ")),
    ):
        response = PoolApp(azurite, endpoint, deployments).app.health.get(Request("GET", "/", {}, {}, {}, b""))
        text = response.content().decode()
        check = json.loads(text)["checks"]["upstream"]
        assert check["status"] == expected[0]
        assert check["message"].startswith(expected[1])
        for hidden in ("127.0.0.1", "wr0ng-key", "closed", "pool", KEY):
            assert hidden not in text
