"""Workflow engines, emulated with their default retries, against the running app."""

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
from tests.clients.conftest import at_once, hurried_sleep, of_prompt, stats
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
    """What the workflow asks for, and what goes wrong on the way."""

    word: str = ""
    faults: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Run:
    """What became of it."""

    prompt: str
    output: Output
    answers: list[tuple[str, int]]
    """(method, status) as the step saw them, 0 for a lost one."""


_WORKING = Case("[status:running:1]")
_ENDS = {
    Case("[contentFilter]"): (422, "contentFilter"),  # the caller must change the prompt
    Case("[failed:internalFailure]"): (424, "internalFailure"),  # not the caller's fault, and no reason to retry
    Case("[status:canceled]"): (410, "canceled"),
}
_POST_FAULTS = {fault: Case(faults=(("POST", fault), ("POST", fault))) for fault in (503, LOST)}
_POLL_FAULTS = {fault: Case(faults=(("GET", fault),)) for fault in (429, 503, LOST)}
_CASES = (_WORKING, *_ENDS, *_POST_FAULTS.values(), *_POLL_FAULTS.values())

type Runs = Mapping[tuple[Step, Case], Future[Run]]


@pytest.fixture(scope="module")
def runs(stack: Stack) -> Generator[Runs]:
    """Every engine with every case."""
    with at_once({(step, case): partial(_run, stack, step, case) for step, case in product(STEPS, _CASES)}) as running:
        yield running


def _run(stack: Stack, step: Step, case: Case) -> Run:
    prompt = f"a lighthouse {case.word} {uuid4()}"
    if case.faults:
        # Durable and Data Factory repeat a request only when their author says so: here he does.
        step = dataclasses.replace(step, retries=step.retries or (1.0, 1.0))
    headers = {**_HEADERS, "Idempotency-Key": f'"{uuid4()}"'}
    with faulty_proxy(stack.base_url) as proxy:
        proxy.faults += case.faults
        body = {"prompt": prompt, "metadata": {"order": "4711"}}
        output = step.run(f"{proxy.base_url}/generations", body, headers, hurried_sleep)
    return Run(prompt, output, proxy.seen)


_each = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@_each
def test_the_output_is_the_finished_monitor(runs: Runs, step: Step) -> None:
    output = runs[step, _WORKING].result().output

    assert (output.status, output.succeeded, output.body["status"]) == (200, True, "succeeded")
    assert output.body["metadata"] == {"order": "4711"}
    assert requests.get(output.body["result"]["data"][0]["url"], timeout=30).headers["Content-Type"] == "image/png"
    assert (output.posts, output.retries) == (1, 0)
    assert set(output.waits) <= {1, 2, 5}, "it waits as told, not as by default"


@_each
@pytest.mark.parametrize(("case", "expected"), _ENDS.items(), ids=[case.word for case in _ENDS])
def test_a_failed_generation_ends_the_step_without_a_retry(
    runs: Runs, step: Step, case: Case, expected: tuple[int, str]
) -> None:
    output = runs[step, case].result().output

    assert (output.status, output.body["error"]["code"]) == expected
    assert not output.succeeded
    assert (output.posts, output.polls, output.retries) == (1, len(output.waits), 0)


@_each
@pytest.mark.parametrize("fault", _POST_FAULTS)
def test_a_repeated_post_starts_one_generation(stack: Stack, runs: Runs, step: Step, fault: int) -> None:
    run = runs[step, _POST_FAULTS[fault]].result()

    posts = [status for method, status in run.answers if method == "POST"]
    assert posts == [fault, fault, 202]
    assert (run.output.status, run.output.posts, run.output.retries) == (200, 3, 2)
    assert [found["id"] for found in of_prompt(stack, run.prompt)] == [run.output.body["id"]]
    assert stats(stack)["by_operation"][run.output.body["id"]]["submits"] == 1


@_each
@pytest.mark.parametrize("fault", _POLL_FAULTS)
def test_a_poll_that_failed_on_its_way_is_made_again(runs: Runs, step: Step, fault: int) -> None:
    run = runs[step, _POLL_FAULTS[fault]].result()

    assert run.answers[1] == ("GET", fault)
    assert (run.output.status, run.output.body["status"], run.output.retries) == (200, "succeeded", 1)


@_each
def test_a_wrong_request_fails_the_step_at_once(stack: Stack, step: Step) -> None:
    output = step.run(f"{stack.base_url}/generations", {"promt": "a thing"}, _HEADERS, hurried_sleep)

    assert (output.status, output.posts, output.polls) == (400, 1, 0)


def test_without_a_key_a_repeated_post_starts_a_second_generation(stack: Stack) -> None:
    """Why docs/api.md has every workflow send Idempotency-Key; and the proof that the tests above can fail."""
    prompt = f"a lighthouse {uuid4()}"
    with faulty_proxy(stack.base_url) as proxy:
        proxy.faults.append(("POST", LOST))
        STEPS[0].run(f"{proxy.base_url}/generations", {"prompt": prompt}, _HEADERS, hurried_sleep)

    assert len(of_prompt(stack, prompt)) == 2
