"""Generations per second, lag and CPU: the app, the bound, and the peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.services import PEERS, Options, Services, in_turns, percentile, services, spread, table

_NOTE = """{count} generations start at once; each makes one image of 200 kB. Every contender is one process. *Bound* is
the least work that is safe after a crash, with plain `requests`: five durable writes, nothing read, nothing listed
(`bench/peers/bound.py`). The peers run with their defaults in an environment of their own. `durabletask` keeps its
state in memory and loses it in a crash. A lag is the time from the moment at which a poll could find the result to the
end."""


def section(options: Options) -> str:
    parts = [_NOTE.format(count=options.generations)]
    for seconds in (0, 3):
        with services(seconds) as running:
            parts += [f"### Polled model, {seconds} s", _compare(running, options)]
    with services() as running:
        parts += ["### Direct model, 0 s", _compare(running, options, direct=True)]
    return "\n\n".join(parts)


def _compare(running: Services, options: Options, *, direct: bool = False) -> str:
    ways = _contenders(running, running.work(options.generations, direct=direct))
    for way in _contenders(running, running.work(2, direct=direct)).values():
        way()  # warms up the services
    found = in_turns(ways, options.rounds)
    bound = [report["seconds"] for report in found["bound"]]
    rows: list[list[str]] = []
    for name, reports in found.items():
        rates = [options.generations / report["seconds"] for report in reports]
        ratios = [least / report["seconds"] for least, report in zip(bound, reports, strict=True)]
        cpu = statistics.median(report["cpu"] for report in reports)
        rows.append([name, spread(rates, 1), spread(ratios), *_lags(reports), f"{cpu:.1f}"])
    header = ["", "per second", "of the bound", "lag p50, s", "lag p95, s", f"CPU s per {options.generations}"]
    return table(header, rows)


def _lags(reports: list[dict[str, Any]]) -> list[str]:
    if not reports[0]["lags"]:
        return ["", ""]
    return [spread([percentile(report["lags"], part) for report in reports]) for part in (0.5, 0.95)]


def _contenders(running: Services, task: Any) -> dict[str, Callable[[], dict[str, Any]]]:
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "app": partial(running.run, "bench.app", task),
        "bound": partial(running.run, "bench.peers.bound", task),
    }
    if PEERS.exists():
        for name in ("dbos", "durabletask"):
            ways[name] = partial(running.run, f"bench.peers.{name}_peer", task, python=PEERS)
    return ways
