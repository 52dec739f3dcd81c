"""Calls whose response was lost, by a network fault or by a crash of the worker. The service may have billed them."""

from __future__ import annotations

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Status
from imagegen.lifecycle import changes
from imagegen.lifecycle.transitions import MOST_LOST_CALLS
from imagegen.upstream.protocol import Answered, ImageBytes, Lost, Throttled, Unavailable
from tests.app.fakes import Crash
from tests.app.generations import DIRECT, ID, error_code, new, seconds
from tests.app.lifecycle.fake_app import FakeApp

CLAIM = changes.CALL_CLAIM
CALL = 3
"""Index of the call in the steps: create, send, save, generate."""


# --- Repeated (REPEAT_LOST_CALLS=true)


@pytest.mark.parametrize("fail_after", [False, True])
def test_timer_takes_over_an_expired_claim(app: FakeApp, caplog: pytest.LogCaptureFixture, fail_after: bool) -> None:
    app.start(DIRECT)
    app.steps.fail_at, app.steps.fail_after = CALL, fail_after
    with pytest.raises(Crash):
        app.work()
    billed = len(app.direct.calls)
    app.tick(CLAIM - seconds(1))
    assert app.queue.messages == []
    app.tick(seconds(1))
    assert app.queue.messages == [[ID]]
    app.work()
    assert len(app.direct.calls) == billed + 1
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 1)
    assert "generation.call_repeated" in caplog.text
    assert "billed twice" in caplog.text


def test_retry_of_a_harmless_fault_is_not_a_lost_call(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.direct.outcomes = [Unavailable("status 503"), Throttled("status 429", 5), Answered((ImageBytes(b"0"),))]
    app.start(DIRECT)
    app.settle()
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 0)
    assert "billed" not in caplog.text


def test_third_lost_response_fails(app: FakeApp) -> None:
    app.direct.outcomes = [Lost("status 502", "502 Bad Gateway")]
    app.start(DIRECT)
    app.settle()
    error = app.read().error
    assert error
    assert (error.code, error.innererror) == ("outcomeUnknown", {"message": "status 502: 502 Bad Gateway"})
    assert error.message == (
        "The responses of 3 calls were lost, and the image service may have billed each of them. The app did not call "
        "again after 3 lost responses. Start a new generation to get the images."
    )
    assert len(app.direct.calls) == MOST_LOST_CALLS == 3


def test_deadline_after_a_lost_response_fails(app: FakeApp) -> None:
    app.direct.outcomes = [Lost("status 504")]
    app.direct.during_call = lambda: app.pass_time(3_600)
    app.start(DIRECT)
    app.settle()
    error = app.read().error
    assert error
    assert (error.code, error.innererror) == ("outcomeUnknown", {"message": "status 504"})
    assert "did not call again because the deadline (timeoutSeconds) had passed. " in error.message
    assert len(app.direct.calls) == 1


def test_outage_of_a_minute_fails_no_generation(app: FakeApp) -> None:
    began = app.clock.now

    def outage() -> None:
        over = app.clock.now - began >= seconds(60)
        app.direct.outcomes = [Answered((ImageBytes(b"0"),)) if over else Lost("status 502")]

    app.direct.during_call = outage
    app.start(DIRECT)
    for _ in range(200):
        app.work()
        app.tick(seconds(1))
    assert app.read().status is Status.SUCCEEDED
    assert len(app.direct.calls) == MOST_LOST_CALLS


def test_third_crash_in_a_call_fails(app: FakeApp) -> None:
    """The call itself may crash the worker: a response that fills the memory."""

    def crash() -> None:
        raise Crash

    app.direct.during_call = crash
    app.generations.start(new(model=DIRECT).request, metadata={}, timeout=seconds(86_400))
    for _ in range(20):
        try:
            app.settle()
        except Crash:
            continue
        break
    assert error_code(app.read()) == "outcomeUnknown"
    assert len(app.direct.calls) == MOST_LOST_CALLS


def test_storage_outage_before_a_call_is_not_a_lost_call(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage fails at the last read before the call, and at each write after it."""

    def fail(*_: object) -> None:
        raise StorageUnavailableError

    app.start(DIRECT)
    with monkeypatch.context() as outage:
        outage.setattr(app.records, "read_end", fail)
        with pytest.raises(StorageUnavailableError):
            app.work()
    assert app.steps.taken == ["create", "send"]
    app.settle()
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 0)
    assert app.direct.calls == [ID]


# --- Not repeated (REPEAT_LOST_CALLS=false)


def test_crash_in_a_call_fails_without_repetition(caplog: pytest.LogCaptureFixture) -> None:
    app = FakeApp(repeat_lost_calls=False)
    app.start(DIRECT)
    app.steps.fail_at, app.steps.fail_after = CALL, True
    with pytest.raises(Crash):
        app.work()
    app.settle()
    error = app.read().error
    assert error
    assert (app.read().status, error.code, error.is_refusal) == (Status.FAILED, "outcomeUnknown", False)
    assert "did not call again because the app has the setting REPEAT_LOST_CALLS=false. " in error.message
    assert "deadline" not in error.message
    assert error.innererror == {"message": "the worker stopped during the call"}
    assert (len(app.direct.calls), "call_repeated" in caplog.text) == (1, False)


def test_lost_response_fails_without_repetition() -> None:
    app = FakeApp(repeat_lost_calls=False)
    app.direct.outcomes = [Lost("status 504")]
    app.start(DIRECT)
    app.settle()
    assert error_code(app.read()) == "outcomeUnknown"
    assert app.direct.calls == [ID]


@pytest.mark.parametrize(
    ("repeated", "code", "blobs"),
    [(False, "outcomeUnknown", set[str]()), (True, None, {f"{ID}/0-1", f"{ID}/1-1"})],  # a repeated call has new names
)
def test_images_of_a_crashed_call_are_removed(repeated: bool, code: str | None, blobs: set[str]) -> None:
    app = FakeApp(repeat_lost_calls=repeated)
    app.start(DIRECT)
    app.steps.fail_at, app.steps.fail_after = CALL + 1, True  # the first image
    with pytest.raises(Crash):
        app.work()
    assert app.images.blobs == {f"{ID}/0"}
    app.settle()
    assert error_code(app.read()) == code
    assert app.images.blobs == blobs
