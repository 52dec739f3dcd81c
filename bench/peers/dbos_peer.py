"""The same work as a DBOS workflow, with its state in SQLite: https://docs.dbos.dev/python.

The steps are what DBOS records. So only the image and the outcome, which clients read, are written to storage.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time

if sqlite3.sqlite_version_info < (3, 42):  # DBOS needs unixepoch('subsec')
    sys.modules["sqlite3"] = __import__("pysqlite3")

from dbos import DBOS, DBOSConfig

from bench.peers.steps import FIRST_POLL, Clock, Steps, Task, new_id, record

task = Task(**json.load(sys.stdin))
steps = Steps(task)
folder = tempfile.TemporaryDirectory()
config: DBOSConfig = {
    "name": "bench",
    "system_database_url": f"sqlite:///{folder.name}/bench.sqlite",
    "log_level": "ERROR",
    "run_admin_server": False,
}
DBOS(config=config)


@DBOS.step()
def submit(one: str) -> str:
    return steps.submit(one)


@DBOS.step()
def poll(location: str) -> tuple[str | None, float]:
    return steps.poll(location)


@DBOS.step()
def copy(one: str, url: str) -> None:
    steps.write(f"{one}/0.png", steps.fetch(url), content_type="image/png")


@DBOS.step()
def call(one: str) -> None:
    steps.write(f"{one}/0.png", steps.call(), content_type="image/png")


@DBOS.step()
def finish(one: str) -> None:
    steps.write(f"done/{one}", record(one, task.prompt), **{"If-None-Match": "*"})


@DBOS.workflow()
def generate(one: str, prompt: str) -> None:  # noqa: ARG001 - the input that DBOS keeps
    location = submit(one)
    clock.accepted[one] = time.perf_counter()
    wait = FIRST_POLL
    while True:
        DBOS.sleep(wait)
        url, wait = poll(location)
        if url is not None:
            break
    copy(one, url)
    finish(one)
    clock.done[one] = time.perf_counter()


@DBOS.workflow()
def generate_direct(one: str, prompt: str) -> None:  # noqa: ARG001 - the input that DBOS keeps
    call(one)
    finish(one)
    clock.done[one] = time.perf_counter()


DBOS.launch()
clock = Clock()
workflow = generate_direct if task.direct else generate
for handle in [DBOS.start_workflow(workflow, new_id(), task.prompt) for _ in range(task.count)]:
    handle.get_result()
print(clock.report(task))
DBOS.destroy()
