"""A generation of a model that answers with the images: queue message, claim, call, and the images of the response."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.generation import FailedImage, GenerationError, Status, StoredImage
from imagegen.lifecycle import changes
from imagegen.lifecycle.generations import SUBMIT_CLAIM
from imagegen.upstream.protocol import Answered, Ended, ImageBytes, ImageRefused, ImageSource, ImageUrl, Unavailable
from tests.app.fakes import CallOutcome, Crash
from tests.app.generations import DIRECT, ID, NOON, error_code, failed, new, seconds, stored
from tests.app.lifecycle.fake_app import FakeApp

INTERNAL = "The app failed to store this image. Its log has the reason under the id of the generation."
FILTERED = GenerationError(code="contentFilter", message="No.")


# --- Queue message


def test_start_queues_the_call(app: FakeApp) -> None:
    started = app.start(DIRECT)
    assert (started.status, started.queued) == (Status.NOT_RUNNING, True)
    assert (app.direct.calls, app.queue.messages) == ([], [[ID]])
    assert app.steps.taken == ["create", "send"]  # the record exists before a worker receives the message


def test_repeated_message_makes_one_call(app: FakeApp) -> None:
    app.start(DIRECT)
    app.queue.messages *= 3
    app.work()
    assert app.direct.calls == [ID]


def test_timer_sends_a_lost_message_again(app: FakeApp) -> None:
    app.start(DIRECT)
    app.queue.messages.clear()
    app.tick(SUBMIT_CLAIM - seconds(1))
    assert app.queue.messages == []
    app.tick(seconds(1))
    assert app.queue.messages == [[ID]]
    app.tick(seconds(60))
    assert app.queue.messages == [[ID]]  # not at each tick
    app.settle()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)


def test_worker_without_minutes_queues_each_call(app: FakeApp) -> None:
    ids = [app.start(DIRECT, prompt=f"{number}").id for number in range(3)]
    app.queue.messages.clear()
    for generation_id in ids:
        app.worker.advance_by_id(generation_id, has_minutes=False)
    assert app.direct.calls == []
    assert app.queue.messages == [[generation_id] for generation_id in ids]


@pytest.mark.parametrize(
    ("queued", "due_in", "calls"),
    [
        (True, 60, [ID]),  # the message is the reason to start
        (False, 0, [ID]),
        (False, -1, [ID]),
        (False, 0.001, []),  # another worker has claimed it, or it backs off
    ],
)
def test_message_counts_for_a_queued_or_due_record(app: FakeApp, queued: bool, due_in: float, calls: list[str]) -> None:
    app.write_record(new(model=DIRECT, queued=queued, due=NOON + seconds(due_in)))
    app.worker.advance_by_id(ID, has_minutes=True)
    assert app.direct.calls == calls


# --- Call


def test_claim_is_written_before_the_call(app: FakeApp) -> None:
    app.start(DIRECT)
    app.steps.taken.clear()
    app.work()
    assert app.steps.taken == ["save", "generate", "copy 0", "copy 1", "write_outcome", "drop_active"]
    assert (app.read().status, app.read().images) == (Status.SUCCEEDED, (stored(0), stored(1)))
    assert app.images.decoded == [b"0", b"1"]


def test_claim_is_kept_after_a_crash_in_the_call(app: FakeApp) -> None:
    app.start(DIRECT)
    app.direct.outcomes = [Unavailable("500")]
    app.steps.fail_at = 3  # the call
    with pytest.raises(Crash):
        app.work()
    claimed = app.records.active[ID].generation
    assert (claimed.status, claimed.calling, claimed.queued, claimed.lost_calls) == (Status.RUNNING, True, False, 0)
    assert (claimed.claim is None, claimed.due) == (False, NOON + changes.CALL_CLAIM)


def test_record_keeps_the_token_usage(app: FakeApp) -> None:
    app.direct.outcomes = [Answered((ImageBytes(b"0"),), usage={"total_tokens": 3})]
    app.start(DIRECT)
    app.work()
    assert app.read().usage == {"total_tokens": 3}
    assert not app.read().calling


def test_no_call_after_the_deadline(app: FakeApp) -> None:
    app.start(DIRECT)
    app.clock.now += seconds(600)
    app.work()
    assert (app.read().status, app.direct.calls) == (Status.FAILED, [])


def test_images_of_a_call_past_the_deadline_are_kept(app: FakeApp) -> None:
    """The call is billed."""
    app.direct.during_call = lambda: app.pass_time(250)
    app.start(DIRECT)
    app.clock.now += seconds(590)
    app.work()
    assert app.read().status is Status.SUCCEEDED


# --- Images of the response. The response comes only once.


@pytest.mark.parametrize(
    ("answer", "unusable", "images", "status", "code"),
    [
        (Ended(Status.FAILED, FILTERED), {}, (), Status.FAILED, "contentFilter"),
        (Answered((ImageRefused(FILTERED),)), {}, (FailedImage,), Status.FAILED, "contentFilter"),
        (Answered((ImageRefused(FILTERED), ImageBytes(b"1"))), {}, (FailedImage, StoredImage), Status.SUCCEEDED, None),
        (Answered((ImageUrl("u"), ImageBytes(b"1"))), {}, (StoredImage, StoredImage), Status.SUCCEEDED, None),
        (
            Answered((ImageUrl("u"), ImageBytes(b"1"))),
            {0: ImageUnusableError("imageTooLarge", "big", again=False)},
            (FailedImage, StoredImage),
            Status.SUCCEEDED,
            None,
        ),
        # The image may appear later, so the worker retries for some seconds. Then it fails.
        (
            Answered((ImageUrl("u"),)),
            {0: ImageUnusableError("imageUnavailable", "404", again=True)},
            (FailedImage,),
            Status.FAILED,
            "imageUnavailable",
        ),
    ],
)
def test_outcome_follows_from_all_images(
    app: FakeApp,
    answer: CallOutcome,
    unusable: dict[int, ImageUnusableError],
    images: tuple[type, ...],
    status: Status,
    code: str | None,
) -> None:
    app.direct.outcomes, app.images.unusable = [answer], unusable
    app.start(DIRECT)
    app.work()
    assert (app.read().status, error_code(app.read())) == (status, code)
    assert tuple(type(image) for image in app.read().images) == images
    assert app.direct.calls == [ID]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_short_storage_fault_makes_no_second_call(app: FakeApp, times: int) -> None:
    failures = [StorageUnavailableError("write image")] * times

    def fail(index: int) -> None:
        if index == 1 and failures:
            raise failures.pop()

    app.images.before_copy = fail
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)
    assert app.read().images == (stored(0), stored(1))
    assert app.images.blobs == {f"{ID}/0", f"{ID}/1"}
    assert app.clock.now == NOON + seconds(sum((2, 5, 10)[:times]))


def test_image_that_storage_refuses_for_long_fails(app: FakeApp) -> None:
    """Another call would be billed, and its images could not be stored either."""

    def fail(index: int) -> None:
        if index == 1:
            raise StorageUnavailableError("write image")

    app.images.before_copy = fail
    app.start(DIRECT)
    app.work()
    app.settle()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)
    assert app.read().images == (stored(0), failed("internalError", INTERNAL))
    assert app.clock.now - NOON < seconds(12 * 60 + 11)


@pytest.mark.parametrize(("elapsed", "tries"), [(719, 2), (720, 1), (721, 1)])
def test_images_are_retried_for_twelve_minutes(app: FakeApp, elapsed: float, tries: int) -> None:
    """After that, the platform might stop the worker during a retry."""
    failures = [StorageUnavailableError("write image")]

    def copy(index: int) -> None:
        if index == 0:
            app.pass_time(elapsed)
        elif failures:
            raise failures.pop()

    app.images.before_copy = copy
    app.start(DIRECT)
    app.work()
    assert app.direct.calls == [ID]
    assert app.steps.taken.count("copy 1") == tries


def test_one_image_at_a_time_is_decoded(app: FakeApp) -> None:
    def images() -> Iterator[ImageSource]:
        for number in range(3):
            assert len(app.images.decoded) == number
            yield ImageBytes(b"%d" % number)

    app.direct.outcomes = [Answered(images())]
    app.start(DIRECT)
    app.work()
    assert app.images.decoded == [b"0", b"1", b"2"]
