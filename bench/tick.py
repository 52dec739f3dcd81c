"""The cost of a tick of the timer that finds no work."""

from __future__ import annotations

import time
from datetime import timedelta

from bench.app import open_app
from bench.services import Options, services, spread
from bench.wire import Wire
from imagegen.app import utc_now


def section(options: Options) -> str:
    with services() as running:
        app = open_app(running.work(0))

        def tick() -> None:
            app.poller.run(utc_now() + timedelta(seconds=50))

        tick()  # opens the connection
        with Wire() as wire:
            tick()
        times: list[float] = []
        cpu: list[float] = []
        for _ in range(10 * options.rounds):
            began, used = time.perf_counter(), time.process_time()
            tick()
            times.append((time.perf_counter() - began) * 1000)
            cpu.append((time.process_time() - used) * 1000)
    made = ", ".join(f"{count} {name}" for name, count in wire.transactions.items())
    return f"A tick without active generations: {spread(times, 1)} ms, CPU {spread(cpu, 1)} ms; storage: {made}."
