"""What the triggers log and raise when storage does not answer. tests/host has the test with a real host."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import azure.functions as func
import pytest

import function_app
from imagegen.errors import StorageUnavailableError
from imagegen.lifecycle.poller import SlotSummary


class AppWithoutStorage:
    def poll(self) -> None:
        self._fail("list records")

    def poll_early(self) -> None:
        self._fail("list records")

    def call(self, _: bytes) -> None:
        self._fail("read record")

    def poll_some(self, _: bytes) -> None:
        self._fail("read record")

    def _fail(self, doing: str) -> None:
        raise StorageUnavailableError(doing) from OSError("the text of the SDK")


class Message:
    dequeue_count = 3

    def get_body(self) -> bytes:
        return b"{}"


class Timer:
    def __init__(self, *, past_due: bool) -> None:
        self.past_due = past_due


def advance() -> None:
    function_app.advance_generations(cast("func.QueueMessage", Message()))


def poll_some() -> None:
    function_app.poll_some_operations(cast("func.QueueMessage", Message()))


def poll() -> None:
    function_app.poll_operations(cast("func.TimerRequest", Timer(past_due=False)))


def poll_late() -> None:
    function_app.poll_operations(cast("func.TimerRequest", Timer(past_due=True)))


@pytest.mark.parametrize(
    ("trigger", "event"),
    [
        (advance, "work.returned doing='read record' attempt=3"),
        (poll_some, "work.returned doing='read record' attempt=3"),
        (poll, "poll.failed doing='list records'"),
        (poll_late, "poll.failed doing='list records' past_due=True"),
    ],
)
def test_trigger_without_storage_logs_one_event_and_raises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trigger: Callable[[], None], event: str
) -> None:
    monkeypatch.setattr(function_app, "current_app", AppWithoutStorage)
    with caplog.at_level(logging.INFO), pytest.raises(StorageUnavailableError) as raised:
        trigger()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", event)]
    # Azure logs this trace: no error of the SDK, and no frame below the trigger.
    trace = "".join(traceback.format_exception(raised.value))
    assert trace.count("Traceback") == 1
    assert "in _fail" not in trace


@dataclass
class AppWithSlot:
    """Its slot ends at once."""

    done: SlotSummary | None

    def poll_early(self) -> SlotSummary | None:
        return self.done


def poll_early(monkeypatch: pytest.MonkeyPatch, app: object) -> None:
    monkeypatch.setattr(function_app, "current_app", lambda: app)
    function_app.poll_early(cast("func.QueueMessage", Message()))


def test_early_slot_without_storage_is_left_to_the_timer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The slot lasted until the timer's tick. A second delivery would only make the message poison."""
    with caplog.at_level(logging.INFO):
        poll_early(monkeypatch, AppWithoutStorage())
    assert caplog.messages == ["poll.failed doing='list records' early=True"]


@pytest.mark.parametrize(
    ("done", "events"),
    [
        (None, []),  # another slot is live
        (SlotSummary(passes=3, moves=1), ["poll.done passes=3 moves=1 failures=0 left=0 early=True"]),
        (SlotSummary(passes=1), ["poll.done passes=1 moves=0 failures=0 left=0 early=True"]),
    ],
)
def test_early_slot_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, done: SlotSummary | None, events: list[str]
) -> None:
    with caplog.at_level(logging.INFO):
        poll_early(monkeypatch, AppWithSlot(done))
    assert caplog.messages == events
