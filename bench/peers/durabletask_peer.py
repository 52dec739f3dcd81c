"""The same work as an orchestration of durabletask, with its backend in memory: https://github.com/microsoft/durabletask-python.

Its state does not survive a crash of the process. Only the image and the outcome are written to storage.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from durabletask import client, worker
from durabletask import task as durable
from durabletask.testing import create_test_backend

from bench.peers.steps import FIRST_POLL, Clock, Steps, Task, new_id, record

task = Task(**json.load(sys.stdin))
steps = Steps(task)
logging.disable(logging.WARNING)


def submit(_: durable.ActivityContext, one: str) -> str:
    location = steps.submit(one)
    clock.accepted[one] = time.perf_counter()
    return location


def poll(_: durable.ActivityContext, location: str) -> list[Any]:
    return list(steps.poll(location))


def copy(_: durable.ActivityContext, work: list[str]) -> None:
    one, url = work
    steps.write(f"{one}/0.png", steps.fetch(url), content_type="image/png")


def call(_: durable.ActivityContext, one: str) -> None:
    steps.write(f"{one}/0.png", steps.call(), content_type="image/png")


def finish(_: durable.ActivityContext, one: str) -> None:
    steps.write(f"done/{one}", record(one, task.prompt), **{"If-None-Match": "*"})
    clock.done[one] = time.perf_counter()


def generate(context: durable.OrchestrationContext, work: list[str]) -> Generator[Any, Any]:
    one = work[0]
    if task.direct:
        yield context.call_activity(call, input=one)
    else:
        location = yield context.call_activity(submit, input=one)
        url, wait = None, FIRST_POLL
        while url is None:
            yield context.create_timer(timedelta(seconds=wait))
            url, wait = yield context.call_activity(poll, input=location)
        yield context.call_activity(copy, input=[one, url])
    yield context.call_activity(finish, input=one)


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
backend = create_test_backend(port=port)
address = f"127.0.0.1:{port}"
with worker.TaskHubGrpcWorker(host_address=address) as hub:
    hub.add_orchestrator(generate)
    for activity in (submit, poll, copy, call, finish):
        hub.add_activity(activity)
    hub.start()
    starter = client.TaskHubGrpcClient(host_address=address)
    clock = Clock()
    started = [starter.schedule_new_orchestration(generate, input=[new_id(), task.prompt]) for _ in range(task.count)]
    for one in started:
        starter.wait_for_orchestration_completion(one, timeout=300)
    print(clock.report(task), flush=True)
    hub.stop()
backend.stop()
