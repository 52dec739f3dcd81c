"""ModelListRoute whose answer has the images in it: who calls, how often, and what is lost with a call."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from imagegen.errors import ImageUnusableError, StorageUnavailableError
from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle import changes
from imagegen.lifecycle.generations import SUBMIT_CLAIM
from imagegen.lifecycle.transitions import MOST_LOST_CALLS
from imagegen.upstream.protocol import (
    Answered,
    Ended,
    ImageBytes,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Lost,
    Throttled,
    Unavailable,
)
from tests.app.fakes import Death, FakeApp, Outcome
from tests.app.generations import ID, NOON, PROMPT, new, seconds, stored

KEY = IdempotencyKey("idempotency-key", "order-4711")
FILTERED = GenerationError(code="contentFilter", message="No.")
CLAIM = changes.LONGEST_CALL + changes.CALL_SLACK


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()


def start(app: FakeApp, **options: Any) -> Generation:
    return app.start(model="gpt", **options)


def work(app: FakeApp) -> None:
    """What the queue's workers do: take every message that is there."""
    while app.queue.messages:
        for generation_id in app.queue.messages.pop(0):
            app.worker.advance_by_id(generation_id, has_minutes=True)


def settle(app: FakeApp) -> None:
    """Timer and workers, turn about, until nothing is left. Bounded."""
    for _ in range(60):
        work(app)
        if not app.records.active:
            return
        app.tick(seconds(60))
    pytest.fail(f"still active: {app.records.active}")


def done(app: FakeApp, generation_id: str = ID) -> Generation:
    found = app.records.read(generation_id)
    assert found is not None
    return found


def given(app: FakeApp, **changes: Any) -> Versioned:
    request = new().request.model_copy(update={"model": "gpt"})
    return app.given(new(request=request, **changes))


# --- the way of one generation


def test_start_queues_the_call(app: FakeApp) -> None:
    started = start(app)
    assert (started.status, started.queued) == (Status.NOT_RUNNING, True)
    assert (app.direct.calls, app.queue.messages) == ([], [[ID]])
    assert app.steps.taken == ["create", "send"]  # recorded before anybody is asked to work on it


def test_claim_is_written_before_the_call(app: FakeApp) -> None:
    start(app)
    app.steps.taken.clear()
    work(app)
    assert app.steps.taken == ["save", "generate", "copy 0", "copy 1", "write_outcome", "drop_active"]
    assert (done(app).status, done(app).images) == (Status.SUCCEEDED, (stored(0), stored(1)))
    assert app.images.copied == [b"0", b"1"]


def test_claim_covers_the_call(app: FakeApp) -> None:
    start(app)
    app.direct.answers = [Unavailable("500")]
    app.steps.fail_at = 3  # in the call
    with pytest.raises(Death):
        work(app)
    claimed = app.records.active[ID].generation
    assert (claimed.status, claimed.calling, claimed.queued, claimed.lost_calls) == (Status.RUNNING, True, False, 0)
    assert claimed.due == NOON + CLAIM
    assert seconds(250 + 30) <= changes.LONGEST_CALL  # the slowest that was seen, and its transfer


def test_record_keeps_the_token_usage(app: FakeApp) -> None:
    app.direct.answers = [Answered((ImageBytes(b"0"),), usage={"total_tokens": 3})]
    start(app)
    work(app)
    assert done(app).usage == {"total_tokens": 3}
    assert not done(app).calling


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
        # It may come yet, and cannot be asked for again: waited for, and then given up.
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
    answer: Outcome,
    unusable: dict[int, ImageUnusableError],
    images: tuple[type, ...],
    status: Status,
    code: str | None,
) -> None:
    app.direct.answers, app.images.unusable = [answer], unusable
    start(app)
    work(app)
    assert (done(app).status, done(app).error and done(app).error.code) == (status, code)  # pyright: ignore[reportOptionalMemberAccess]
    assert tuple(type(image) for image in done(app).images) == images
    assert app.direct.calls == [ID]


# --- two at once


