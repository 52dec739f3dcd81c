"""The host: one function app with everything that invokes its functions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from functools import partial

import uvicorn
from azure.core.exceptions import AzureError
from starlette.responses import Response

from local.host.bindings import HttpTrigger, QueueTrigger, TimerTrigger
from local.host.http import HttpFunction
from local.host.keys import KeyCheck
from local.host.listeners import Listener, Stop
from local.host.outages import Outage, first_line, is_refusal, retry
from local.host.queues import QueueListener
from local.host.routes import FunctionRoute, HttpRouter, function_routes
from local.host.runtime import Worker
from local.host.settings import ConfigurationError, HostSettings
from local.host.timers import TimerListener


class Host:
    def __init__(
        self, worker: Worker, settings: HostSettings, address: str, *, function_key: str | None = None
    ) -> None:
        """`function_key` is what functions with the level FUNCTION require. None: nothing."""
        self.base_url = "/".join(filter(None, (address, settings.route_prefix)))
        self.descriptions: list[str] = []
        """A line for each function: its name and what invokes it."""
        self._listeners: list[Listener] = []
        routes: list[FunctionRoute] = []
        for function in worker.functions:
            enabled = not settings.is_disabled(function.name)
            match function.trigger:
                case HttpTrigger(route=route, methods=methods) as trigger:
                    # A disabled function keeps its route, and checks the key first.
                    app = HttpFunction(function, worker) if enabled else Response(status_code=404)
                    if function_key and trigger.auth_level == "FUNCTION":
                        app = KeyCheck(app, function_key)
                    routes += function_routes(function.name, route, app, prefix=settings.route_prefix, methods=methods)
                    allowed = ",".join(methods) or "all"
                    description = f"{function.name}: [{allowed}] {self.base_url}/{route.strip('/')}"
                case TimerTrigger() as trigger:
                    description = self._listen(TimerListener(function, trigger, settings, worker), enabled=enabled)
                case QueueTrigger() as trigger:
                    description = self._listen(QueueListener(function, trigger, settings, worker), enabled=enabled)
            self.descriptions.append(description if enabled else f"{description} (disabled)")
        self._router = HttpRouter(routes)

    def _listen(self, listener: Listener, *, enabled: bool) -> str:
        if enabled:
            self._listeners.append(listener)
        return listener.description

    async def prepare(self, stop: Stop) -> None:
        """Create missing containers and queues. Wait for storage until `stop`.

        Raises
        ------
        ConfigurationError
            Storage refuses the host, or the connection string cannot work.
        """
        outage = Outage("containers and queues of the functions. Start Azurite if it does not run")
        for listener in self._listeners:
            if stop.is_set():
                return
            await retry(partial(_prepare, listener), outage, stop)

    async def serve(self, listener: socket.socket, stop: Stop) -> None:
        """Invoke functions until `stop`. Return when the last invocation has ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_http(listener, stop))
            for trigger in self._listeners:
                group.create_task(trigger.run(stop))

    async def _serve_http(self, listener: socket.socket, stop: Stop) -> None:
        config = uvicorn.Config(
            self._router,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        server = _Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await stop.wait()
            server.should_exit = True


def _prepare(listener: Listener) -> None:
    try:
        listener.prepare()
    except AzureError as error:
        if is_refusal(error):
            raise ConfigurationError(
                f"the host cannot use storage: {first_line(error)}\n"
                "Set AzureWebJobsStorage to the connection string of Azurite or of a storage account."
            ) from None
        raise


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the host has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
