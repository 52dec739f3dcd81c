"""Is the app able to work? Asked by anybody, as often as he likes."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import GenerationRequest
from imagegen.settings import read_settings
from imagegen.upstream.protocol import Limits
from imagegen.web.health import HealthRoute
from imagegen.web.http import Request, Response
from tests.app.fakes import ANY

ENVIRONMENT = {
    "AzureWebJobsStorage": "AccountName=s3cret;AccountKey=s3cret",
    "AZURE_OPENAI_ENDPOINT": "https://s3cret.example.com",
    "AZURE_OPENAI_API_KEY": "s3cret",
    "POLL_SCHEDULE": "0 * * * * *",
    "IMAGE_DEPLOYMENTS": json.dumps(
        [{"name": "s3cret-a", "api": "images"}, {"name": "b", "api": "mai"}, {"name": "c", "api": "images"}]
    ),
}
GET = Request("GET", "http://localhost/api/health", {}, {}, {}, b"")


@dataclass
class Checked:
    """An upstream that only tells how it is."""

    problem: str | None = None
    asked: int = 0
    limits: Limits = ANY
    together: threading.Barrier | None = None

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        raise NotImplementedError

    def check(self) -> str | None:
        self.asked += 1
        if self.together:
            self.together.wait()
        return self.problem


@dataclass
class Harness:
    now: float = 0.0
    storage_away: bool = False
    upstreams: dict[str, Checked] = field(default_factory=lambda: {name: Checked() for name in "abc"})

    def __post_init__(self) -> None:
        self.health = HealthRoute(
            settings=read_settings(ENVIRONMENT),
            storage=self,
            upstreams=self.upstreams,
            monotonic=lambda: self.now,
        )

    def check(self) -> None:
        if self.storage_away:
            raise StorageUnavailableError("s3cret")

    def get(self) -> Response:
        return self.health.get(GET)


def body(response: Response) -> dict[str, object]:
    assert "s3cret" not in response.content().decode()
    return json.loads(response.content())


def test_an_app_that_is_able_to_work_says_how_it_is_set_up_and_no_more() -> None:
    response = Harness().get()
    assert (response.status, dict(response.headers)) == (200, {})
    assert body(response) == {
        "status": "healthy",
        "checks": {"storage": {"status": "ok"}, "upstream": {"status": "ok"}},
        "configuration": {
            "apis": "images, mai",
            "upstreamCredential": "key",
            "storageCredential": "connectionString",
            "oldApi": False,
            "pollSchedule": "0 * * * * *",
        },
    }


@pytest.mark.parametrize(
    ("problems", "storage_away", "upstream", "storage"),
    [
        ({"b": "answered 401"}, False, "answered 401", None),  # one is enough, whichever it is
        ({"a": "answered 401", "c": "out of reach"}, False, "answered 401; out of reach", None),
        ({}, True, None, "does not answer, or refuses the app; its log says which"),
        ({"c": "out of reach"}, True, "out of reach", "does not answer, or refuses the app; its log says which"),
    ],
)
def test_everything_that_is_wrong_is_said_at_once(
    problems: dict[str, str], storage_away: bool, upstream: str | None, storage: str | None
) -> None:
    harness = Harness(storage_away=storage_away)
    for name, problem in problems.items():
        harness.upstreams[name].problem = problem
    response = harness.get()
    assert (response.status, response.headers["Retry-After"]) == (503, "30")
    said = body(response)
    assert said["status"] == "unhealthy"
    assert said["checks"] == {
        name: {"status": "failed", "message": problem} if problem else {"status": "ok"}
        for name, problem in (("storage", storage), ("upstream", upstream))
    }


@pytest.mark.parametrize("problem", [None, "answered 401"])
def test_an_answer_is_given_again_for_15_seconds_whatever_it_was(problem: str | None) -> None:
    harness = Harness()
    harness.upstreams["a"].problem = problem
    first = harness.get()
    harness.upstreams["a"].problem = None if problem else "answered 401"
    for harness.now in (0.0, 7.5, 15.0):
        assert harness.get() is first
    assert [upstream.asked for upstream in harness.upstreams.values()] == [1, 1, 1]
    harness.now = 15.1
    assert harness.get().status != first.status
    assert [upstream.asked for upstream in harness.upstreams.values()] == [2, 2, 2]


def test_one_that_is_slow_does_not_keep_the_others_waiting() -> None:
    together = threading.Barrier(3, timeout=10)
    harness = Harness(upstreams={name: Checked(together=together) for name in "abc"})
    assert harness.get().status == 200
