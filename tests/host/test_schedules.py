"""Schedules, and the timer listener with a fake clock. test_timers.py has the tests with real hosts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast
from uuid import uuid4

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobClient

from local.azurite import Azurite
from local.host.bindings import TimerTrigger
from local.host.listeners import Stop
from local.host.messages import TypedData
from local.host.runtime import Function, Outcome
from local.host.settings import HostSettings
from local.host.timers import Schedule, TimerListener


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "now", "expected"),
    [
        ("0 * * * * *", "2026-11-23T02:04:00", "2026-11-23T02:05:00"),  # later than now, not now
        ("0 * * * * *", "2026-11-23T02:04:00.5", "2026-11-23T02:05:00"),
        ("*/5 * * * * *", "2026-11-23T02:04:58", "2026-11-23T02:05:00"),
        ("0 */10 * * * *", "2026-11-23T02:51:00", "2026-11-23T03:00:00"),
        ("0 30 9 * * 1-5", "2026-11-27T10:00:00", "2026-11-30T09:30:00"),  # over a weekend
        ("0 30 9 * Jan Mon", "2026-11-23T00:00:00", "2027-01-04T09:30:00"),  # names in any case
        ("0 0 0 29 2 *", "2026-11-23T00:00:00", "2028-02-29T00:00:00"),
        # Friday the 13th; in cron this would be each 13th and each Friday.
        ("0 0 0 13 * 5", "2026-11-23T00:00:00", "2027-08-13T00:00:00"),
        ("15,45 * * * * *", "2026-11-23T00:00:20", "2026-11-23T00:00:45"),
    ],
)
def test_next_occurrence(expression: str, now: str, expected: str) -> None:
    assert Schedule(expression).next_after(at(now)) == at(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",  # five fields are Unix cron
        "* * * * * * *",
        "61 * * * * *",
        "0 0 0 L * *",  # Quartz, not NCRONTAB
        "0 0 0 * * 5#2",
        "0 0 0 * * 5L",
        "0 0 0 * * JAN",
        "0 0 0 31 2 1",  # never
        "00:05:00",  # a time span works in an App Service plan only
        "",
    ],
)
def test_text_that_is_not_ncrontab_is_rejected(expression: str) -> None:
    with pytest.raises(ValueError, match=r"^the schedule '.*' (has|is not)"):
        Schedule(expression)


def test_interval_separates_short_schedules_from_long() -> None:
    assert Schedule("*/59 * * * * *").interval < timedelta(minutes=1)
    assert Schedule("0 * * * * *").interval == timedelta(minutes=1)


class FakeClock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self, _: tzinfo) -> datetime:
        return self.now


class FakeStop(Stop):
    """Waits by setting the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    async def within(self, seconds: float) -> bool:
        self._clock.now += timedelta(seconds=seconds)
        return self.is_set()


class FakeWorker:
    """Its function takes a fixed time. It sets `stop` after a number of runs."""

    def __init__(self, clock: FakeClock, stop: Stop, *, takes: float, runs: int) -> None:
        self._clock = clock
        self._stop = stop
        self._takes = timedelta(seconds=takes)
        self._left = runs
        self.runs: list[tuple[datetime, bool]] = []

    async def invoke(self, _: Function, data: TypedData, **__: object) -> Outcome:
        self.runs.append((self._clock.now, json.loads(data.json or "")["IsPastDue"]))
        self._clock.now += self._takes
        self._left -= 1
        if self._left == 0:
            self._stop.set()
        return Outcome(succeeded=True)


