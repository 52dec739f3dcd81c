"""NCRONTAB schedules and what is remembered of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_NAMES = {
    4: "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
    5: "SUN|MON|TUE|WED|THU|FRI|SAT",
}
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class ScheduleError(ValueError):
    """Not an NCRONTAB expression."""


class Schedule:
    """Six fields, from second to day of the week, in UTC.

    NCRONTAB is cron with two differences that matter: it has no L, W and #, and a day must fit the day of the month
    *and* the day of the week, where cron takes either.
    """

    def __init__(self, expression: str) -> None:
        fields = expression.upper().split()
        if len(fields) != 6:
            raise ScheduleError(
                f"{expression!r} has {len(fields)} fields, not 6: {{s}} {{m}} {{h}} {{day}} {{month}} {{weekday}}"
            )
        for position, text in enumerate(fields):
            part = rf"(?:\d+|{_NAMES.get(position, '(?!)')})"
            item = rf"(?:\*|{part}(?:-{part})?)(?:/\d+)?"
            if not re.fullmatch(rf"{item}(?:,{item})*", text):
                raise ScheduleError(f"{expression!r}: {text!r} is not a field of an NCRONTAB expression")
        self.expression = expression
        self._dates = " ".join([*fields[:5], "*"])
        self._weekdays = " ".join(["*", "*", "*", "*", "*", fields[5]])
        try:
            CronSim(" ".join(fields), _NEVER)
        except CronSimError as error:
            raise ScheduleError(f"{expression!r}: {error}") from error

    def next_after(self, moment: datetime) -> datetime:
        """Return the first occurrence later than `moment`."""
        for date in CronSim(self._dates, moment):
            if self._is_weekday(date):
                return date
        raise ScheduleError(f"{self.expression!r} never occurs")

    def _is_weekday(self, moment: datetime) -> bool:
        return next(CronSim(self._weekdays, moment - timedelta(seconds=1))) == moment

    def shortest_interval(self, moment: datetime) -> timedelta:
        """Return the time between the next two occurrences: how the Azure host tells short schedules."""
        first = self.next_after(moment)
        return self.next_after(first) - first


@dataclass(frozen=True)
class ScheduleStatus:
    """What the Azure host writes to storage after each run."""

    last: datetime
    next: datetime
    last_updated: datetime

    @classmethod
    def first(cls, schedule: Schedule, now: datetime) -> ScheduleStatus:
        return cls(last=_NEVER, next=schedule.next_after(now), last_updated=now)

    @classmethod
    def after_run(cls, schedule: Schedule, started: datetime) -> ScheduleStatus:
        """Return the status after a run.

        As in Azure's TimerListener the next occurrence counts from the start of the run, not its end: a run longer
        than the interval is followed by one run at once, and what it missed besides is left out.
        """
        return cls(last=started, next=schedule.next_after(started), last_updated=started)

    def adjusted(self, schedule: Schedule) -> ScheduleStatus:
        """Return the status for a schedule that may have changed since it was written."""
        base = self.last_updated if self.last == _NEVER else self.last
        return ScheduleStatus(last=self.last, next=schedule.next_after(base), last_updated=self.last_updated)

    def to_json(self) -> str:
        times = {"Last": self.last, "Next": self.next, "LastUpdated": self.last_updated}
        return json.dumps({name: moment.isoformat() for name, moment in times.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> ScheduleStatus:
        times = {name: datetime.fromisoformat(moment) for name, moment in json.loads(text).items()}
        return cls(last=times["Last"], next=times["Next"], last_updated=times["LastUpdated"])
