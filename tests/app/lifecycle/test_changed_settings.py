"""Settings that change while generations are active: a model is removed, or gets another API."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.generation import Status, Versioned
from tests.app.generations import DIRECT, ID, NOON, OPERATION, POLLED, error_code, new, seconds
from tests.app.lifecycle.fake_app import FakeApp


def test_changed_api_waits_for_the_old_one(app: FakeApp) -> None:
    started = app.start()
    app.configure({POLLED: app.direct})
    app.steps.taken.clear()
    for _ in range(9):
        app.tick(seconds(60))
    assert app.steps.taken == []  # no write, no request, no message
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
    assert "generation.stranded" in caplog.text


@pytest.mark.parametrize(("repeat", "status"), [(True, Status.RUNNING), (False, Status.FAILED)])
def test_changed_api_repeats_a_lost_call_only_if_allowed(repeat: bool, status: Status) -> None:
    """The model answered with the images, and is polled now."""
    app = FakeApp(repeat_lost_calls=repeat)
    app.write_record(new(lost_calls=1))
    app.tick()
    assert app.read().status is status


MISSING = [
    {"queued": True},
    {"calling": True, "claim": "of a crashed worker", "status": Status.RUNNING},
    {"status": Status.RUNNING, "operation_location": OPERATION},
]


@pytest.mark.parametrize("changes", MISSING)
def test_removed_model_costs_nothing_until_the_deadline(app: FakeApp, changes: dict[str, Any]) -> None:
    started = app.write_record(new(model="gone", **changes))
    for _ in range(59):
        app.tick(seconds(60))
        app.worker.advance_by_id(ID, has_minutes=True)
    assert app.steps.taken == []  # no write, no request, no message
    assert app.records.active[ID] == started
    app.tick(seconds(60))
    error = app.read().error
    assert error
    assert (error.code, "'gone'" in error.message, error.is_refusal) == ("modelRemoved", True, False)
    assert app.direct.calls == app.polled.operations == []


def test_removed_model_is_looked_at_once_a_minute(app: FakeApp) -> None:
    """The `due` of the result, which the timer keeps in memory."""
    current = app.write_record(new(model="gone"))
    after = app.worker.advance(current)
    assert after == Versioned(current.generation.changed(due=NOON + seconds(60)), current.etag)


@pytest.mark.parametrize(("upstream", "changes"), [(DIRECT, MISSING[0]), (DIRECT, MISSING[1]), (POLLED, MISSING[2])])
def test_generation_goes_on_when_its_model_is_put_back(app: FakeApp, upstream: str, changes: dict[str, Any]) -> None:
    app.write_record(new(model=upstream, **changes))
    app.configure({"other": app.polled})
    app.tick(seconds(600))
    assert app.steps.taken == []
    app.configure({POLLED: app.polled, DIRECT: app.direct})
    app.settle()
    assert app.read().status is Status.SUCCEEDED
    assert app.read().lost_calls == ("claim" in changes)
