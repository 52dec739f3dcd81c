"""A queue trigger, for the tests of local.host. It records what it received in the queue OUT."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import logging
import os
import time

import azure.functions as func
from azure.storage.queue import QueueClient

app = func.FunctionApp()
log = logging.getLogger("queues")


@app.queue_trigger(arg_name="message", queue_name="%IN%", connection="AzureWebJobsStorage")
def answer(message: func.QueueMessage) -> None:
    body, count = message.get_body().decode(), message.dequeue_count
    log.info("answer received %s, attempt %s", body, count)
    if body == "poison":
        raise ValueError("cannot process this")
    if body == "hang once" and count == 1:
        time.sleep(600)
    known = (message.id, message.insertion_time, message.expiration_time, message.time_next_visible)
    connection = os.environ["AzureWebJobsStorage"]  # noqa: SIM112 - Azure's name
    with QueueClient.from_connection_string(connection, os.environ["OUT"]) as out:
        out.send_message(f"{body} {all(known)} {count}")
