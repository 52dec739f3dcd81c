"""Every trigger of the app: the table of contents.

Azure tries routes in the alphabetical order of the function names, so ``unknown_route`` must stay the last name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

import azure.functions as func

from imagegen.app import App, current_app
from imagegen.errors import StorageUnavailableError
from imagegen.events import log_event
from imagegen.lifecycle.poller import SlotSummary
from imagegen.storage.work_queue import CALLS_QUEUE, POLLS_QUEUE, SLOTS_QUEUE
from imagegen.web.http import Handler, Request, Response, answer
from imagegen.web.unmatched import unmatched

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

# The host lets anyone call these routes. The app itself checks the token in the URL, because clients do not send a
# function key when they poll, and the api-key header of the retired API.
ANONYMOUS = func.AuthLevel.ANONYMOUS
CHECKED_BY_APP: Final[Mapping[str, Callable[[App], Handler]]] = {
    "getGeneration": lambda app: app.routes.get_generation,
    "getGenerationResult": lambda app: app.routes.get_generation_result,
    "cancelGeneration": lambda app: app.routes.cancel_generation,
    "deleteGeneration": lambda app: app.routes.delete_generation,
    "submitOldGeneration": lambda app: app.legacy.submit,
    "getOldOperation": lambda app: app.legacy.get_operation,
    "deleteOldOperation": lambda app: app.legacy.delete_operation,
    "getHealth": lambda app: app.health.get,
    "getOpenApi": lambda app: app.openapi.get,
}
"""Handlers of the anonymous routes, by operation id. ``unknown_route`` calls them too."""


@app.route("generations", methods=["POST"])
def start_generation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, lambda app: app.routes.start_generation)


@app.route("generations", methods=["GET"])
def list_generations(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, lambda app: app.routes.list_generations)


@app.route("generations/{id}", methods=["GET"], auth_level=ANONYMOUS)
def get_generation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["getGeneration"])


@app.route("generations/{id}/result", methods=["GET"], auth_level=ANONYMOUS)
def get_generation_result(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["getGenerationResult"])


@app.route("generations/{id}/cancel", methods=["POST"], auth_level=ANONYMOUS)
def cancel_generation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["cancelGeneration"])


@app.route("generations/{id}", methods=["DELETE"], auth_level=ANONYMOUS)
def delete_generation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["deleteGeneration"])


@app.route("openai/images/generations:submit", methods=["POST"], auth_level=ANONYMOUS)
def legacy_submit(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["submitOldGeneration"])


@app.route("openai/operations/images/{id}", methods=["GET"], auth_level=ANONYMOUS)
def legacy_get_operation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["getOldOperation"])


@app.route("openai/operations/images/{id}", methods=["DELETE"], auth_level=ANONYMOUS)
def legacy_delete_operation(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["deleteOldOperation"])


@app.route("models", methods=["GET"])
def list_models(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, lambda app: app.models.get)


@app.route("health", methods=["GET", "HEAD"], auth_level=ANONYMOUS)
def get_health(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["getHealth"])


@app.route("openapi.json", methods=["GET", "HEAD"], auth_level=ANONYMOUS)
def get_openapi(req: func.HttpRequest) -> func.HttpResponse:
    return respond(req, CHECKED_BY_APP["getOpenApi"])


@app.route("{*path}", auth_level=ANONYMOUS)
def unknown_route(req: func.HttpRequest) -> func.HttpResponse:
    handlers = {name: partial(_handler, find) for name, find in CHECKED_BY_APP.items()}
    handle = partial(unmatched, handlers=handlers, settings=lambda: current_app().settings)
    return _to_azure(answer(_from_azure(req), handle))


@app.timer_trigger("timer", "%POLL_SCHEDULE%", run_on_startup=False, use_monitor=True)
def poll_operations(timer: func.TimerRequest) -> None:
    past_due = timer.past_due or None
    try:
        done = current_app().poll()
    except StorageUnavailableError as error:
        log_event("poll.failed", level=logging.WARNING, doing=str(error), past_due=past_due)
        # A new error without a chain: Azure logs the stack of what a function raises, and the event has the cause.
        raise StorageUnavailableError("no listing of this slot succeeded; the next tick tries again") from None
    if done.moves or done.left or past_due:
        log_slot(done, past_due=past_due)


@app.queue_trigger("message", queue_name=SLOTS_QUEUE, connection="AzureWebJobsStorage")  # pyright: ignore[reportUnknownMemberType]
def poll_early(message: func.QueueMessage) -> None:  # noqa: ARG001 - any message starts a slot
    try:
        done = current_app().poll_early()
    except StorageUnavailableError as error:
        # The slot has lasted until the timer's next tick: a second delivery of the message would be of no use.
        log_event("poll.failed", level=logging.WARNING, doing=str(error), early=True)
        return
    if done:
        log_slot(done, early=True)


def log_slot(done: SlotSummary, *, past_due: bool | None = None, early: bool | None = None) -> None:
    log_event(
        "poll.done",
        passes=done.passes,
        moves=done.moves,
        failures=done.failures,
        passed_on=done.passed_on or None,
        turns=done.turns or None,
        left=done.left,
        oldest_seconds=done.oldest_seconds,
        past_due=past_due,
        early=early,
    )


@app.queue_trigger("message", queue_name=CALLS_QUEUE, connection="AzureWebJobsStorage")  # pyright: ignore[reportUnknownMemberType]
def advance_generations(message: func.QueueMessage) -> None:
    work(message, current_app().call)


@app.queue_trigger("message", queue_name=POLLS_QUEUE, connection="AzureWebJobsStorage")  # pyright: ignore[reportUnknownMemberType]
def poll_some_operations(message: func.QueueMessage) -> None:
    work(message, current_app().poll_some)


def work(message: func.QueueMessage, carry_out: Callable[[bytes], None]) -> None:
    """Carry out a message. Without storage, it returns to the queue."""
    try:
        carry_out(message.get_body())
    except StorageUnavailableError as error:
        log_event("work.returned", level=logging.WARNING, doing=str(error), attempt=message.dequeue_count)
        # Only a function that raises returns its message to the queue.
        raise StorageUnavailableError("storage does not answer; the message returns to the queue") from None


def respond(req: func.HttpRequest, handler: Callable[[App], Handler]) -> func.HttpResponse:
    """Answer with this handler of the app. Invalid settings become an answer too, not an exception."""
    return _to_azure(answer(_from_azure(req), lambda request: handler(current_app())(request)))


def _handler(find: Callable[[App], Handler]) -> Handler:
    return find(current_app())


def _from_azure(req: func.HttpRequest) -> Request:
    headers = cast("Mapping[str, str]", req.headers)
    return Request(
        method=req.method or "",
        url=req.url,
        headers={name.lower(): value for name, value in headers.items()},
        query=req.params,
        route=req.route_params,
        body=req.get_body(),
    )


def _to_azure(response: Response) -> func.HttpResponse:
    return func.HttpResponse(
        response.content(),
        status_code=response.status,
        headers=dict(response.headers),
        mimetype="application/json",
        charset="utf-8",
    )
