"""The web application: all APIs, the emulator's own routes, request ids and the log."""

import logging
import time

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.emulator import deployment_route, flux, gpt_image, mai, model_list
from local.emulator.direct import DirectCalls
from local.emulator.emulator import Emulator
from local.emulator.errors import ServiceError, StorageError, json_response, resource_not_found
from local.emulator.image_storage import ImageStorage
from local.emulator.operations_api import OperationsApi

log = logging.getLogger("local.emulator")


def create_app(emulator: Emulator) -> ASGIApp:
    images = ImageStorage(emulator)
    calls = DirectCalls(emulator, images)
    operations = OperationsApi(emulator, images)

    async def stats(_request: Request) -> Response:
        return json_response(emulator.stats.as_json())

    async def reset(_request: Request) -> Response:
        for state in (emulator, images, calls, operations):
            state.reset()
        return Response(status_code=204)

    async def refuse(_request: Request, error: Exception) -> Response:
        match error:
            case ServiceError():
                return error.response()
            case StorageError():
                return error.response(emulator.new_id())
            case _:  # Starlette's own: no such route or method
                return resource_not_found().response()

    app = Starlette(
        routes=[
            *operations.routes(),
            *images.routes(),
            *gpt_image.routes(emulator, calls),
            *deployment_route.routes(emulator, calls),
            *flux.routes(emulator, calls),
            *mai.routes(emulator, calls),
            *model_list.routes(emulator),
            Route("/_emulator/stats", stats),
            Route("/_emulator/reset", reset, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((ServiceError, StorageError, HTTPException), refuse),
    )
    app.router.redirect_slashes = False
    return RequestLog(app, emulator)


class RequestLog:
    """Logs each request without its query, and adds ``x-ms-request-id`` to each response."""

    def __init__(self, app: ASGIApp, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = "closed"  # until a response starts

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                MutableHeaders(scope=message).setdefault("x-ms-request-id", self._emulator.new_id())
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = "left"
        except Exception:
            log.exception("Defect of the emulator")
            raise
        finally:
            path: bytes = scope["raw_path"]
            elapsed = round((time.perf_counter() - started) * 1000)
            log.info("%s %s %s %d ms", scope["method"], path.decode("latin-1"), status, elapsed)
