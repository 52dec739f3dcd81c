"""The app as a contender: its POST handler, and its poller or worker, in one process."""

from __future__ import annotations

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from bench.peers.steps import Clock, Task
from imagegen.app import App, build, utc_now
from imagegen.settings import read_settings
from imagegen.web.http import Request, answer
from local.stack import app_environment

CALLERS = 16
"""Requests that the process serves at once: PYTHON_THREADPOOL_THREAD_COUNT in Azure."""
CALLS = 8
"""Messages that an instance works on at once: `batchSize` of host.json."""
MODELS = json.dumps([{"name": "operations", "api": "operations"}, {"name": "FLUX.2-pro", "api": "flux"}])


def open_app(task: Task, **settings: str) -> App:
    name, key, endpoint = task.account, task.account_key, task.blob_endpoint
    queues = task.queue_endpoint
    storage = f"AccountName={name};AccountKey={key};BlobEndpoint={endpoint};QueueEndpoint={queues};"
    environment = app_environment(storage, task.endpoint, IMAGE_DEPLOYMENTS=MODELS, **settings)
    environment["MAX_ACTIVE_GENERATIONS"] = "100000"
    return build(read_settings(environment))


def start(app: App, task: Task, _: object = None) -> str:
    """POST a generation. Return its id."""
    model = "FLUX.2-pro" if task.direct else "operations"
    body = json.dumps({"prompt": task.prompt, "model": model, "size": "256x256"}).encode()
    response = answer(
        Request("POST", "http://localhost/api/generations", {}, {}, {}, body), app.routes.start_generation
    )
    assert response.status == 202
    assert response.body
    return response.body["id"]


class _Times(logging.Handler):
    """Takes the times of each generation from the log events of the app."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        event, _, fields = record.getMessage().partition(" id=")
        if event == "upstream.submitted":
            self._clock.accepted[fields[:36]] = time.perf_counter()
        elif event == "generation.succeeded":
            self._clock.done[fields[:36]] = time.perf_counter()


def run(task: Task) -> str:
    app = open_app(task)
    clock = Clock()
    log = logging.getLogger("imagegen")
    log.addHandler(_Times(clock))
    log.setLevel(logging.INFO)
    log.propagate = False
    with ThreadPoolExecutor(CALLERS) as callers, ThreadPoolExecutor(CALLS) as workers:
        started = callers.map(partial(start, app, task), range(task.count))
        if task.direct:
            list(workers.map(partial(app.worker.advance_by_id, has_minutes=True), started))
        while len(clock.done) < task.count:
            app.poller.run(utc_now() + timedelta(seconds=60))
            time.sleep(0.01)
    return clock.report(task)


if __name__ == "__main__":
    print(run(Task(**json.load(sys.stdin))))
