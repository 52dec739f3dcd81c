"""A generation of a polled model: submit, poll, copy, deadline."""

from __future__ import annotations

import pytest

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage
from imagegen.lifecycle.generations import SUBMIT_CLAIM
from imagegen.upstream.protocol import Ended, ImageRefused, ImageUrl, Produced, Unavailable, Working
from tests.app.fakes import TWO_URLS, Crash, PollOutcome
from tests.app.generations import ID, NOON, OPERATION, POLLED, error_code, new, running, seconds, stored, throttle
from tests.app.lifecycle.fake_app import FakeApp

ERROR = GenerationError(code="contentFilter", message="No.")
TRUNCATED = ImageUnusableError("imageTruncated", "cut", again=True)
TOO_LARGE = ImageUnusableError("imageTooLarge", "big", again=False)


# --- Submit


def test_steps_of_a_generation_in_order(app: FakeApp) -> None:
    started = app.start()
    assert (started.status, started.operation_location) == (Status.RUNNING, OPERATION)
    assert app.steps.taken == ["create", f"submit {ID}", "save"]  # the record comes before anything can be billed
    assert (started.deadline - started.created, started.metadata) == (seconds(600), {"order": "1"})

    app.settle()
    assert app.steps.taken[3:] == ["poll", "save", "copy 0", "copy 1", "write_outcome", "drop_active"]
    assert app.polled.poll_times == [app.clock.now]
    done = app.read()
    assert (done.status, done.images, done.error) == (Status.SUCCEEDED, (stored(0), stored(1)), None)


def test_timer_submits_when_the_start_did_not(app: FakeApp) -> None:
    app.steps.fail_at = 1
    with pytest.raises(Crash):
        app.start()
    app.tick(SUBMIT_CLAIM - seconds(1))
    assert app.steps.taken == ["create", f"submit {ID}"]
    app.tick(seconds(1))
    assert app.steps.taken[2:] == [f"submit {ID}", "save"]


@pytest.mark.parametrize(
    ("submitted", "status", "code"),
    [
        (Ended(Status.FAILED, ERROR), Status.FAILED, "contentFilter"),
        (Ended(Status.CANCELED), Status.CANCELED, None),
    ],
)
def test_refused_submit_ends_the_generation(app: FakeApp, submitted: Ended, status: Status, code: str | None) -> None:
    app.polled.submit_outcome = submitted
    started = app.start()
    assert (started.status, error_code(started)) == (status, code)
    assert app.steps.taken == ["create", f"submit {ID}", "write_outcome", "drop_active"]


# --- Poll


@pytest.mark.parametrize(
    ("record", "polled", "due_in", "writes"),
    [
        (running(), Working(None), 1, 0),  # the worker that polls keeps `due` in memory
        (running(), Working(4.9), 4.9, 0),
        (running(), Working(5), 5, 1),  # another worker may list the record before `due`
        (running(), Working(999), 60, 1),
        (running(), Unavailable("429"), 1, 1),  # the number of faults changed
        (running(faults=3), Working(None), 1, 1),
    ],
)
def test_near_due_alone_is_not_written(
    app: FakeApp, record: Generation, polled: Working | Unavailable, due_in: float, writes: int
) -> None:
    current = app.write_record(record)
    app.polled.poll_outcome = polled
    after = app.worker.advance(current)
    assert after is not None
    assert after.generation.due == NOON + seconds(due_in)
    assert app.steps.taken == ["poll"] + ["save"] * writes
    assert after.etag == app.records.active[ID].etag  # the next step needs no read


# --- Copy


@pytest.mark.parametrize(
    ("polled", "unusable", "images", "status", "code"),
    [
        (Ended(Status.FAILED, ERROR), {}, (), Status.FAILED, "contentFilter"),
        (Ended(Status.CANCELED), {}, (), Status.CANCELED, None),
        (TWO_URLS, {}, (StoredImage, StoredImage), Status.SUCCEEDED, None),
        # One stored image makes a success, whatever the reason for the missing one.
        (TWO_URLS, {0: TOO_LARGE}, (FailedImage, StoredImage), Status.SUCCEEDED, None),
        (TWO_URLS, {1: TRUNCATED}, (StoredImage, FailedImage), Status.SUCCEEDED, None),
        (Produced((ImageRefused(ERROR), ImageUrl("u"))), {}, (FailedImage, StoredImage), Status.SUCCEEDED, None),
        (TWO_URLS, {0: TRUNCATED, 1: TOO_LARGE}, (FailedImage, FailedImage), Status.FAILED, "imageTruncated"),
        (
            Produced((ImageUrl("u"), ImageRefused(ERROR))),
            {0: TOO_LARGE},
            (FailedImage, FailedImage),
            Status.FAILED,
            "contentFilter",
        ),
        (Produced((ImageRefused(ERROR),)), {}, (FailedImage,), Status.FAILED, "contentFilter"),
        # The service has deleted the image: a second try cannot succeed.
        (Produced((ImageUrl("u"),), NOON), {0: TRUNCATED}, (FailedImage,), Status.FAILED, "imageTruncated"),
    ],
)
def test_outcome_follows_from_all_images(
    app: FakeApp,
    polled: Produced | Ended,
    unusable: dict[int, ImageUnusableError],
    images: tuple[type, ...],
    status: Status,
    code: str | None,
) -> None:
    app.polled.poll_outcome, app.images.unusable = polled, unusable
    app.start()
    app.settle()
    assert (app.read().status, error_code(app.read())) == (status, code)
    assert tuple(type(image) for image in app.read().images) == images


