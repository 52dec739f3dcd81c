from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local.host.schedules import Schedule, ScheduleError, ScheduleStatus


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "now", "expected"),
    [
        ("0 * * * * *", "2026-11-23T02:04:00", "2026-11-23T02:05:00"),  # the occurrence itself is not after itself
        ("0 * * * * *", "2026-11-23T02:04:00.5", "2026-11-23T02:05:00"),
        ("*/5 * * * * *", "2026-11-23T02:04:58", "2026-11-23T02:05:00"),
        ("0 */10 * * * *", "2026-11-23T02:51:00", "2026-11-23T03:00:00"),
        ("0 30 9 * * 1-5", "2026-11-27T10:00:00", "2026-11-30T09:30:00"),  # over a weekend
        ("0 30 9 * Jan Mon", "2026-11-23T00:00:00", "2027-01-04T09:30:00"),  # names in any case
        ("0 0 0 29 2 *", "2026-11-23T00:00:00", "2028-02-29T00:00:00"),
        # cron would fire on every 13th and every Friday; NCRONTAB wants both
        ("0 0 0 13 * 5", "2026-11-23T00:00:00", "2027-08-13T00:00:00"),
        ("15,45 * * * * *", "2026-11-23T00:00:20", "2026-11-23T00:00:45"),
    ],
)
def test_the_next_occurrence(expression: str, now: str, expected: str) -> None:
    assert Schedule(expression).next_after(at(now)) == at(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",  # five fields are Unix cron
        "* * * * * * *",
        "61 * * * * *",
        "0 0 0 L * *",  # Quartz, not NCRONTAB
        "0 0 0 * * 5#2",
        "0 0 0 * * JAN",
        "00:05:00",  # a time span works in an App Service plan only
        "",
    ],
)
def test_what_is_not_ncrontab_is_refused(expression: str) -> None:
    with pytest.raises(ScheduleError):
        Schedule(expression)


def test_the_interval_tells_short_schedules_from_long() -> None:
    now = at("2026-11-23T02:04:30")
    assert Schedule("*/59 * * * * *").shortest_interval(now) < timedelta(minutes=1)
    assert Schedule("0 * * * * *").shortest_interval(now) == timedelta(minutes=1)


def test_a_run_longer_than_the_interval_leaves_the_next_one_due() -> None:
    status = ScheduleStatus.after_run(Schedule("0 * * * * *"), at("2026-11-23T02:04:00"))
    assert status.next == at("2026-11-23T02:05:00")  # though it may be 02:07 by now: TimerListener fires at once


def test_a_status_survives_storage() -> None:
    status = ScheduleStatus.first(Schedule("0 0 * * * *"), at("2026-11-23T02:04:00.25"))
    assert ScheduleStatus.from_json(status.to_json()) == status


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("2026-11-23T02:00:00", "2026-11-23T02:10:00"),  # counted anew from the last run
        ("0001-01-01T00:00:00", "2026-11-23T02:20:00"),  # never ran: from when it was written
    ],
)
def test_a_changed_schedule_is_counted_anew(last: str, expected: str) -> None:
    written = ScheduleStatus(at(last), next=at("2026-11-24T00:00:00"), last_updated=at("2026-11-23T02:11:00"))
    assert written.adjusted(Schedule("0 */10 * * * *")).next == at(expected)
