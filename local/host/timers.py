"""Timer triggers, after TimerListener of azure-webjobs-sdk-extensions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from cronsim import CronSim, CronSimError
from pydantic import AwareDatetime, BaseModel, ValidationError

from local.host import storage
from local.host.bindings import TimerTrigger
from local.host.leases import Lease
from local.host.listeners import Stop
from local.host.messages import TypedData
from local.host.outages import Outage, retry
from local.host.runtime import Function, Worker
from local.host.settings import ConfigurationError, HostSettings, problems

logger = logging.getLogger(__name__)

# Azure stores the last run of schedules with at least this interval.
_SHORTEST_STORED = timedelta(minutes=1)
# The clock may be set, or the machine may sleep, during a wait: look at it again after this many seconds.
_LONGEST_WAIT = 30.0
# Seconds between looks at a lease that another host holds.
_LEASE_CHECK = 0.1
_NAMES = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT"


class Schedule:
    """An NCRONTAB expression: six fields, from second to day of the week, in UTC. Another text is a ValueError."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        fields = expression.upper().split()
        if len(fields) != 6:
            raise ValueError(f"the schedule {expression!r} has {len(fields)} fields instead of 6, seconds first")
        # cronsim also accepts L, W and #, which NCRONTAB does not have.
        if not re.fullmatch(rf"(?:[\d\s*/,-]|{_NAMES})+", expression, re.IGNORECASE):
            raise ValueError(f"the schedule {expression!r} is not NCRONTAB: digits, names, and * / , - only")
        try:
            first = self.next_after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"the schedule {expression!r} is not NCRONTAB: {error}") from None
        self.interval = self.next_after(first) - first
        """The time between two occurrences, by which Azure tells short schedules."""

    def next_after(self, moment: datetime) -> datetime:
        """Return the first occurrence later than `moment`."""
        occurrences = CronSim(self.expression, moment)
        # A date must match the day of the month and the day of the week; in cron, one of them is enough.
        occurrences.day_and = True
        for occurrence in occurrences:
            return occurrence
        raise ValueError(f"the schedule {self.expression!r} has no occurrence in the next 50 years")


class _Status(BaseModel):
    """The last run, and the next occurrence by the schedule of that time."""

    last: AwareDatetime
    next: AwareDatetime


class TimerListener:
    """Invokes one function by the clock, on one host at a time. Its runs never overlap."""

    def __init__(
        self,
        function: Function,
        trigger: TimerTrigger,
        settings: HostSettings,
        worker: Worker,
        *,
        now: Callable[[tzinfo], datetime] = datetime.now,
    ) -> None:
        expression = settings.resolve(trigger.schedule, where=function.where)
        try:
            self._schedule = Schedule(expression)
        except ValueError as error:
            raise ConfigurationError(f"{function.where}: {error}") from None
        self.description = f"{function.name}: timer {expression}"
        self._function = function
        self._worker = worker
        self._now = now
        name = f"Host.Functions.{function.name}"
        self._container = storage.hosts_container(settings.environ)
        self.lease = Lease(self._container.get_blob_client(f"locks/{settings.host_id}/{name}.Listener"))
        self.status = self._container.get_blob_client(f"timers/{settings.host_id}/{name}/status")
        self._outage = Outage(f"last run of {function.name}")

    def prepare(self) -> None:
        with contextlib.suppress(ResourceExistsError):
            self._container.create_container()

    async def run(self, stop: Stop) -> None:
        # Renewed until the last run has ended, so that no other host starts the function while it still runs here.
        ended = Stop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.lease.keep(ended))
            while not stop.is_set():
                await self.listen(stop)
                await stop.within(_LEASE_CHECK)
            ended.set()

    async def listen(self, stop: Stop) -> None:
        """Invoke the function while this host holds the lease."""
        if not self.lease.held:
            return
        began = self._now(UTC)
        last = await self._read_last_run(began, stop)
        if last is None:
            return
        await self._write_last_run(last, stop)
        while not await self._wait_until(due := self._schedule.next_after(last), stop):
            if not self.lease.held:
                return
            # As in Azure, the next occurrence counts from the start of a run: a run that is longer than the interval
            # is followed by one run at once, and further missed occurrences are skipped.
            last = self._now(UTC)
            await self._invoke(is_past_due=due < began)
            await self._write_last_run(last, stop)

    async def _invoke(self, *, is_past_due: bool) -> None:
        timer = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": None, "IsPastDue": is_past_due}
        reason = "timer, past due" if is_past_due else "timer"
        await self._worker.invoke(self._function, TypedData(json=json.dumps(timer)), reason=reason)

    async def _wait_until(self, moment: datetime, stop: Stop) -> bool:
        """Return whether `stop` came first."""
        while (seconds := (moment - self._now(UTC)).total_seconds()) > 0:
            if await stop.within(min(seconds, _LONGEST_WAIT)):
                return True
        return stop.is_set()

    async def _read_last_run(self, began: datetime, stop: Stop) -> datetime | None:
        """Return the last run, or `began` if none is stored. None: `stop` came first, or the lease was lost.

        A run that cannot be read is not replaced by `began`: an outage would hide that an occurrence was missed.
        """
        if self._schedule.interval < _SHORTEST_STORED:
            return began
        return await retry(
            lambda: self._download_last_run(began) or began, self._outage, stop, worthwhile=lambda _: self.lease.held
        )

    def _download_last_run(self, began: datetime) -> datetime | None:
        """Return the last run. None: none is stored, or its next occurrence passed under another schedule."""
        try:
            status = _Status.model_validate_json(self.status.download_blob().readall())
        except ResourceNotFoundError:
            return None
        except ValidationError as error:
            logger.warning(
                "the last run of %s cannot be read, so none counts as missed: %s", self._function.name, problems(error)
            )
            return None
        due = self._schedule.next_after(status.last)
        return None if status.next != due < began else status.last

    async def _write_last_run(self, moment: datetime, stop: Stop) -> None:
        """Store the last run, at the latest until the next occurrence."""
        if self._schedule.interval < _SHORTEST_STORED:
            return
        due = self._schedule.next_after(moment)
        status = _Status(last=moment, next=due).model_dump_json()
        # Without it a restart would repeat this run, as past due.
        await retry(
            lambda: self.status.upload_blob(status, overwrite=True),
            self._outage,
            stop,
            worthwhile=lambda pause: self.lease.held and self._now(UTC) + timedelta(seconds=pause) < due,
        )