def test_two_workers_with_one_message_make_one_call(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform may deliver a message twice, and the timer may send a second one."""
    start(app)
    stale = app.records.active[ID]
    generate = app.direct.generate

    def meanwhile(generation: Generation) -> Outcome:
        app.worker.advance_by_id(ID, has_minutes=True)  # sees the claim
        app.worker.advance(stale, has_minutes=True)  # read before it, writes after it
        app.tick(CLAIM - seconds(1))
        return generate(generation)

    monkeypatch.setattr(app.direct, "generate", meanwhile)
    work(app)
    assert (app.direct.calls, done(app).status) == ([ID], Status.SUCCEEDED)


def test_late_message_makes_no_call(app: FakeApp) -> None:
    start(app)
    app.queue.messages *= 3
    work(app)
    assert app.direct.calls == [ID]


# --- lost messages


def test_timer_sends_a_lost_message_again(app: FakeApp) -> None:
    start(app)
    app.queue.messages.clear()
    app.tick(SUBMIT_CLAIM - seconds(1))
    assert app.queue.messages == []
    app.tick(seconds(1))
    assert app.queue.messages == [[ID]]
    app.tick(seconds(60))
    assert app.queue.messages == [[ID]]  # not with every tick
    settle(app)
    assert (app.direct.calls, done(app).status) == ([ID], Status.SUCCEEDED)


@pytest.mark.parametrize("failure", [Death, StorageUnavailableError])
@pytest.mark.parametrize("fail_after", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_crash_before_the_call_costs_only_time(step: int, fail_after: bool, failure: type[BaseException]) -> None:
    """Key, record, message, claim: each may be written or not, and the answer may be lost."""
    app = FakeApp()
    app.steps.fail_at, app.steps.fail_after, app.steps.failure = step, fail_after, failure
    try:
        start(app, key=KEY)
        settle(app)
    except (Death, StorageUnavailableError):
        assert app.direct.calls == []
    again = start(app, key=KEY)
    settle(app)
    assert (app.direct.calls, done(app, again.id).status) == ([again.id], Status.SUCCEEDED)


def test_start_succeeds_while_the_queue_is_down(app: FakeApp) -> None:
    app.steps.fail_at, app.steps.failure = 1, StorageUnavailableError
    assert start(app).status is Status.NOT_RUNNING
    settle(app)
    assert app.direct.calls == [ID]


@pytest.mark.parametrize("fail_after", [False, True])
def test_later_tick_sends_after_a_crash_while_sending(app: FakeApp, fail_after: bool) -> None:
    given(app)
    app.steps.fail_at, app.steps.fail_after = 1, fail_after  # save, send
    with pytest.raises(Death):
        app.tick()
    assert app.records.active[ID].generation.due == NOON + changes.MESSAGE_LOST
    settle(app)
    assert app.direct.calls == [ID]


# --- lost calls


@pytest.mark.parametrize("fail_after", [False, True])
def test_timer_takes_over_an_expired_claim(app: FakeApp, caplog: pytest.LogCaptureFixture, fail_after: bool) -> None:
    start(app)
    app.steps.fail_at, app.steps.fail_after = 3, fail_after
    with pytest.raises(Death):
        work(app)
    billed = len(app.direct.calls)
    app.tick(CLAIM - seconds(1))
    assert app.queue.messages == []
    app.tick(seconds(1))
    assert app.queue.messages == [[ID]]
    work(app)
    assert len(app.direct.calls) == billed + 1
    assert (done(app).status, done(app).lost_calls) == (Status.SUCCEEDED, 1)
    assert "generation.call_repeated" in caplog.text
    assert "billed twice" in caplog.text


def test_crash_in_a_call_fails_without_repetition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FakeApp(repeat_lost_calls=False)
    start(app)
    app.steps.fail_at, app.steps.fail_after = 3, True
    with pytest.raises(Death):
        work(app)
    settle(app)
    error = done(app).error
    assert error
    assert (done(app).status, error.code, error.is_refusal) == (Status.FAILED, "outcomeUnknown", False)
    assert "REPEAT_LOST_CALLS" in error.message
    assert (len(app.direct.calls), "call_repeated" in caplog.text) == (1, False)


def test_lost_response_fails_without_repetition() -> None:
    app = FakeApp(repeat_lost_calls=False)
    app.direct.answers = [Lost("status 504")]
    start(app)
    settle(app)
    assert done(app).error
    assert done(app).error.code == "outcomeUnknown"  # pyright: ignore[reportOptionalMemberAccess]
    assert app.direct.calls == [ID]


def test_repeated_call_is_logged_as_maybe_billed_twice(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.direct.answers = [Lost("status 504"), Answered((ImageBytes(b"0"),))]
    start(app)
    settle(app)
    assert (done(app).status, done(app).lost_calls) == (Status.SUCCEEDED, 1)
    logged = [record.getMessage().split()[0] for record in caplog.records if record.levelno == logging.WARNING]
    assert logged == ["generation.call_lost", "generation.call_repeated"]


def test_retry_of_a_harmless_fault_is_not_a_lost_call(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.direct.answers = [Unavailable("status 503"), Throttled("status 429", 5), Answered((ImageBytes(b"0"),))]
    start(app)
    settle(app)
    assert (done(app).status, done(app).lost_calls) == (Status.SUCCEEDED, 0)
    assert "billed" not in caplog.text


def test_third_lost_response_fails(app: FakeApp) -> None:
    app.direct.answers = [Lost("no answer")]
    start(app)
    settle(app)
    assert done(app).error
    assert done(app).error.code == "outcomeUnknown"  # pyright: ignore[reportOptionalMemberAccess]
    assert len(app.direct.calls) == MOST_LOST_CALLS == 3


def test_third_crash_in_a_call_fails(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the call itself may cause: an answer that takes all memory."""
    calls: list[str] = []

    def die(generation: Generation) -> Outcome:
        calls.append(generation.id)
        raise Death

    monkeypatch.setattr(app.direct, "generate", die)
    app.generations.start(new().request.model_copy(update={"model": "gpt"}), metadata={}, timeout=seconds(86_400))
    for _ in range(20):
        try:
            settle(app)
        except Death:
            continue
        break
    assert done(app).error
    assert done(app).error.code == "outcomeUnknown"  # pyright: ignore[reportOptionalMemberAccess]
    assert len(calls) == MOST_LOST_CALLS


# --- quotas


def test_one_429_pauses_all_calls_of_the_model(app: FakeApp) -> None:
    app.direct.answers = [Throttled("status 429", 30), Answered((ImageBytes(b"0"),))]
    for _ in range(5):
        start(app)
    work(app)
    assert app.direct.calls == [ID]  # one found out, for all of them
    assert app.throttling.paused == {"gpt": NOON + seconds(30)}
    app.tick(seconds(29))
    work(app)
    assert app.direct.calls == [ID]
    settle(app)
    assert [found.status for found in app.records.done.values() if found] == [Status.SUCCEEDED] * 5
    assert len(app.direct.calls) == 1 + 5
    assert all(found.lost_calls == 0 for found in app.records.done.values() if found)


def test_pause_of_one_model_does_not_stop_another(app: FakeApp) -> None:
    app.throttling.pause("gpt", NOON + seconds(600))
    assert app.start().status is Status.RUNNING
    assert app.upstream.operations == [ID]


def test_429_of_a_submit_pauses_the_model(app: FakeApp) -> None:
    app.upstream.submitted = Throttled("status 429", 30)
    started = [app.start() for _ in range(3)]
    assert app.upstream.operations == [started[0].id]
    assert app.throttling.paused == {"dalle": NOON + seconds(30)}


def test_generations_resume_spread_after_a_pause(app: FakeApp) -> None:
    app.throttling.pause("gpt", NOON + seconds(20))
    dues: list[float] = []
    for app.jitter in (0.0, 0.25, 0.5, 1.0):
        started = start(app)
        work(app)
        dues.append((app.records.active[started.id].generation.due - NOON).total_seconds())
    assert dues == [20, 25, 30, 40]  # spread over as long again
    assert app.direct.calls == []


def test_deadline_holds_during_a_pause(app: FakeApp) -> None:
    app.throttling.pause("gpt", NOON + seconds(3_600))
    start(app)
    work(app)
    assert app.records.active[ID].generation.due <= NOON + seconds(600)
    app.tick(seconds(599))
    work(app)
    assert not done(app).status.is_terminal
    app.tick(seconds(1))
    work(app)
    assert done(app).error
    assert done(app).error.code == "deadlineExceeded"  # pyright: ignore[reportOptionalMemberAccess]
    assert app.direct.calls == []


def test_no_call_after_the_deadline(app: FakeApp) -> None:
    start(app)
    app.clock.now += seconds(600)
    work(app)
    assert (done(app).status, app.direct.calls) == (Status.FAILED, [])


def test_images_of_a_late_call_are_kept(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are paid for."""
    generate = app.direct.generate

    def slow(generation: Generation) -> Outcome:
        app.clock.now += seconds(250)
        return generate(generation)

    monkeypatch.setattr(app.direct, "generate", slow)
    start(app)
    app.clock.now += seconds(590)
    work(app)
    assert done(app).status is Status.SUCCEEDED


# --- images of an answer that cannot be asked for again


@pytest.mark.parametrize("times", [1, 2, 3])
def test_short_storage_fault_makes_no_second_call(app: FakeApp, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    failures = [StorageUnavailableError("write image")] * times
    copy = app.images.copy

    def sometimes(source: ImageSource, generation_id: str, index: int) -> StoredImage:
        if index == 1 and failures:
            raise failures.pop()
        return copy(source, generation_id, index)

    monkeypatch.setattr(app.images, "copy", sometimes)
    start(app)
    work(app)
    assert (app.direct.calls, done(app).status) == ([ID], Status.SUCCEEDED)
    assert done(app).images == (stored(0), stored(1))
    assert app.clock.now == NOON + seconds(sum((2, 5, 10)[:times]))


def test_long_storage_fault_lets_the_claim_expire(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = app.images.copy

    def away(*_: Any) -> StoredImage:
        raise StorageUnavailableError("write image")

    monkeypatch.setattr(app.images, "copy", away)
    start(app)
    with pytest.raises(StorageUnavailableError):  # the message comes again, and finds the claim
        work(app)
    app.worker.advance_by_id(ID, has_minutes=True)
    assert app.direct.calls == [ID]
    monkeypatch.setattr(app.images, "copy", copy)
    settle(app)
    assert (app.direct.calls, done(app).status, done(app).lost_calls) == ([ID, ID], Status.SUCCEEDED, 1)


def test_claim_is_extended_while_images_are_stored(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten slow ones: who overtook us in between would call, and be billed, again."""
    copy = app.images.copy
    left: list[float] = []

    def slow(source: ImageSource, generation_id: str, index: int) -> StoredImage:
        left.append((app.records.active[ID].generation.due - app.clock.now).total_seconds())
        app.clock.now += seconds(140)
        app.tick()
        return copy(source, generation_id, index)

    monkeypatch.setattr(app.images, "copy", slow)
    app.direct.answers = [Answered(tuple(ImageBytes(b"%d" % number) for number in range(10)))]
    start(app)
    work(app)
    assert min(left) >= changes.LONGEST_TAKE.total_seconds()
    assert (app.direct.calls, len(done(app).images)) == ([ID], 10)


def test_one_image_at_a_time_is_decoded(app: FakeApp) -> None:
    def images() -> Iterator[ImageSource]:
        for number in range(3):
            assert len(app.images.copied) == number
            yield ImageBytes(b"%d" % number)

    app.direct.answers = [Answered(images())]
    start(app)
    work(app)
    assert app.images.copied == [b"0", b"1", b"2"]


# --- cancel, removed models


def test_canceled_generation_is_not_called(app: FakeApp) -> None:
    started = start(app)
    app.generations.cancel(started)
    settle(app)
    assert (app.direct.calls, done(app).status) == ([], Status.CANCELED)


@pytest.mark.parametrize("delete", [False, True])
def test_cancel_during_the_call_leaves_no_image(app: FakeApp, monkeypatch: pytest.MonkeyPatch, delete: bool) -> None:
    generate = app.direct.generate

    def meanwhile(generation: Generation) -> Outcome:
        (app.generations.delete if delete else app.generations.cancel)(generation)
        return generate(generation)

    monkeypatch.setattr(app.direct, "generate", meanwhile)
    start(app)
    work(app)
    settle(app)
    found = app.records.read(ID)
    assert found is None if delete else (found and found.status is Status.CANCELED)
    assert (app.images.blobs, app.direct.calls, app.records.active) == (set(), [ID], {})


def test_no_call_after_cancel_and_crash(app: FakeApp) -> None:
    start(app)
    app.steps.fail_at = 3
    with pytest.raises(Death):
        work(app)
    app.generations.cancel(app.records.active[ID].generation)
    settle(app)
    assert (app.direct.calls, done(app).status) == ([], Status.CANCELED)


@pytest.mark.parametrize(
    "changes",
    [
        {"queued": True},
        {"calling": True, "status": Status.RUNNING},
        {"status": Status.RUNNING, "operation_location": "https://images.example.com/1"},
    ],
)
def test_removed_model_ends_its_generations(app: FakeApp, changes: dict[str, Any]) -> None:
    request = new().request.model_copy(update={"model": "gone"})
    app.given(new(request=request, **changes))
    app.tick()
    error = done(app).error
    assert error
    assert (error.code, "'gone'" in error.message, error.is_refusal) == ("modelRemoved", True, False)
    assert app.direct.calls == app.upstream.operations == []


def test_log_has_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app.direct.answers = [
        Lost("no answer"),
        Throttled("status 429", 1),
        Answered((ImageUrl("https://x?sig=s3cret"),)),
    ]
    started = start(app, key=KEY)
    settle(app)
    assert done(app).status is Status.SUCCEEDED
    for secret in (PROMPT, started.token, KEY.value, "s3cret"):
        assert secret not in caplog.text
