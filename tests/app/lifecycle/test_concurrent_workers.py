"""Two workers on one record, on fakes: one write wins, and the loser stops. `test_races` does the same on Azurite."""

from __future__ import annotations

import pytest

from imagegen.generation import Generation, GenerationError, Status, StoredImage, Versioned
from imagegen.lifecycle import changes
from tests.app.generations import DIRECT, ID, new, running, seconds, stored
from tests.app.lifecycle.fake_app import FakeApp

ERROR = GenerationError(code="contentFilter", message="No.")


def test_loser_of_the_claim_does_not_copy(app: FakeApp) -> None:
    current = app.write_record(running())
    app.records.save(current.generation, current.etag)  # another worker
    app.steps.taken.clear()
    after = app.worker.advance(current)
    assert after is None
    assert app.steps.taken == ["poll", "save"]


def test_submit_of_a_slow_worker_does_not_overwrite(app: FakeApp) -> None:
    current = app.write_record(new())
    winner = app.records.save(running(), current.etag)
    assert app.worker.advance(current) is None
    assert app.records.active[ID] == Versioned(running(), winner)


@pytest.mark.parametrize(
    ("first", "images_stay"),
    [
        (running(status=Status.SUCCEEDED, images=(stored(0), stored(1))), True),  # it lists the same images
        (running(status=Status.FAILED, error=ERROR), False),
        (running(status=Status.CANCELED), False),
        (None, False),  # deleted
    ],
)
def test_losing_worker_removes_its_images(app: FakeApp, first: Generation | None, images_stay: bool) -> None:
    current = app.write_record(running())
    app.records.done[ID] = first
    assert app.worker.advance(current) is None
    assert app.images.blobs == ({f"{ID}/0", f"{ID}/1"} if images_stay else set())
    assert app.records.done[ID] == first  # the first outcome stays
    assert app.records.active == {}


@pytest.mark.parametrize(
    ("winner", "images_stay"),
    [
        (new(model=DIRECT, status=Status.SUCCEEDED, images=(stored(),)), True),
        (new(model=DIRECT, status=Status.CANCELED), False),
        (None, False),  # deleted
    ],
)
def test_ended_generation_is_dropped_without_a_call(app: FakeApp, winner: Generation | None, images_stay: bool) -> None:
    app.write_record(new(model=DIRECT))
    app.records.done[ID] = winner
    app.images.blobs = {f"{ID}/0", f"{ID}/0-1"}  # of two calls; an outcome lists those of one
    app.worker.advance_by_id(ID, has_minutes=True)
    assert app.steps.taken == ["delete_all", "drop_active"]
    assert app.images.blobs == ({f"{ID}/0"} if images_stay else set())
    assert (app.direct.calls, app.records.active, app.records.done[ID]) == ([], {}, winner)


@pytest.mark.parametrize("winner", [new(status=Status.CANCELED), new(status=Status.FAILED, error=ERROR), None])
def test_ended_generation_is_dropped_without_a_submit(app: FakeApp, winner: Generation | None) -> None:
    """A crash between the outcome and the end of the active record, or a write of the timer in between."""
    app.write_record(new())
    app.records.done[ID] = winner
    app.tick()
    assert (app.polled.operations, app.records.active, app.records.done[ID]) == ([], {}, winner)


def test_images_of_two_calls_do_not_replace_each_other(app: FakeApp) -> None:
    """The first worker stores its images late, while the second call stores its own."""

    def answer_elsewhere() -> None:
        app.direct.during_call = lambda: None
        app.clock.now += changes.CALL_CLAIM
        app.tick()
        app.work()

    app.direct.during_call = answer_elsewhere
    app.start(DIRECT)
    app.work()
    assert app.direct.calls == [ID, ID]
    assert app.images.blobs == {image.blob for image in app.read().images if isinstance(image, StoredImage)}
    assert app.images.blobs == {f"{ID}/0-1", f"{ID}/1-1"}


def test_two_workers_with_one_message_make_one_call(app: FakeApp) -> None:
    """The platform may deliver a message twice, and the timer may send a second one."""
    app.start(DIRECT)
    stale = app.records.active[ID]

    def advance_in_other_workers() -> None:
        app.worker.advance_by_id(ID, has_minutes=True)  # reads the claim
        app.worker.advance(stale, has_minutes=True)  # has read the record before the claim
        app.tick(changes.CALL_CLAIM - seconds(1))

    app.direct.during_call = advance_in_other_workers
    app.work()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)
