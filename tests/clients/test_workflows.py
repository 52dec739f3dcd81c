"""Emulated workflow engines with their default retries, against the running app."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import product
from uuid import uuid4

import pytest
import requests

from local.stack import Stack
from tests.clients.conftest import fast_sleep, generations_of, in_parallel, stats
from tests.clients.faulty_proxy import LOST, faulty_proxy
from tests.clients.workflows import STEPS, Output, Step

_HEADERS = {
    "x-functions-key": "a-function-key",
    "Authorization": "Basic what-the-authentication-of-the-action-says",
    "x-ms-workflow-run-id": "08584000000000000000000000000CU00",
    "x-ms-client-tracking-id": "08584000000000000000000000000CU00",
    "x-ms-action-tracking-id": "b8e2f6d0-0000-4000-8000-000000000000",
    "x-ms-client-request-id": "b8e2f6d0-0000-4000-8000-000000000000",
}


@dataclass(frozen=True)
class Case:
    """The word in the prompt that steers the emulator, and the faults of the proxy."""

    word: str = ""
    faults: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Run:
    """The outcome of one step."""

    prompt: str
    output: Output
    answers: list[tuple[str, int]]
    """(method, status) that the step got; 0: the answer was lost."""


_WORKING = Case("[status:running:1]")
_ENDS = {
    Case("[contentFilter]"): (422, "contentFilter"),  # the caller must change the prompt
    Case("[failed:internalFailure]"): (424, "internalFailure"),  # not the caller's fault, but a retry does not help
    Case("[status:canceled]"): (410, "canceled"),
}
_POST_FAULTS = {fault: Case(faults=(("POST", fault), ("POST", fault))) for fault in (503, LOST)}
_POLL_FAULTS = {fault: Case(faults=(("GET", fault),)) for fault in (429, 503, LOST)}
_CASES = (_WORKING, *_ENDS, *_POST_FAULTS.values(), *_POLL_FAULTS.values())

type Runs = Mapping[tuple[Step, Case], Future[Run]]


@pytest.fixture(scope="module")
def runs(stack: Stack) -> Generator[Runs]:
    """Every engine with every case."""
    with in_parallel(
        {(step, case): partial(_run, stack, step, case) for step, case in product(STEPS, _CASES)}
    ) as running:
        yield running


def _run(stack: Stack, step: Step, case: Case) -> Run:
    prompt = f"a lighthouse {case.word} {uuid4()}"
    if case.faults:
        # Durable and Data Factory retry only when their author configures it; this case assumes that.
        step = dataclasses.replace(step, retries=step.retries or (1.0, 1.0))
    headers = {**_HEADERS, "Idempotency-Key": f'"{uuid4()}"'}
    with faulty_proxy(stack.base_url) as proxy:
        proxy.faults += case.faults
        body = {"prompt": prompt, "metadata": {"order": "4711"}}
        output = step.run(f"{proxy.base_url}/generations", body, headers, fast_sleep)
    return Run(prompt, output, proxy.answers)


_each = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@_each
def test_output_is_the_final_monitor(runs: Runs, step: Step) -> None:
    output = runs[step, _WORKING].result().output

    assert (output.status, output.succeeded, output.body["status"]) == (200, True, "succeeded")
    assert output.body["metadata"] == {"order": "4711"}
    assert requests.get(output.body["result"]["data"][0]["url"], timeout=30).headers["Content-Type"] == "image/png"
    assert (output.posts, output.retries) == (1, 0)
    assert set(output.waits) <= {1, 2, 5}, "waits must follow Retry-After, not the default"


@_each
@pytest.mark.parametrize(("case", "expected"), _ENDS.items(), ids=[case.word for case in _ENDS])
def test_failed_generation_ends_the_step_without_retry(
    runs: Runs, step: Step, case: Case, expected: tuple[int, str]
) -> None:
    output = runs[step, case].result().output

    assert (output.status, output.body["error"]["code"]) == expected
    assert not output.succeeded
    assert (output.posts, output.polls, output.retries) == (1, len(output.waits), 0)


@_each
@pytest.mark.parametrize("fault", _POST_FAULTS)
def test_repeated_post_starts_one_generation(stack: Stack, runs: Runs, step: Step, fault: int) -> None:
    run = runs[step, _POST_FAULTS[fault]].result()

    posts = [status for method, status in run.answers if method == "POST"]
    assert posts == [fault, fault, 202]
    assert (run.output.status, run.output.posts, run.output.retries) == (200, 3, 2)
    assert [found["id"] for found in generations_of(stack, run.prompt)] == [run.output.body["id"]]
    assert stats(stack)["by_operation"][run.output.body["id"]]["submits"] == 1


@_each
@pytest.mark.parametrize("fault", _POLL_FAULTS)
def test_failed_poll_is_repeated(runs: Runs, step: Step, fault: int) -> None:
    run = runs[step, _POLL_FAULTS[fault]].result()

    assert run.answers[1] == ("GET", fault)
    assert (run.output.status, run.output.body["status"], run.output.retries) == (200, "succeeded", 1)


@_each
def test_wrong_request_fails_the_step_without_retry(stack: Stack, step: Step) -> None:
    output = step.run(f"{stack.base_url}/generations", {"promt": "a thing"}, _HEADERS, fast_sleep)

    assert (output.status, output.posts, output.polls) == (400, 1, 0)


def test_repeated_post_without_key_starts_a_second_one(stack: Stack) -> None:
    """The reason why docs/api.md asks for Idempotency-Key, and the proof that the tests above can fail."""
    prompt = f"a lighthouse {uuid4()}"
    with faulty_proxy(stack.base_url) as proxy:
        proxy.faults.append(("POST", LOST))
        STEPS[0].run(f"{proxy.base_url}/generations", {"prompt": prompt}, _HEADERS, fast_sleep)

    assert len(generations_of(stack, prompt)) == 2
