"""``GET /health``: what it reports, and what it hides and caches."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import GenerationRequest
from imagegen.settings import read_settings
from imagegen.upstream.protocol import CheckProblem, Limits
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
NO_STORAGE = "does not answer or refuses access; the app's log has the reason"
GET = Request("GET", "http://localhost/api/health", {}, {}, {}, b"")


@dataclass
class FakeUpstream:
    """An upstream that supports only the health check."""

    problem: CheckProblem | None = None
    checks: int = 0
    limits: Limits = ANY
    barrier: threading.Barrier | None = None

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        raise NotImplementedError

    def check(self) -> CheckProblem | None:
        self.checks += 1
        if self.barrier:
            self.barrier.wait()
        return self.problem


@dataclass
class Harness:
    now: float = 0.0
    storage_down: bool = False
    links_fail: bool = False
    link_checks: int = 0
    upstreams: dict[str, FakeUpstream] = field(default_factory=lambda: {name: FakeUpstream() for name in "abc"})
    pools: list[list[FakeUpstream]] = field(default_factory=list[list[FakeUpstream]])

    def __post_init__(self) -> None:
        self.health = HealthRoute(
            settings=read_settings(ENVIRONMENT),
            storage=self,
            links=self,
            upstreams=self.pools or [[one] for one in self.upstreams.values()],
            monotonic=lambda: self.now,
        )

    def check(self) -> None:
        if self.storage_down:
            raise StorageUnavailableError("s3cret")

    def check_links(self) -> None:
        self.link_checks += 1
        if self.links_fail:
            raise StorageUnavailableError("s3cret")

    def get(self) -> Response:
        return self.health.get(GET)


def body(response: Response) -> dict[str, object]:
    assert "s3cret" not in response.content().decode()
    return json.loads(response.content())


def test_healthy_answer_has_configuration_and_no_secret() -> None:
    response = Harness().get()
    assert (response.status, dict(response.headers)) == (200, {})
    assert body(response) == {
        "status": "healthy",
        "checks": {"storage": {"status": "ok"}, "upstream": {"status": "ok"}},
        "configuration": {
            "apis": ["images", "mai"],
            "upstreamCredential": "key",
            "storageCredential": "connectionString",
            "oldApi": False,
            "pollSchedule": "0 * * * * *",
        },
    }


@pytest.mark.parametrize(
    ("problems", "storage_down", "upstream", "storage"),
    [
        ({"b": "answered 401"}, False, "answered 401", None),  # one failed check is enough
        ({"a": "answered 401", "c": "out of reach"}, False, "answered 401; out of reach", None),
        ({}, True, None, NO_STORAGE),
        ({"c": "out of reach"}, True, "out of reach", NO_STORAGE),
    ],
)
def test_unhealthy_answer_names_every_problem(
    problems: dict[str, str], storage_down: bool, upstream: str | None, storage: str | None
) -> None:
    harness = Harness(storage_down=storage_down)
    for name, problem in problems.items():
        harness.upstreams[name].problem = CheckProblem(problem)
    response = harness.get()
    assert (response.status, response.headers["Retry-After"]) == (503, "30")
    found = body(response)
    assert found["status"] == "unhealthy"
    assert found["checks"] == {
        name: {"status": "failed", "message": problem} if problem else {"status": "ok"}
        for name, problem in (("storage", storage), ("upstream", upstream))
    }


def test_unsigned_links_are_a_storage_problem() -> None:
    harness = Harness(links_fail=True)
    response = harness.get()
    assert response.status == 503
    checks = json.loads(response.content())["checks"]
    assert checks["storage"]["message"].startswith("answers, but no link to an image can be signed. Check that ")
    assert checks["upstream"] == {"status": "ok"}
    for harness.now in (0.0, 15.0):
        assert harness.get() is response
    assert harness.link_checks == 1


WRONG_KEY = CheckProblem("answered 401")
NO_LIST = CheckProblem("answered 404", certain=False)


@pytest.mark.parametrize(
    ("problems", "status", "check"),
    [
        ({"a": NO_LIST}, 200, {"status": "warning", "message": "answered 404"}),
        ({"a": NO_LIST, "c": NO_LIST}, 200, {"status": "warning", "message": "answered 404"}),
        ({"a": NO_LIST, "b": WRONG_KEY}, 503, {"status": "failed", "message": "answered 401; answered 404"}),
    ],
)
def test_missing_route_is_told_apart_from_ok(
    problems: dict[str, CheckProblem], status: int, check: dict[str, str]
) -> None:
    harness = Harness()
    for name, problem in problems.items():
        harness.upstreams[name].problem = problem
    response = harness.get()
    found = body(response)
    assert (response.status, found["status"]) == (status, "healthy" if status == 200 else "unhealthy")
    assert found["checks"] == {"storage": {"status": "ok"}, "upstream": check}


@pytest.mark.parametrize(
    ("pools", "status", "check"),
    [
        # While one deployment of a pool works, the app works.
        ([[WRONG_KEY, None, None]], 200, ("warning", "1 of 3 deployments with one name: answered 401")),
        ([[WRONG_KEY, None, WRONG_KEY]], 200, ("warning", "2 of 3 deployments with one name: answered 401")),
        (
            [[CheckProblem("out of reach"), WRONG_KEY, NO_LIST]],
            200,
            ("warning", "2 of 3 deployments with one name: out of reach; answered 401; answered 404"),
        ),
        ([[NO_LIST, None]], 200, ("warning", "answered 404")),
        ([[WRONG_KEY, WRONG_KEY]], 503, ("failed", "answered 401")),
        # Another model cannot take over.
        ([[WRONG_KEY], [None, None]], 503, ("failed", "answered 401")),
        (
            [[None, CheckProblem("out of reach")], [WRONG_KEY]],
            503,
            ("failed", "answered 401; 1 of 2 deployments with one name: out of reach"),
        ),
    ],
)
def test_pool_fails_if_all_its_deployments_fail(
    pools: list[list[CheckProblem | None]], status: int, check: tuple[str, str]
) -> None:
    harness = Harness(pools=[[FakeUpstream(problem) for problem in members] for members in pools])
    response = harness.get()
    assert response.status == status
    assert body(response)["checks"] == {
        "storage": {"status": "ok"},
        "upstream": dict(zip(("status", "message"), check, strict=True)),
    }
    assert [one.checks for members in harness.pools for one in members] == [1] * sum(map(len, pools))


@pytest.mark.parametrize("problem", [None, WRONG_KEY])
def test_answer_is_cached_for_15_seconds(problem: CheckProblem | None) -> None:
    harness = Harness()
    harness.upstreams["a"].problem = problem
    first = harness.get()
    harness.upstreams["a"].problem = None if problem else WRONG_KEY
    for harness.now in (0.0, 7.5, 15.0):
        assert harness.get() is first
    assert [upstream.checks for upstream in harness.upstreams.values()] == [1, 1, 1]
    harness.now = 15.1
    assert harness.get().status != first.status
    assert [upstream.checks for upstream in harness.upstreams.values()] == [2, 2, 2]


def test_upstreams_are_checked_in_parallel() -> None:
    barrier = threading.Barrier(3, timeout=10)
    harness = Harness(upstreams={name: FakeUpstream(barrier=barrier) for name in "abc"})
    assert harness.get().status == 200
