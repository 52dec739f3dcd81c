"""The POST handler against the bare submit with two bare writes."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.app import open_app, start
from bench.peers.steps import Steps, new_id, record
from bench.services import Options, in_turns, services, spread, table


def section(options: Options) -> str:
    with services() as running:
        task = running.work(0)
        app, steps = open_app(task), Steps(task)

        def bare() -> None:
            one = new_id()
            etag = steps.write(f"active/{one}", record(one, task.prompt), **{"If-None-Match": "*"})
            location = steps.submit(one)
            steps.write(f"active/{one}", record(one, task.prompt, location=location), **{"If-Match": etag})

        def repeat(way: Callable[[], object]) -> tuple[float, float]:
            count = min(100, options.generations)
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                way()
            return (time.perf_counter() - began) * 1000 / count, (time.process_time() - cpu) * 1000 / count

        start(app, task)  # creates the container
        bare()
        ways = {"app": lambda: repeat(lambda: start(app, task)), "bare": lambda: repeat(bare)}
        found = in_turns(ways, options.rounds)
    ratios = [ours[0] / bare[0] for ours, bare in zip(found["app"], found["bare"], strict=True)]
    rows = [
        [name, spread([one[0] for one in times], 1), spread([one[1] for one in times], 1)]
        for name, times in found.items()
    ]
    text = """The POST handler for a polled model, in process, one request after the other, against the bare submit and
two bare writes of `requests`."""
    return f"{text}\n\n{table(['', 'ms', 'CPU ms'], rows)}\n\nRatio: {spread(ratios)}."
