"""Every trigger of the app: its table of contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import azure.functions as func

from imagegen.api import Request, Response, answer
from imagegen.events import log_event
from imagegen.service import service

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route("generations", methods=["POST"])
def start_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _http(answer(_request(req), lambda request: service().api.start_generation(request)))


# These check the token in their URL: clients do not replay a function key when they poll.
@app.route("generations/{id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def get_generation(req: func.HttpRequest) -> func.HttpResponse:
    return _http(answer(_request(req), lambda request: service().api.get_generation(request)))


@app.route("generations/{id}/result", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def get_generation_result(req: func.HttpRequest) -> func.HttpResponse:
    return _http(answer(_request(req), lambda request: service().api.get_generation_result(request)))


@app.timer_trigger("timer", "%POLL_SCHEDULE%", run_on_startup=False, use_monitor=True)
def poll_operations(timer: func.TimerRequest) -> None:
    done = service().poll()
    if done.moves or done.left or timer.past_due:
        log_event(
            "poll.done",
            passes=done.passes,
            moves=done.moves,
            failures=done.failures,
            left=done.left,
            past_due=timer.past_due or None,
        )


def _request(req: func.HttpRequest) -> Request:
    return Request(
        method=req.method or "",
        url=req.url,
        headers={str(name).lower(): str(value) for name, value in cast("Mapping[str, str]", req.headers).items()},
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
