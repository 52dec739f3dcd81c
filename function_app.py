"""Every trigger of the app: its table of contents.

Azure tries routes in the alphabetical order of their functions' names, so ``unknown_route`` must stay the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import azure.functions as func

from imagegen.app import Service, service
from imagegen.events import log_event
from imagegen.storage.work_queue import QUEUE
from imagegen.web import routes as api
from imagegen.web.http import Request, Response, answer

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

# The routes that are anonymous to the host check what they are given themselves: the token in the URL, because clients
# do not replay a function key when they poll; or an api-key, as the retired API did.
ANONYMOUS = func.AuthLevel.ANONYMOUS


@app.route("generations", methods=["POST"])
def start_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.start_generation(request))


@app.route("generations", methods=["GET"])
def list_generations(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.list_generations(request))


@app.route("generations/{id}", methods=["GET"], auth_level=ANONYMOUS)
def get_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.get_generation(request))


@app.route("generations/{id}/result", methods=["GET"], auth_level=ANONYMOUS)
def get_generation_result(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.get_generation_result(request))


@app.route("generations/{id}/cancel", methods=["POST"], auth_level=ANONYMOUS)
def cancel_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.cancel_generation(request))


@app.route("generations/{id}", methods=["DELETE"], auth_level=ANONYMOUS)
def delete_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.routes.delete_generation(request))


@app.route("openai/images/generations:submit", methods=["POST"], auth_level=ANONYMOUS)
def legacy_submit(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.legacy.submit(request))


@app.route("openai/operations/images/{id}", methods=["GET"], auth_level=ANONYMOUS)
def legacy_get_operation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.legacy.get_operation(request))


@app.route("openai/operations/images/{id}", methods=["DELETE"], auth_level=ANONYMOUS)
def legacy_delete_operation(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.legacy.delete_operation(request))


@app.route("models", methods=["GET"])
def list_models(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.models.get(request))


@app.route("health", methods=["GET"], auth_level=ANONYMOUS)
def get_health(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.health.get(request))


@app.route("openapi.json", methods=["GET"], auth_level=ANONYMOUS)
def get_openapi(req: func.HttpRequest) -> func.HttpResponse:
    return _answer(req, lambda app, request: app.openapi.get(request))


@app.route("{*path}", auth_level=ANONYMOUS)
def unknown_route(req: func.HttpRequest) -> func.HttpResponse:
    return _http(answer(_request(req), api.unknown_route))


@app.timer_trigger("timer", "%POLL_SCHEDULE%", run_on_startup=False, use_monitor=True)
def poll_operations(timer: func.TimerRequest) -> None:
    done = service().poll()
    if done.moves or done.left or timer.past_due:
        log_event(
            "poll.done",
            passes=done.passes,
            moves=done.moves,
            failures=done.failures,
            passed_on=done.passed_on or None,
            left=done.left,
            oldest_seconds=done.oldest_seconds,
            past_due=timer.past_due or None,
        )


@app.queue_trigger("message", queue_name=QUEUE, connection="AzureWebJobsStorage")  # pyright: ignore[reportUnknownMemberType]
def advance_generations(message: func.QueueMessage) -> None:
    service().work(message.get_body())


def _answer(req: func.HttpRequest, handle: Callable[[Service, Request], Response]) -> func.HttpResponse:
    return _http(answer(_request(req), lambda request: handle(service(), request)))


def _request(req: func.HttpRequest) -> Request:
    headers = cast("Mapping[str, str]", req.headers)
    return Request(
        method=req.method or "",
        url=req.url,
        headers={name.lower(): value for name, value in headers.items()},
        query=req.params,
        route=req.route_params,
        body=req.get_body(),
    )


def _http(response: Response) -> func.HttpResponse:
    return func.HttpResponse(
        response.content(),
        status_code=response.status,
        headers=dict(response.headers),
        mimetype="application/json",
        charset="utf-8",
    )
