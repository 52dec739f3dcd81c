"""The checks of a chaos run report what is lost or doubled, and a seed repeats a scenario."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from imagegen.generation import Generation, GenerationRequest, Status, StoredImage
from tests.chaos.account import Content
from tests.chaos.client import Accepted
from tests.chaos.scenario import POLLED_MODEL, Ending, Mode, Options, Start, plan
from tests.chaos.verdict import Evidence, problems

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_POLLED, _DIRECT = str(UUID(int=1)), str(UUID(int=2))


def _accepted(id_: str, model: str) -> Accepted:
    start = Start(0, f"key-{id_}", model, f"prompt of {id_}", 1, "256x256", 0, Ending.NONE, False, False)
    return Accepted(start, frozenset({id_}), f"/generations/{id_}", deleted=False)


def _record(id_: str) -> Generation:
    image = StoredImage(container="images", blob=f"{id_}/0.png", content_type="image/png", content_length=1, sha256="")
    return Generation(
        id=id_,
        token="token",
        status=Status.SUCCEEDED,
        created=_NOW,
        last_action=_NOW,
        deadline=_NOW,
        due=_NOW,
        request=GenerationRequest(prompt="x"),
        images=(image,),
    )


def _evidence() -> Evidence:
    """Two generations that succeeded."""
    accepted = (_accepted(_POLLED, POLLED_MODEL), _accepted(_DIRECT, "gpt-image-2"))
    return Evidence(
        starts=[one.start for one in accepted],
        accepted=accepted,
        content=Content(
            active=frozenset(),
            done={id_: _record(id_) for id_ in (_POLLED, _DIRECT)},
            keys={"a": _POLLED, "b": _DIRECT},
            images=frozenset({f"{_POLLED}/0.png", f"{_DIRECT}/0.png"}),
            poisoned=0,
        ),
        emulator={
            "operations": 1,
            "by_operation": {_POLLED: {}},
            "billed_by_prompt": {hashlib.sha256(f"prompt of {_DIRECT}".encode()).hexdigest(): 1},
        },
        repeat_lost_calls=False,
    )


def _canceled(path: str) -> Mapping[str, Any]:
    return {"status": "canceled"}


def _with_content(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, content=replace(evidence.content, **changes))


def _with_emulator(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, emulator={**evidence.emulator, **changes})


def _one_accepted(evidence: Evidence) -> Evidence:
    return replace(evidence, accepted=evidence.accepted[:1])


def _two_ids(evidence: Evidence) -> Evidence:
    first, *others = evidence.accepted
    return replace(evidence, accepted=[replace(first, ids=frozenset({_POLLED, _DIRECT})), *others])


_TWO_CALLS = {hashlib.sha256(f"prompt of {_DIRECT}".encode()).hexdigest(): 2}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_one_accepted, "no host accepted it"),
        (_two_ids, "several ids for one key"),
        (_with_content(active=frozenset({_POLLED})), "still under active/"),
        (_with_content(done={}), "its record is lost"),
        (_with_content(done={id_: _record(id_) for id_ in (_POLLED, _DIRECT, "other")}), "no accepted generation"),
        (_with_content(keys={"a": "other"}), "a key of no record"),
        (_with_content(keys={"a": _POLLED, "b": _POLLED}), "several keys"),
        (_with_content(images=frozenset({f"{_POLLED}/1.png"})), "an image without a record"),
        (_with_emulator(by_operation={}), "a generation without an operation"),
        (_with_emulator(by_operation={_POLLED: {}, "other": {}}), "an operation of no generation"),
        (_with_emulator(operations=2), "2 operations for 1 ids"),
        (_with_emulator(billed_by_prompt=_TWO_CALLS), "2 billed calls"),
        (_with_emulator(billed_by_prompt={}), "succeeded without a call"),
    ],
)
def test_loss_or_double_is_a_problem(change: Callable[[Evidence], Evidence], problem: str) -> None:
    before = problems(_evidence(), _canceled)
    added = [line for line in problems(change(_evidence()), _canceled) if line not in before]
    assert any(problem in line for line in added), added


@pytest.mark.parametrize(
    ("monitor", "problem"),
    [
        (None, "no monitor"),
        ({"status": "running"}, "the monitor says running"),
        ({"status": "canceled"}, "no caller canceled it"),
        ({"status": "failed", "error": {"code": "copyFailed"}}, "failed with copyFailed"),
        ({"status": "succeeded", "result": {"data": []}}, "0 images instead of 1"),
        ({"status": "succeeded", "result": {"data": [{"error": {"code": "copyFailed"}}]}}, "has the error copyFailed"),
    ],
)
def test_wrong_monitor_is_a_problem(monitor: Mapping[str, Any] | None, problem: str) -> None:
    assert [problem in line for line in problems(_evidence(), lambda _: monitor)] == [True, True]


def test_repeated_lost_call_is_allowed_by_the_setting() -> None:
    evidence = replace(_with_emulator(billed_by_prompt=_TWO_CALLS)(_evidence()), repeat_lost_calls=True)
    assert not any("billed calls" in line for line in problems(evidence, _canceled))


@pytest.mark.parametrize("mode", Mode)
def test_seed_repeats_the_scenario(mode: Mode) -> None:
    first = Options(seed=7, mode=mode)
    assert plan(first) == plan(Options(seed=7, mode=mode))
    assert plan(first) != plan(Options(seed=8, mode=mode))
