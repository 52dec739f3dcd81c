"""Errors that no code expects, in a call or while its images are stored: a truthful end, and no second call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import FailedImage, Generation, Status, StoredImage
from imagegen.lifecycle.poller import Poller
from imagegen.lifecycle.ports import ActiveEntry
from imagegen.upstream.protocol import Answered, ImageBytes, ImageSource
from tests.app.generations import DIRECT, ID, NOON, PROMPT, TOKEN, error_code, seconds, stored
from tests.app.lifecycle.fake_app import FakeApp

DEFECTS = [RuntimeError(f"{PROMPT} {TOKEN}"), OSError(28, "No space left on device"), MemoryError()]


def run(app: FakeApp) -> None:
    """Make the call, then let the timer and other workers run to the end."""
    app.start(DIRECT)
    app.work()
    app.settle()
    assert app.direct.calls == [ID]
    assert app.records.active == {}


@pytest.mark.parametrize("error", DEFECTS)
def test_error_in_a_call_ends_as_outcome_unknown(
    app: FakeApp, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    app.direct.during_call = fail
    run(app)
    found = app.read()
    assert found.error
    assert (found.status, found.error.code, found.error.is_refusal) == (Status.FAILED, "outcomeUnknown", False)
    assert "may have billed it" in found.error.message
    assert f"generation.stuck id={ID} error={type(error).__name__} at=test_unexpected_errors.py:" in caplog.text
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("error", DEFECTS)
@pytest.mark.parametrize(("read", "status"), [(0, Status.FAILED), (1, Status.SUCCEEDED), (2, Status.SUCCEEDED)])
def test_error_while_images_are_read_keeps_the_stored_ones(
    app: FakeApp, error: Exception, read: int, status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    def images() -> Iterator[ImageSource]:
        for number in range(read):
            yield ImageBytes(b"%d" % number)
        raise error

    app.direct.outcomes = [Answered(images(), usage={"total_tokens": 3})]
    run(app)
    assert (app.read().status, app.read().usage) == (status, {"total_tokens": 3})
    assert app.read().images[:read] == tuple(stored(number) for number in range(read))
    [last] = app.read().images[read:]
    assert isinstance(last, FailedImage)
    assert last.error.code == "internalError"
    assert f"image.failed id={ID} index={read} error={type(error).__name__}" in caplog.text
    assert PROMPT not in caplog.text


@pytest.mark.parametrize("error", DEFECTS)
@pytest.mark.parametrize("index", [0, 1])
def test_error_of_one_image_does_not_fail_the_others(app: FakeApp, error: Exception, index: int) -> None:
    def fail(at: int) -> None:
        if at == index:
            raise error

    app.images.before_copy = fail
    run(app)
    assert app.read().status is Status.SUCCEEDED
    assert isinstance(app.read().images[index], FailedImage)
    assert isinstance(app.read().images[1 - index], StoredImage)


def test_error_of_every_image_fails(app: FakeApp) -> None:
    def fail(_: int) -> None:
        raise DEFECTS[0]

    app.images.before_copy = fail
    run(app)
    assert (app.read().status, error_code(app.read())) == (Status.FAILED, "internalError")
    assert app.images.blobs == set()


@pytest.mark.parametrize("minutes", [1, 5, 11])
def test_storage_outage_of_minutes_makes_no_second_call(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """All of storage is out while the second image is stored. The timer runs meanwhile, and when storage is back."""
    back = NOON + seconds(60 * minutes)
    save, listing = app.records.save, app.records.list_active

    def check() -> None:
        if app.clock.now < back:
            raise StorageUnavailableError("storage")

    def slot() -> None:
        try:
            timer.run(app.clock.now + seconds(1))
        except StorageUnavailableError:
            assert app.clock.now < back

    def fail(index: int) -> None:
        if index == 1:
            slot()
            check()
            app.clock.sleep(1)  # storage is back, the keeper has not renewed yet, and the timer comes first
            slot()

    def checked_save(generation: Generation, etag: str) -> str:
        check()
        return save(generation, etag)

    def checked_listing() -> list[ActiveEntry]:
        check()
        return listing()

    timer = Poller(
        records=app.records,
        advance=app.worker.advance,
        clock=app.clock,
        queue=app.queue,
        turns=app.pacer,
        threads=1,
        most=10,
        on_outage=app.worker.note_outage,
        sleep=lambda _: None,
    )
    app.start(DIRECT)

    def begin_outage() -> None:
        monkeypatch.setattr(app.records, "save", checked_save)
        monkeypatch.setattr(app.records, "list_active", checked_listing)

    app.direct.during_call = begin_outage
    app.images.before_copy = fail
    app.work()
    assert (app.direct.calls, app.queue.messages, app.read().lost_calls) == ([ID], [], 0)
    assert app.read().images == (stored(0), stored(1))
