"""Settings that change while generations are active: a model is removed, or gets another API."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.generation import Status
from tests.app.generations import DIRECT, OPERATION, POLLED, error_code, new, seconds
from tests.app.lifecycle.fake_app import FakeApp


def test_changed_api_waits_for_the_old_one(app: FakeApp) -> None:
    started = app.start()
    app.configure({POLLED: app.direct})
    app.steps.taken.clear()
    for _ in range(9):
        app.tick(seconds(60))
    assert app.steps.taken == ["save"]  # one write, no request, no message
    app.configure({POLLED: app.polled, DIRECT: app.direct})
    app.clock.now = started.deadline
    app.settle()
    assert app.read().status is Status.SUCCEEDED


def test_changed_api_fails_at_the_deadline(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.start()
    app.configure({POLLED: app.direct})
    app.settle()
    assert (app.read().status, error_code(app.read())) == (Status.FAILED, "modelChanged")
    assert (app.direct.calls, app.queue.messages) == ([], [])
    assert caplog.text.count("generation.stranded") == 1


@pytest.mark.parametrize(("repeat", "status"), [(True, Status.RUNNING), (False, Status.FAILED)])
def test_changed_api_repeats_a_lost_call_only_if_allowed(repeat: bool, status: Status) -> None:
    """The model answered with the images, and is polled now."""
    app = FakeApp(repeat_lost_calls=repeat)
    app.write_record(new(lost_calls=1))
    app.tick()
    assert app.read().status is status


@pytest.mark.parametrize(
    "changes",
    [
        {"queued": True},
        {"calling": True, "status": Status.RUNNING},
        {"status": Status.RUNNING, "operation_location": OPERATION},
    ],
)
def test_removed_model_ends_its_generations(app: FakeApp, changes: dict[str, Any]) -> None:
    app.write_record(new(model="gone", **changes))
    app.tick()
    error = app.read().error
    assert error
    assert (error.code, "'gone'" in error.message, error.is_refusal) == ("modelRemoved", True, False)
    assert app.direct.calls == app.polled.operations == []
