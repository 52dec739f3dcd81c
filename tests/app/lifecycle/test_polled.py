"""The state machine on plain objects: what happens in which order, and what a crash between any two steps leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from imagegen.errors import ImageUnusableError, RequestError, StorageUnavailableError, TooManyActiveError
from imagegen.generation import (
    FailedImage,
    Generation,
    GenerationError,
    GenerationRequest,
    Status,
    StoredImage,
    Versioned,
)
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.generations import SUBMIT_CLAIM
from imagegen.lifecycle.worker import Worker
from imagegen.upstream.protocol import Ended, ImageRefused, ImageUrl, Produced, Unavailable, Upstream, Working
from imagegen.web.http import as_http_error
from tests.app.fakes import TWO, Death, FakeApp
from tests.app.generations import ID, NOON, OPERATION, PROMPT, new, running, seconds, stored

KEY = IdempotencyKey("idempotency-key", "order-4711")


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()


# --- the way of one generation


def test_steps_of_a_generation_in_order(app: FakeApp) -> None:
    started = app.start()
    assert (started.status, started.operation_location) == (Status.RUNNING, OPERATION)
    assert app.steps.taken == ["create", f"submit {ID}", "save"]  # recorded before it can be billed
    assert (started.deadline - started.created, started.metadata) == (seconds(600), {"order": "1"})

    app.settle()
    assert app.steps.taken[3:] == ["poll", "save", "copy 0", "copy 1", "write_outcome", "drop_active"]
    done = app.records.read(ID)
    assert done is not None
    assert (done.status, done.images, done.error) == (Status.SUCCEEDED, (stored(0), stored(1)), None)


def test_timer_submits_when_the_start_did_not(app: FakeApp) -> None:
    app.steps.fail_at = 1
    with pytest.raises(Death):
        app.start()
    app.tick(SUBMIT_CLAIM - seconds(1))
    assert app.steps.taken == ["create", f"submit {ID}"]
    app.tick(seconds(1))
    assert app.steps.taken[2:] == [f"submit {ID}", "save"]


def test_tokens_cannot_be_guessed(app: FakeApp) -> None:
    tokens = {app.start().token for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) >= 22 for token in tokens)  # 128 bits


def _steps_of_a_whole_life() -> list[str]:
    app = FakeApp()
    app.start(key=KEY)
    app.settle()
    return app.steps.taken


LIFE = _steps_of_a_whole_life()


@pytest.mark.parametrize("failure", [Death, StorageUnavailableError])
@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", range(len(LIFE)), ids=[f"{at} {step.split()[0]}" for at, step in enumerate(LIFE)])
def test_crash_at_any_step_loses_and_doubles_nothing(step: int, fail_after: bool, failure: type[BaseException]) -> None:
    app = FakeApp()
    app.steps.fail_at, app.steps.fail_after, app.steps.failure = step, fail_after, failure
    try:
        app.start(key=KEY)
        app.settle()
    except (Death, StorageUnavailableError):
        # Never billed without a record.
        assert all(app.records.read(billed) for billed in app.upstream.operations)

    # Its caller, who may have had no answer, asks with the same key until he has one; the timer ticks on.
    for _ in range(2):
        app.start(key=KEY)
        app.settle()

    [billed] = app.upstream.operations
    done = app.records.read(billed)
    assert done is not None
    assert (done.status, done.images) == (Status.SUCCEEDED, (stored(0), stored(1)))
    assert app.images.blobs == {f"{billed}/0", f"{billed}/1"}
    assert (list(app.records.done), app.records.active) == ([billed], {})


def test_start_succeeds_when_the_write_after_submit_fails(app: FakeApp) -> None:
    app.steps.fail_at, app.steps.failure = 2, StorageUnavailableError
    assert app.start().status is Status.NOT_RUNNING
    app.settle()
    assert app.upstream.operations == [ID]


def test_refused_request_writes_nothing(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: GenerationRequest) -> GenerationRequest:
        raise RequestError("invalidPayload", "no")

    monkeypatch.setattr(app.upstream, "complete", refuse)
    with pytest.raises(RequestError):
        app.start(key=KEY)
    assert (app.steps.taken, app.records.keys) == ([], {})


def test_unknown_model_lists_the_configured_ones(app: FakeApp) -> None:
    with pytest.raises(RequestError) as caught:
        app.start(key=KEY, model="other")
    [problem] = caught.value.problems
    assert (as_http_error(caught.value).status, problem.field) == (400, "model")
    assert problem.message.endswith("use one of 'dalle', 'gpt'")
    assert "other" not in problem.message
    assert (app.steps.taken, app.records.keys) == ([], {})


# --- outcomes

ERROR = GenerationError(code="contentFilter", message="No.")
LOST = ImageUnusableError("imageTruncated", "cut", again=True)
NO_IMAGE = ImageUnusableError("imageTooLarge", "big", again=False)


@pytest.mark.parametrize(
    ("submitted", "status", "code"),
    [
        (Ended(Status.FAILED, ERROR), Status.FAILED, "contentFilter"),
        (Ended(Status.CANCELED), Status.CANCELED, None),
    ],
)
def test_refused_submit_ends_the_generation(app: FakeApp, submitted: Ended, status: Status, code: str | None) -> None:
    app.upstream.submitted = submitted
    started = app.start()
    assert (started.status, started.error.code if started.error else None) == (status, code)
    assert app.steps.taken == ["create", f"submit {ID}", "write_outcome", "drop_active"]


@pytest.mark.parametrize(
    ("polled", "unusable", "images", "status", "code"),
    [
        (Ended(Status.FAILED, ERROR), {}, (), Status.FAILED, "contentFilter"),
        (Ended(Status.CANCELED), {}, (), Status.CANCELED, None),
        (TWO, {}, (StoredImage, StoredImage), Status.SUCCEEDED, None),
        # One of two is a success, whichever it is and whyever the other is not.
        (TWO, {0: NO_IMAGE}, (FailedImage, StoredImage), Status.SUCCEEDED, None),
        (TWO, {1: LOST}, (StoredImage, FailedImage), Status.SUCCEEDED, None),
        (Produced((ImageRefused(ERROR), ImageUrl("u"))), {}, (FailedImage, StoredImage), Status.SUCCEEDED, None),
        (TWO, {0: LOST, 1: NO_IMAGE}, (FailedImage, FailedImage), Status.FAILED, "imageTruncated"),
        (
            Produced((ImageUrl("u"), ImageRefused(ERROR))),
            {0: NO_IMAGE},
            (FailedImage, FailedImage),
            Status.FAILED,
            "contentFilter",
        ),
        (Produced((ImageRefused(ERROR),)), {}, (FailedImage,), Status.FAILED, "contentFilter"),
        # Past its expiry an image will not come back: no second try.
        (Produced((ImageUrl("u"),), NOON), {0: LOST}, (FailedImage,), Status.FAILED, "imageTruncated"),
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
    app.upstream.polled, app.images.unusable = polled, unusable
    app.start()
    app.settle()
    done = app.records.read(ID)
    assert done is not None
    assert (done.status, done.error.code if done.error else None) == (status, code)
    assert tuple(type(image) for image in done.images) == images


def test_stored_image_is_not_copied_again(app: FakeApp) -> None:
    app.images.unusable = {1: LOST}
    app.start()
    app.tick(seconds(1))
    assert app.steps.taken[-4:] == ["save", "copy 0", "copy 1", "save"]
    kept = app.records.active[ID].generation
    assert (kept.images, kept.copy_attempts) == ((stored(0), None), 1)

    app.images.unusable = {}
    app.steps.taken.clear()
    app.settle()
    assert app.steps.taken == ["poll", "save", "copy 1", "write_outcome", "drop_active"]


@pytest.mark.parametrize(
    ("record", "polled", "status", "code"),
    [
        (new(), TWO, Status.FAILED, "deadlineExceeded"),  # never accepted: not even tried
        (running(), Working(None), Status.FAILED, "deadlineExceeded"),
        (running(), Unavailable("500"), Status.FAILED, "deadlineExceeded"),
        (running(), TWO, Status.SUCCEEDED, None),  # they were ready for long, and are paid for
        (running(), Ended(Status.FAILED, ERROR), Status.FAILED, "contentFilter"),  # the true reason, not the clock
    ],
)
def test_deadline_ends_unfinished_work_only(
    app: FakeApp, record: Generation, polled: Working | Produced | Ended | Unavailable, status: Status, code: str | None
) -> None:
    app.given(record)
    app.upstream.polled = polled
    app.tick(record.deadline - NOON)
    done = app.records.read(ID)
    assert done is not None
    assert (done.status, done.error.code if done.error else None) == (status, code)
    assert app.upstream.operations == []


def test_changed_api_waits_for_the_old_one(app: FakeApp) -> None:
    """The settings of the deployment change to an API that answers directly, while an operation runs."""
    started = app.start()
    upstreams = dict(app.ports.upstreams)
    _reconfigure(app, {"dalle": app.direct})
    app.steps.taken.clear()
    for _ in range(9):
        app.tick(seconds(60))
    assert app.steps.taken == ["save"]  # one write, no request, no message
    _reconfigure(app, upstreams)
    app.clock.now = started.deadline
    app.settle()
    assert app.records.done[ID] == app.records.read(ID)
    assert app.records.read(ID).status is Status.SUCCEEDED  # pyright: ignore[reportOptionalMemberAccess]


def test_changed_api_fails_at_the_deadline(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.start()
    _reconfigure(app, {"dalle": app.direct})
    app.settle()
    done = app.records.read(ID)
    assert done is not None
    assert done.error is not None
    assert (done.status, done.error.code) == (Status.FAILED, "modelChanged")
    assert (app.direct.calls, app.queue.messages) == ([], [])
    assert caplog.text.count("generation.stranded") == 1


def _reconfigure(app: FakeApp, upstreams: Mapping[str, Upstream]) -> None:
    app.ports = replace(app.ports, upstreams=upstreams)
    app.worker = Worker(app.ports)


# --- what is worth a write


@pytest.mark.parametrize(
    ("record", "polled", "due_in", "writes"),
    [
        (running(), Working(None), 1, 0),  # the worker that polls keeps it in mind
        (running(), Working(4.9), 4.9, 0),
        (running(), Working(5), 5, 1),  # others must know: somebody else may list it before
        (running(), Working(999), 60, 1),
        (running(), Unavailable("429"), 1, 1),  # the count of faults is state
        (running(faults=3), Working(None), 1, 1),  # so is its end
    ],
)
def test_near_due_alone_is_not_written(
    app: FakeApp, record: Generation, polled: Working | Unavailable, due_in: float, writes: int
) -> None:
    current = app.given(record)
    app.upstream.polled = polled
    after = app.worker.advance(current)
    assert after is not None
    assert after.generation.due == NOON + seconds(due_in)
    assert app.steps.taken == ["poll"] + ["save"] * writes
    assert after.etag == app.records.active[ID].etag  # so that the next move can be made without reading it


# --- two at once


def test_loser_of_the_claim_does_not_copy(app: FakeApp) -> None:
    current = app.given(running())
    app.records.save(current.generation, current.etag)  # somebody else's move
    app.steps.taken.clear()
    after = app.worker.advance(current)
    assert after is None
    assert app.steps.taken == ["poll", "save"]


def test_overtaken_submit_changes_nothing(app: FakeApp) -> None:
    current = app.given(new())
    winner = app.records.save(running(), current.etag)
    assert app.worker.advance(current) is None
    assert app.records.active[ID] == Versioned(running(), winner)


@pytest.mark.parametrize(
    ("first", "images_stay"),
    [
        (running().changed(status=Status.SUCCEEDED, images=(stored(0), stored(1))), True),  # the same images
        (running().changed(status=Status.FAILED, error=ERROR), False),
        (running().changed(status=Status.CANCELED), False),
        (None, False),  # deleted
    ],
)
def test_losing_worker_removes_its_images(app: FakeApp, first: Generation | None, images_stay: bool) -> None:
    current = app.given(running())
    app.records.done[ID] = first
    assert app.worker.advance(current) is None or first is None
    assert app.images.blobs == ({f"{ID}/0", f"{ID}/1"} if images_stay else set())
    assert app.records.done[ID] == first  # the first outcome stays
    assert app.records.active == {}


# --- idempotency, limits


def test_same_key_is_the_same_generation(app: FakeApp) -> None:
    first = app.start(key=KEY)
    again = app.start(key=KEY)
    assert (again.id, again.token) == (first.id, first.token)
    assert app.upstream.operations == [ID]
    app.settle()
    assert app.start(key=KEY).status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("header", "status"), [("idempotency-key", 422), ("repeatability-request-id", 422), ("operation-id", 400)]
)
def test_same_key_with_another_request_is_refused(app: FakeApp, header: str, status: int) -> None:
    app.start(key=KEY)
    with pytest.raises(RequestError) as caught:
        app.start(key=IdempotencyKey(header, KEY.value), prompt="another")
    assert (as_http_error(caught.value).status, caught.value.code) == (status, "idempotencyKeyReused")
    assert app.upstream.operations == [ID]


def test_limit_refuses_new_starts_not_repetitions() -> None:
    app = FakeApp(most_active=1)
    app.start(key=KEY)
    with pytest.raises(RequestError) as caught:
        app.start()
    assert isinstance(caught.value, TooManyActiveError)
    assert app.start(key=KEY).id == ID
    app.settle()
    app.start()


# --- cancel, delete


@pytest.mark.parametrize(
    ("record", "stays_active"),
    [
        (new(), False),
        (running(), False),
        (running(copy_attempts=1), True),  # whoever copies it must find out, and clean up
    ],
)
def test_cancel_ends_at_once(app: FakeApp, record: Generation, stays_active: bool) -> None:
    app.given(record)
    canceled = app.generations.cancel(record)
    assert canceled is not None
    assert canceled.status is Status.CANCELED
    assert (ID in app.records.active) is stays_active
    app.settle()
    assert app.records.done[ID] == canceled
    assert app.images.blobs == set()


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_cancel_after_the_end_changes_nothing(app: FakeApp, status: Status) -> None:
    ended = running().changed(status=status)
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
    except Death:
        if found := app.records.read(ID):  # else its caller is told that it is gone, which is true
            app.generations.delete(found)
    app.settle()
    assert (app.records.read(ID), app.records.active) == (None, {})
    assert (app.images.blobs, app.records.keys) == (set(), {})
    assert app.start(key=KEY).id != ID  # the key is free


def test_deleted_generation_does_not_come_back(app: FakeApp) -> None:
    current = app.given(running(copy_attempts=1))
    app.generations.delete(current.generation)
    app.settle()  # its worker comes late
    assert (app.records.read(ID), app.images.blobs) == (None, set())


# --- Prefer: wait


def test_wait_returns_at_the_end(app: FakeApp) -> None:
    started = app.start()
    finished = app.generations.wait(started, NOON + seconds(50))
    assert finished.status is Status.SUCCEEDED
    assert app.clock.now == started.due  # and no moment later


@pytest.mark.parametrize("polled", [Working(None), Working(30), Unavailable("500")])
def test_wait_ends_on_time_without_hammering(app: FakeApp, polled: Working | Unavailable) -> None:
    app.upstream.polled = polled
    assert app.generations.wait(app.start(), NOON + seconds(20)).status is Status.RUNNING
    assert app.clock.now == NOON + seconds(20)
    assert app.steps.taken.count("poll") <= 20


def test_wait_leaves_the_work_to_another_worker(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    started = app.start()
    app.clock.now = started.due
    stale = app.records.active[ID]
    claimed = running(due=NOON + seconds(70), copy_attempts=1)
    app.records.save(claimed, stale.etag)
    monkeypatch.setattr(app.records, "read_active", _once(stale, app.records.read_active))
    app.steps.taken.clear()
    assert app.generations.wait(started, NOON + seconds(20)).status is Status.RUNNING
    assert app.steps.taken == ["poll", "save"]  # one move, which lost; then only looks


def _once(first: Versioned, then: Callable[[str], Versioned | None]) -> Callable[[str], Versioned | None]:
    waiting = [first]
    return lambda generation_id: waiting.pop() if waiting else then(generation_id)


# --- the log


def test_log_has_the_events_and_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app.images.unusable = {1: LOST}
    app.upstream.polled = Unavailable("status 503")
    started = app.start(key=KEY)
    app.tick(seconds(5))
    app.upstream.polled = TWO
    app.settle()
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "generation.started",
        "upstream.unavailable",
        *["image.unusable"] * 5,
        "generation.succeeded",
    ]
    for secret in (PROMPT, started.token, KEY.value, "s3cret", "example.com"):
        assert secret not in caplog.text
