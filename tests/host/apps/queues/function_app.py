"""Queue triggers and outputs, for the tests of local.host."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import logging
import time
import typing

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
log = logging.getLogger("queues")


# typing.List: the runtime refuses list[str] here ("has invalid non-type annotation").
@app.route("send", methods=["POST"])
@app.queue_output(arg_name="one", queue_name="%OUT%", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="many", queue_name="%OUT%", connection="AzureWebJobsStorage")
def send(
    req: func.HttpRequest,
    one: func.Out[str],
    many: func.Out[typing.List[str]],  # noqa: UP006
) -> func.HttpResponse:
    one.set("first")
    many.set(["second", "third"])
    if req.params.get("fail"):
        raise ValueError("after the outputs were set")
    return func.HttpResponse(status_code=202)


@app.queue_trigger(arg_name="message", queue_name="%IN%", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="$return", queue_name="%OUT%", connection="AzureWebJobsStorage")
def answer(message: func.QueueMessage) -> str:
    body, count = message.get_body().decode(), message.dequeue_count
    log.info("answer got %s, time %s", body, count)
    if body == "poison":
        raise ValueError("cannot digest this")
    if body == "hang once" and count == 1:
        time.sleep(600)
    known = (message.id, message.insertion_time, message.expiration_time, message.time_next_visible)
    return f"{body} {all(known)} {count}"
