"""The application: the APIs, the emulator's own routes, and what every request has in common."""

import logging
import time

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.emulator.calls import Calls
from local.emulator.dalle import Dalle
from local.emulator.deployments import DeploymentsApi
from local.emulator.emulator import Api, Emulator
from local.emulator.errors import json_answer, resource_not_found
from local.emulator.flux import FluxApi
from local.emulator.gpt_image import GptImageApi
from local.emulator.images import Images
from local.emulator.mai import MaiApi
from local.emulator.models import ModelsApi
from local.emulator.operations import OperationsApi

log = logging.getLogger("local.emulator")


def create_app(emulator: Emulator) -> ASGIApp:
    """Put the emulator together."""
    images = Images(emulator)
    calls = Calls(emulator, images)
    gpt_images = GptImageApi(emulator, calls)
    apis: list[Api] = [
        images,
        calls,
        OperationsApi(emulator, images),
        gpt_images,
        DeploymentsApi(emulator, gpt_images, Dalle(calls)),
        FluxApi(emulator, calls),
        MaiApi(emulator, calls),
        ModelsApi(emulator),
    ]
    routes = [route for api in apis for route in api.routes()] + _own_routes(emulator, apis)
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found})
    app.router.redirect_slashes = False
    return Envelope(app, emulator)


def _own_routes(emulator: Emulator, apis: list[Api]) -> list[Route]:
    async def stats(_request: Request) -> Response:
        return json_answer(emulator.stats.shown())

    async def reset(_request: Request) -> Response:
        emulator.reset()
        for api in apis:
            api.clear()
        return Response(status_code=204)

    return [Route("/_emulator/stats", stats), Route("/_emulator/reset", reset, methods=["POST"])]


async def _not_found(_request: Request, _error: Exception) -> Response:
    return resource_not_found().answer()


class Envelope:
    """Gives every answer its ``x-ms-request-id`` and every request its line in the log, without its query."""

    def __init__(self, app: ASGIApp, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = "closed"  # unless an answer is sent

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                MutableHeaders(scope=message).setdefault("x-ms-request-id", self._emulator.new_id())
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except ClientDisconnect:
            status = "left"
        except Exception:
            log.exception("This is a defect of the emulator.")
            raise
        finally:
            path: bytes = scope["raw_path"]
            elapsed = round((time.perf_counter() - started) * 1000)
            log.info("%s %s %s %d ms", scope["method"], path.decode("latin-1"), status, elapsed)
