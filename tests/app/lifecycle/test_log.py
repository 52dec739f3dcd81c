"""The log: the line of each event, and no prompt, token, key or URL among them."""

from __future__ import annotations

import logging

import pytest

from imagegen.errors import ImageUnusableError
from imagegen.generation import Generation, GenerationError, Status
from imagegen.upstream.protocol import Answered, Ended, ImageBytes, ImageUrl, Lost, Throttled, Unavailable
from tests.app.fakes import TWO_URLS, CallOutcome, PollOutcome
from tests.app.generations import DIRECT, ID, POLLED, PROMPT, new, running, seconds, throttle
from tests.app.lifecycle.fake_app import KEY, FakeApp

TRUNCATED = ImageUnusableError("imageTruncated", "cut", again=True)


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


# --- The end of a generation


@pytest.mark.parametrize(
    ("polled", "line"),
    [
        (TWO_URLS, f"INFO generation.succeeded id={ID} images=2 seconds=1.3"),
        (
            Ended(Status.FAILED, GenerationError(code="contentFilter", message="No.")),
            f"ERROR generation.failed id={ID} code=contentFilter seconds=1.3",
        ),
        (Ended(Status.CANCELED), f"INFO generation.canceled id={ID} seconds=1.3"),
    ],
)
def test_end_is_logged(app: FakeApp, caplog: pytest.LogCaptureFixture, polled: PollOutcome, line: str) -> None:
    app.write_record(running())
    app.polled.poll_outcome = polled
    app.tick(seconds(1.26))
    assert lines(caplog) == [line]


@pytest.mark.parametrize(("winner", "status"), [(running(status=Status.CANCELED), "canceled"), (None, "deleted")])
def test_lost_race_for_the_outcome_is_logged(
    app: FakeApp, caplog: pytest.LogCaptureFixture, winner: Generation | None, status: str
) -> None:
    app.write_record(running())
    app.records.done[ID] = winner
    app.tick()
    assert lines(caplog) == [f"INFO generation.overtaken id={ID} status={status}"]


def test_lost_race_for_the_record_is_logged(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    current = app.write_record(running())
    app.records.save(current.generation, current.etag)  # another worker
    app.worker.advance(current)
    assert lines(caplog) == [f"INFO generation.overtaken id={ID}"]


# --- Faults


def test_fault_is_logged_with_the_time_to_the_retry(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.write_record(running(faults=1))
    app.polled.poll_outcome = Unavailable("status 503")
    app.tick()
    assert lines(caplog) == [
        f"WARNING upstream.unavailable id={ID} reason='the image service answered 503' faults=2 seconds=2"
    ]


def test_throttle_is_logged_with_the_length_of_the_pause(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.jitter = 1.0  # this generation resumes later than the pause ends
    app.write_record(new())
    app.polled.submit_outcome = Throttled("status 429", 30)
    app.tick()
    assert lines(caplog) == [f"WARNING upstream.unavailable id={ID} reason='status 429' faults=1 seconds=30"]


def test_wait_for_the_end_of_a_throttle_is_not_logged(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.throttling.pause(DIRECT, throttle(30))
    app.write_record(new(model=DIRECT))
    app.worker.advance_by_id(ID, has_minutes=True)
    assert lines(caplog) == []


def test_unusable_image_is_logged(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.images.unusable = {1: TRUNCATED}
    app.write_record(running())
    app.tick()
    assert lines(caplog) == [
        f"WARNING image.unusable id={ID} index=1 code=imageTruncated reason=cut retryable=True",
    ]


def test_operation_that_cannot_be_polled_is_logged(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.write_record(running())
    app.configure({POLLED: app.direct})
    app.tick()
    cause = "its model was changed to an API that cannot poll its operation"
    assert lines(caplog) == [
        f"WARNING generation.stranded id={ID} model=dalle cause={cause!r}",
    ]


def test_generation_without_its_model_is_logged(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.write_record(new(model="gone"))
    app.tick()
    assert lines(caplog) == [
        f"WARNING generation.stranded id={ID} model=gone cause='the settings do not name its model'"
    ]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (Lost("status 504"), f"WARNING generation.call_lost id={ID} reason='status 504'"),
        (Answered((ImageBytes(b"0"),)), f"INFO generation.succeeded id={ID} images=1 seconds=0.0"),
    ],
)
def test_repeated_call_is_logged_as_maybe_billed_twice(
    app: FakeApp, caplog: pytest.LogCaptureFixture, answer: CallOutcome, line: str
) -> None:
    app.write_record(new(model=DIRECT, lost_calls=1))
    app.direct.outcomes = [answer]
    app.worker.advance_by_id(ID, has_minutes=True)
    note = "an earlier call may have been billed: this one may be billed twice"
    assert lines(caplog) == [f"WARNING generation.call_repeated id={ID} lost_calls=1 note={note!r}", line]


# --- Secrets


def test_log_of_a_polled_generation_has_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.images.unusable = {1: TRUNCATED}
    app.polled.poll_outcome = Unavailable("status 503")
    started = app.start(key=KEY)
    app.tick(seconds(5))
    app.polled.poll_outcome = TWO_URLS
    app.settle()
    assert [line.split()[1] for line in lines(caplog)] == [
        "generation.started",
        "upstream.unavailable",
        *["image.unusable"] * 5,
        "generation.succeeded",
    ]
    for secret in (PROMPT, started.token, KEY.value, "s3cret", "example.com"):
        assert secret not in caplog.text


def test_log_of_a_direct_generation_has_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.direct.outcomes = [
        Lost("no answer"),
        Throttled("status 429", 1),
        Answered((ImageUrl("https://x?sig=s3cret"),)),
    ]
    started = app.start(DIRECT, key=KEY)
    app.settle()
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 1)
    assert [line.split()[1] for line in lines(caplog)] == [
        "generation.started",
        "generation.call_lost",
        "generation.call_repeated",
        "upstream.unavailable",
        "generation.call_repeated",
        "generation.succeeded",
    ]
    for secret in (PROMPT, started.token, KEY.value, "s3cret"):
        assert secret not in caplog.text