def test_stored_image_is_not_copied_again(app: FakeApp) -> None:
    app.images.unusable = {1: TRUNCATED}
    app.start()
    app.tick(seconds(1))
    assert app.steps.taken[-4:] == ["save", "copy 0", "copy 1", "save"]
    kept = app.records.active[ID].generation
    assert (kept.images, kept.copy_attempts) == ((stored(0), None), 1)

    app.images.unusable = {}
    app.steps.taken.clear()
    app.settle()
    assert app.steps.taken == ["poll", "save", "copy 1", "write_outcome", "drop_active"]


def test_expired_image_is_not_copied_again(app: FakeApp) -> None:
    app.polled.poll_outcome = Produced(TWO_URLS.images, expires=NOON + seconds(1))
    app.images.unusable = {1: TRUNCATED}
    app.write_record(running())
    app.tick()
    assert app.steps.taken.count("copy 1") == 1
    assert app.records.active == {}


def test_image_that_a_later_poll_does_not_list_fails(app: FakeApp) -> None:
    app.images.unusable = {1: TRUNCATED}
    app.start()
    app.tick(seconds(1))
    app.polled.poll_outcome = Produced(TWO_URLS.images[:1])
    app.settle()
    first, second = app.read().images
    assert first == stored(0)
    assert isinstance(second, FailedImage)
    assert second.error.code == "noImage"


def test_storage_that_takes_no_image_counts_no_try(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images container refuses writes for hours, while the records work."""
    copy = app.images.copy

    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailableError("write image")

    current = app.write_record(running(deadline=NOON + seconds(86_400)))
    monkeypatch.setattr(app.images, "copy", refuse)
    for _ in range(300):
        app.tick(seconds(60))
    assert app.records.active[current.generation.id].generation.copy_attempts == 0
    monkeypatch.setattr(app.images, "copy", copy)
    app.tick(seconds(60))
    assert (app.read().status, len(app.images.blobs)) == (Status.SUCCEEDED, 2)


# --- Deadline


def test_finished_images_survive_failed_polls_after_the_deadline(app: FakeApp) -> None:
    app.write_record(running())
    app.polled.poll_outcome = Unavailable("status 503")
    app.tick(running().deadline - NOON)
    app.tick(seconds(60))
    assert app.records.done == {}
    app.polled.poll_outcome = TWO_URLS
    app.tick(seconds(60))
    assert app.read().status is Status.SUCCEEDED


def test_defect_in_a_poll_ends_at_the_deadline(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UnicodeEncodeError("ascii", "x", 0, 1, "no")

    current = app.write_record(running())
    monkeypatch.setattr(app.polled, "poll", fail)
    with pytest.raises(UnicodeEncodeError):
        app.worker.advance(current)
    app.tick(running().deadline - NOON)
    assert (app.read().status, error_code(app.read())) == (Status.FAILED, "internalError")


def test_retry_is_not_later_than_the_deadline(app: FakeApp) -> None:
    app.write_record(running(deadline=NOON + seconds(40), faults=9))
    app.polled.poll_outcome = Unavailable("status 500")
    app.tick()
    assert app.read().due == NOON + seconds(40)


def test_start_during_a_short_throttle_is_due_when_it_ends(app: FakeApp) -> None:
    """Its record must say so: the timer would find the `due` of the start, 45 s later."""
    app.throttling.pause(POLLED, throttle(2))
    app.start()
    assert app.records.active[ID].generation.due == NOON + seconds(2)
    app.clock.now += seconds(2)
    app.tick()
    assert app.polled.operations == [ID]


@pytest.mark.parametrize(("timeout", "due"), [(30, 15), (90, 45), (3_600, 45)])
def test_timer_submits_before_the_deadline(app: FakeApp, timeout: int, due: int) -> None:
    app.steps.fail_at = 1
    with pytest.raises(Crash):
        app.generations.start(new().request, metadata={}, timeout=seconds(timeout))
    assert app.records.active[ID].generation.due == NOON + seconds(due)


@pytest.mark.parametrize(
    ("record", "polled", "status", "code"),
    [
        (new(), TWO_URLS, Status.FAILED, "deadlineExceeded"),  # never accepted, and not submitted now
        (running(), Working(None), Status.FAILED, "deadlineExceeded"),
        (running(faults=2), Unavailable("500"), Status.FAILED, "deadlineExceeded"),
        (running(), TWO_URLS, Status.SUCCEEDED, None),  # the images exist and are billed
        (running(), Ended(Status.FAILED, ERROR), Status.FAILED, "contentFilter"),  # more useful than the deadline
    ],
)
def test_deadline_ends_unfinished_work_only(
    app: FakeApp, record: Generation, polled: PollOutcome, status: Status, code: str | None
) -> None:
    app.write_record(record)
    app.polled.poll_outcome = polled
    app.tick(record.deadline - NOON)
    assert (app.read().status, error_code(app.read())) == (status, code)
    assert app.polled.operations == []
