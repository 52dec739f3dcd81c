"""Timer triggers, after TimerListener of azure-webjobs-sdk-extensions."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import AzureError, ResourceNotFoundError

from local.host.leases import Lease, hold
from local.host.logs import logger
from local.host.messages import TypedData
from local.host.schedules import Schedule, ScheduleError, ScheduleStatus
from local.host.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.storage.blob import BlobClient, ContainerClient

    from local.host.invocations import Invoker
    from local.host.runtime import Function
    from local.host.settings import HostSettings
    from local.host.stop import Stop

# Below this Azure does not remember schedules.
_SHORTEST_MONITORED = timedelta(minutes=1)
# The wall clock may be set, or the machine sleep, while we wait: look at it again this often.
_LONGEST_WAIT = 30.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Monitor:
    """Remembers a schedule across restarts. All calls block."""

    def __init__(self, blob: BlobClient) -> None:
        self._blob = blob

    def read(self) -> ScheduleStatus | None:
        try:
            return ScheduleStatus.from_json(self._blob.download_blob().readall())
        except ResourceNotFoundError:
            return None

    def write(self, status: ScheduleStatus) -> None:
        self._blob.upload_blob(status.to_json(), overwrite=True)


class TimerTrigger:
    """One function run by the clock, on one host at a time and never overlapping itself."""

    def __init__(
        self,
        function: Function,
        settings: HostSettings,
        container: ContainerClient,
        invoker: Invoker,
        *,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        values, name = function.trigger.values, f"Host.Functions.{function.name}"
        self.function = function
        self.schedule = _schedule(function, settings)
        self._run_on_startup = _is_true(values.get("runOnStartup"), default=False)
        self._lease = Lease(container.get_blob_client(f"locks/{settings.host_id}/{name}.Listener"))
        self._invoker = invoker
        self._now = now
        monitored = self.schedule.shortest_interval(now()) >= _SHORTEST_MONITORED
        self._monitor = (
            Monitor(container.get_blob_client(f"timers/{settings.host_id}/{name}/status"))
            if monitored and _is_true(values.get("useMonitor"), default=True)
            else None
        )

    async def run(self, stop: Stop) -> None:
        """Be the one host that runs this timer, when it is; until told to stop."""
        await hold(self._lease, self._listen, stop)

    async def invoke(self, *, is_past_due: bool, status: ScheduleStatus | None, reason: str = "timer") -> None:
        """Run the function once, now."""
        timer = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": json.loads(status.to_json()) if status and self._monitor else None,
            "IsPastDue": is_past_due,
        }
        await self._invoker.invoke(self.function, TypedData(json=json.dumps(timer)), reason=reason)

    async def _listen(self, stop: Stop) -> None:
        status = await self._remembered()
        if self._now() > status.next:
            status = await self._run(status, is_past_due=True)
        elif self._run_on_startup:
            status = await self._run(status)
        while not await self._wait_until(status.next, stop):
            if not self._lease.held:
                # The machine slept longer than the lease: the renewal will find that out and end this.
                await stop.within(1)
                continue
            status = await self._run(status)

    async def _wait_until(self, moment: datetime, stop: Stop) -> bool:
        """Return whether told to stop before the moment came."""
        while (seconds := (moment - self._now()).total_seconds()) > 0:
            if await stop.within(min(seconds, _LONGEST_WAIT)):
                return True
        return stop.is_set()

    async def _run(self, status: ScheduleStatus, *, is_past_due: bool = False) -> ScheduleStatus:
        started = self._now()
        await self.invoke(is_past_due=is_past_due, status=status, reason="timer, past due" if is_past_due else "timer")
        status = ScheduleStatus.after_run(self.schedule, started)
        await self._remember(status)
        return status

    async def _remembered(self) -> ScheduleStatus:
        recorded = await self._read()
        if recorded is not None:
            return recorded.adjusted(self.schedule)
        status = ScheduleStatus.first(self.schedule, self._now())
        await self._remember(status)
        return status

    async def _read(self) -> ScheduleStatus | None:
        if self._monitor is None:
            return None
        try:
            return await asyncio.to_thread(self._monitor.read)
        except (AzureError, ValueError, KeyError) as error:
            logger.warning("the schedule status of %s cannot be read, starting anew: %s", self.function.name, error)
            return None

    async def _remember(self, status: ScheduleStatus) -> None:
        if self._monitor is None:
            return
        try:
            await asyncio.to_thread(self._monitor.write, status)
        except AzureError as error:
            # Harmless: a restart would run this occurrence again, as past due.
            logger.warning("the schedule status of %s was not written: %s", self.function.name, error)


def _schedule(function: Function, settings: HostSettings) -> Schedule:
    binding = function.trigger
    expression = settings.resolve(str(binding.values["schedule"]), function=function.name, binding=binding.name)
    try:
        return Schedule(expression)
    except ScheduleError as error:
        raise ConfigurationError(f"function {function.name}, binding {binding.name}: {error}") from error


def _is_true(value: Any, *, default: bool) -> bool:
    return default if value is None else str(value).lower() == "true"