class TimerRun:
    """Runs a TimerListener with a fake clock, and Azurite for its lease and its last run."""

    def __init__(self, azurite: Azurite, schedule: str) -> None:
        self._trigger = TimerTrigger(name="timer", schedule=schedule)
        self._settings = HostSettings(uuid4().hex, {"AzureWebJobsStorage": azurite.connection_string})
        self._status: BlobClient = self._listener(cast("Any", None), FakeClock(at("2026-01-01"))).status

    def runs(self, *, now: str, takes: float = 0, count: int) -> list[tuple[datetime, bool]]:
        """Return the start of each run, and whether it is past due."""
        clock = FakeClock(at(now))
        stop = FakeStop(clock)
        worker = FakeWorker(clock, stop, takes=takes, runs=count)
        listener = self._listener(worker, clock)
        listener.prepare()
        assert listener.lease.acquire()
        asyncio.run(listener.listen(stop))
        listener.lease.release()
        return worker.runs

    def stored(self) -> datetime | None:
        with contextlib.suppress(ResourceNotFoundError):
            return datetime.fromisoformat(json.loads(self._status.download_blob().readall())["last"])
        return None

    def store(self, status: dict[str, str]) -> None:
        self._status.upload_blob(json.dumps(status), overwrite=True)

    def _listener(self, worker: FakeWorker, clock: Callable[[tzinfo], datetime]) -> TimerListener:
        function = Function("1", "tick", self._trigger)
        return TimerListener(function, self._trigger, self._settings, cast("Any", worker), now=clock)


def test_first_start_waits_for_next_occurrence(azurite: Azurite) -> None:
    timer = TimerRun(azurite, "0 */10 * * * *")
    runs = timer.runs(now="2026-11-23T02:05:00", count=2)
    assert runs == [(at("2026-11-23T02:10:00"), False), (at("2026-11-23T02:20:00"), False)]
    assert timer.stored() == at("2026-11-23T02:20:00")


def test_long_run_is_followed_by_one_run_at_once(azurite: Azurite) -> None:
    timer = TimerRun(azurite, "*/5 * * * * *")
    starts = [run for run, _ in timer.runs(now="2026-11-23T02:00:03", takes=12, count=3)]
    # Without overlap, and without catching up on the second occurrence that each run misses.
    assert starts == [at("2026-11-23T02:00:05"), at("2026-11-23T02:00:17"), at("2026-11-23T02:00:29")]
    assert timer.stored() is None  # too short a schedule


@pytest.mark.parametrize(
    ("stored", "now", "expected"),
    [
        ("2026-11-23T02:00:00", "2026-11-23T02:05:00", ("2026-11-23T02:10:00", False)),
        ("2026-11-23T02:00:00", "2026-11-23T02:11:00", ("2026-11-23T02:11:00", True)),
        ("2020-01-01T00:00:00", "2026-11-23T02:11:00", ("2026-11-23T02:11:00", True)),
    ],
)
def test_missed_occurrence_runs_once_at_start(
    azurite: Azurite, stored: str, now: str, expected: tuple[str, bool]
) -> None:
    timer = TimerRun(azurite, "0 */10 * * * *")
    timer.runs(now="2026-11-23T01:00:00", count=1)  # creates the container
    following = Schedule("0 */10 * * * *").next_after(at(stored))
    timer.store({"last": at(stored).isoformat(), "next": following.isoformat()})
    runs = timer.runs(now=now, count=2)
    following = (at("2026-11-23T02:20:00"), False)
    assert runs == [(at(expected[0]), expected[1]), following]


def test_unreadable_last_run_counts_as_none(azurite: Azurite, caplog: pytest.LogCaptureFixture) -> None:
    timer = TimerRun(azurite, "0 */10 * * * *")
    timer.runs(now="2026-11-23T01:00:00", count=1)
    timer.store({})
    assert timer.runs(now="2026-11-23T02:11:00", count=1) == [(at("2026-11-23T02:20:00"), False)]
    assert "the last run of tick cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23T02:05:00", "2026-11-23T02:10:00"),  # counts from the last run
        ("2026-11-23T02:11:00", "2026-11-23T02:20:00"),  # 02:10 was no occurrence when it passed
    ],
)
def test_changed_schedule_misses_no_occurrence(azurite: Azurite, now: str, expected: str) -> None:
    timer = TimerRun(azurite, "0 */10 * * * *")
    timer.runs(now="2026-11-23T01:00:00", count=1)  # creates the container
    timer.store({"last": "2026-11-23T02:00:00Z", "next": "2026-11-23T03:00:00Z"})
    assert timer.runs(now=now, count=1) == [(at(expected), False)]
