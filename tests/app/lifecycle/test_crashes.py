"""Crashes and storage faults between any two steps: no generation is lost, and none is billed twice."""

from __future__ import annotations

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Status
from imagegen.lifecycle import changes
from tests.app.fakes import Crash
from tests.app.generations import DIRECT, ID, NOON, new, stored
from tests.app.lifecycle.fake_app import KEY, FakeApp


def _steps_of_a_polled_generation() -> list[str]:
    app = FakeApp()
    app.start(key=KEY)
    app.settle()
    return app.steps.taken


STEPS = _steps_of_a_polled_generation()


@pytest.mark.parametrize("failure", [Crash, StorageUnavailableError])
@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{at} {step.split()[0]}" for at, step in enumerate(STEPS)])
def test_crash_at_any_step_loses_and_doubles_nothing(step: int, fail_after: bool, failure: type[BaseException]) -> None:
    app = FakeApp()
    app.steps.fail_at, app.steps.fail_after, app.steps.failure = step, fail_after, failure
    try:
        app.start(key=KEY)
        app.settle()
    except (Crash, StorageUnavailableError):
        # Each billed operation has a record.
        assert all(app.records.read(billed) for billed in app.polled.operations)

    # The caller may have no answer, so it repeats the start with the same key. The timer continues.
    for _ in range(2):
        app.start(key=KEY)
        app.settle()

    [billed] = app.polled.operations
    assert (app.read(billed).status, app.read(billed).images) == (Status.SUCCEEDED, (stored(0), stored(1)))
    assert app.images.blobs == {f"{billed}/0", f"{billed}/1"}
    assert (list(app.records.done), app.records.active) == ([billed], {})


@pytest.mark.parametrize("failure", [Crash, StorageUnavailableError])
@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_crash_before_a_direct_call_only_delays_it(step: int, fail_after: bool, failure: type[BaseException]) -> None:
    """Key, record, message, claim: each write may have happened or not."""
    app = FakeApp()
    app.steps.fail_at, app.steps.fail_after, app.steps.failure = step, fail_after, failure
    try:
        app.start(DIRECT, key=KEY)
        app.settle()
    except (Crash, StorageUnavailableError):
        assert app.direct.calls == []
    again = app.start(DIRECT, key=KEY)
    app.settle()
    assert (app.direct.calls, app.read(again.id).status) == ([again.id], Status.SUCCEEDED)


@pytest.mark.parametrize("fail_after", [False, True])
def test_later_tick_sends_after_a_crash_while_sending(app: FakeApp, fail_after: bool) -> None:
    app.write_record(new(model=DIRECT))
    app.steps.fail_at, app.steps.fail_after = 1, fail_after  # save, send
    with pytest.raises(Crash):
        app.tick()
    assert app.records.active[ID].generation.due == NOON + changes.MESSAGE_LOST
    app.settle()
    assert app.direct.calls == [ID]
