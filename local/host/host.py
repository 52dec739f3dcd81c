"""The host: one function app, its triggers and its HTTP server, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import uvicorn
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import ContainerClient

from local.host.http import HttpTriggers
from local.host.invocations import Invoker
from local.host.outputs import QueueOutputs
from local.host.queue_triggers import QueueTrigger
from local.host.queues import Message
from local.host.routes import Route, parse
from local.host.settings import ConfigurationError, HostSettings
from local.host.storage import CLIENT_OPTIONS
from local.host.timers import TimerTrigger

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from local.host.http import Manual
    from local.host.runtime import Function, Worker
    from local.host.stop import Stop

GRACE = 10
"""Seconds that running functions have to end after the host was told to stop."""


class Host:
    """A function app with everything that can start its functions."""

    def __init__(self, worker: Worker, settings: HostSettings) -> None:
        self._settings = settings
        by_type = _by_trigger(worker.functions)
        outputs = QueueOutputs(worker.functions, settings)
        self._outputs = outputs
        self.invoker = Invoker(worker, outputs)
        self._routes = {function: _route(function, settings) for function in by_type["httpTrigger"]}
        # Only timers and queue triggers need storage, so an app of HTTP functions runs without.
        self._container = _container(settings) if by_type["timerTrigger"] or by_type["queueTrigger"] else None
        self._timers = [
            TimerTrigger(function, settings, self._container, self.invoker)
            for function in by_type["timerTrigger"]
            if self._container
        ]
        self._queues = [QueueTrigger(function, settings, self.invoker) for function in by_type["queueTrigger"]]

    async def prepare(self) -> None:
        """Create what is missing in storage.

        Raises
        ------
        ConfigurationError
            Storage does not answer.
        """
        try:
            await asyncio.to_thread(self._prepare)
        except AzureError as error:
            raise ConfigurationError(
                f"storage cannot be used: {str(error).splitlines()[0]}\n"
                "Is Azurite running, and AzureWebJobsStorage its connection string?"
            ) from error

    def describe(self, address: str) -> list[str]:
        """Return a line for each function: its name and what starts it."""
        lines = [f"  {route.function}: {_methods(route)} {address}/{route.template}" for route in self._routes.values()]
        lines += [f"  {timer.function.name}: timer {timer.schedule.expression}" for timer in self._timers]
        lines += [f"  {trigger.function.name}: queue {trigger.queue.name}" for trigger in self._queues]
        return lines

    async def serve(self, listener: socket.socket, stop: Stop) -> None:
        """Run every trigger until told to stop and the last running function has ended."""
        server = _Server(
            uvicorn.Config(
                HttpTriggers(self._routes, self.invoker, manual=self._manual()),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # Longer than the host waits, which knows how to leave threads behind.
                timeout_graceful_shutdown=GRACE + 5,
            )
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_http(server, listener, stop))
            for timer in self._timers:
                group.create_task(timer.run(stop))
            for trigger in self._queues:
                group.create_task(trigger.listen(stop))

    async def _serve_http(self, server: _Server, listener: socket.socket, stop: Stop) -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        await serving

    def _manual(self) -> dict[str, Manual]:
        return {
            **{timer.function.name: _run_timer(timer) for timer in self._timers},
            **{trigger.function.name: _run_queue(trigger) for trigger in self._queues},
        }

    def _prepare(self) -> None:
        if self._container is not None:
            with contextlib.suppress(ResourceExistsError):
                self._container.create_container()
        for trigger in self._queues:
            trigger.queue.create()
        self._outputs.create()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the host has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _by_trigger(functions: Sequence[Function]) -> dict[str, list[Function]]:
    by_type: dict[str, list[Function]] = {"httpTrigger": [], "timerTrigger": [], "queueTrigger": []}
    for function in functions:
        by_type[function.trigger.type].append(function)
    return by_type


def _route(function: Function, settings: HostSettings) -> Route:
    values: Any = function.trigger.values
    return parse(
        function.name,
        values.get("route") or function.name,
        prefix=settings.route_prefix,
        methods=values.get("methods") or None,
    )


def _methods(route: Route) -> str:
    return f"[{','.join(sorted(route.methods)) if route.methods else 'all'}]"


def _container(settings: HostSettings) -> ContainerClient:
    connection = settings.connection_string("AzureWebJobsStorage", wanted_by="timer and queue triggers")
    return ContainerClient.from_connection_string(connection, "azure-webjobs-hosts", **CLIENT_OPTIONS)


def _run_timer(timer: TimerTrigger) -> Manual:
    async def run(_: str) -> None:
        await timer.invoke(is_past_due=False, status=None, reason="by hand")

    return run


def _run_queue(trigger: QueueTrigger) -> Manual:
    async def run(text: str) -> None:
        now = datetime.now(UTC)
        message = Message(
            id=str(uuid.uuid4()),
            pop_receipt="",
            content=text,
            dequeue_count=1,
            inserted_on=now,
            expires_on=now + timedelta(days=7),
            next_visible_on=now,
        )
        await trigger.by_message(message, text.encode(), reason="by hand")

    return run
