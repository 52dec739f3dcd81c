"""Cancel and delete, before, during and after the work of another worker."""

from __future__ import annotations

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Generation, Status
from imagegen.upstream.protocol import Throttled, Unavailable
from tests.app.fakes import Crash
from tests.app.generations import DIRECT, ID, new, running
from tests.app.lifecycle.fake_app import KEY, FakeApp

# --- A polled model


@pytest.mark.parametrize(
    ("record", "stays_active"),
    [
        (new(), False),
        (running(), False),
        (running(copy_attempts=1), True),  # its worker must find the outcome, and remove the images that it stored
    ],
)
def test_cancel_ends_at_once(app: FakeApp, record: Generation, stays_active: bool) -> None:
    app.write_record(record)
    canceled = app.generations.cancel(record)
    assert canceled is not None
    assert canceled.status is Status.CANCELED
    assert (ID in app.records.active) is stays_active
    app.settle()
    assert app.records.done[ID] == canceled
    assert app.images.blobs == set()


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_cancel_after_the_end_changes_nothing(app: FakeApp, status: Status) -> None:
    ended = running(status=status)
    assert app.generations.cancel(ended) is ended
    assert app.steps.taken == []


@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", [None, *range(5)])
def test_repeated_delete_completes_a_crashed_one(app: FakeApp, step: int | None, fail_after: bool) -> None:
    started = app.start(key=KEY)
    app.images.blobs = {f"{ID}/0"}
    app.steps.taken.clear()
    app.steps.fail_at, app.steps.fail_after = step, fail_after
    try:
        app.generations.delete(started)
        assert step is None
    except Crash:
        if found := app.records.read(ID):  # else the caller gets 404, and the delete is complete
            app.generations.delete(found)
    app.settle()
    assert (app.records.read(ID), app.records.active) == (None, {})
    assert (app.images.blobs, app.records.keys) == (set(), {})
    assert app.start(key=KEY).id != ID  # the key is free


def test_late_worker_does_not_restore_a_deleted_generation(app: FakeApp) -> None:
    current = app.write_record(running(copy_attempts=1))
    app.generations.delete(current.generation)
    app.settle()
    assert (app.records.read(ID), app.images.blobs) == (None, set())


# --- A model that answers with the images


def test_canceled_generation_is_not_called(app: FakeApp) -> None:
    started = app.start(DIRECT)
    app.generations.cancel(started)
    app.settle()
    assert (app.direct.calls, app.read().status) == ([], Status.CANCELED)


def test_interrupted_cancel_prevents_the_call(app: FakeApp) -> None:
    started = app.start(DIRECT)
    # The cancel takes two steps: write_outcome, drop_active. The second one fails.
    app.steps.fail_at, app.steps.failure = len(app.steps.taken) + 1, StorageUnavailableError
    with pytest.raises(StorageUnavailableError):
        app.generations.cancel(started)
    app.settle()
    assert app.direct.calls == []


@pytest.mark.parametrize("delete", [False, True])
def test_cancel_during_the_call_leaves_no_image(app: FakeApp, delete: bool) -> None:
    started = app.start(DIRECT)
    end = app.generations.delete if delete else app.generations.cancel
    app.direct.during_call = lambda: end(started)
    app.work()
    app.settle()
    found = app.records.read(ID)
    assert found is None if delete else (found and found.status is Status.CANCELED)
    assert (app.images.blobs, app.direct.calls, app.records.active) == (set(), [ID], {})


@pytest.mark.parametrize("answer", [Throttled("status 429", 5.0), Unavailable("status 503")])
@pytest.mark.parametrize("delete", [False, True])
def test_generation_ended_during_a_call_is_not_called_again(
    app: FakeApp, answer: Throttled | Unavailable, delete: bool
) -> None:
    started = app.start(DIRECT)
    end = app.generations.delete if delete else app.generations.cancel
    app.direct.during_call = lambda: end(started)
    app.direct.outcomes = [answer]
    app.work()
    app.settle()
    assert app.direct.calls == [ID]


def test_no_call_after_cancel_and_crash(app: FakeApp) -> None:
    app.start(DIRECT)
    app.steps.fail_at = 3  # the call
    with pytest.raises(Crash):
        app.work()
    app.generations.cancel(app.records.active[ID].generation)
    app.settle()
    assert (app.direct.calls, app.read().status) == ([], Status.CANCELED)
