"""Run benchmarks, print their results and write them to docs/benchmarks.md: ``python -m bench [name ...]``.

A run of some benchmarks replaces their sections and keeps the others.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import burst, cold_start, copy, cost, early_tick, end_to_end, listing, memory, start, tick
from bench.services import PEERS, Options
from local.stack import ROOT

SECTIONS: dict[str, tuple[str, Callable[[Options], str]]] = {
    "start": ("Start of a generation", start.section),
    "end_to_end": ("End to end", end_to_end.section),
    "cost": ("Requests and costs of a generation", cost.section),
    "tick": ("An idle tick", tick.section),
    "early_tick": ("Early ticks", early_tick.section),
    "cold_start": ("Cold start", cold_start.section),
    "copy": ("Copy of an image", copy.section),
    "memory": ("Memory", memory.section),
    "burst": ("Bursts", burst.section),
    "listing": ("Listing", listing.section),
}
INTRODUCTION = """# Benchmarks

`make bench` measures all of this and writes this page. Every result is a ratio within one run: the ways that a table
compares take turns, so that they see the same machine. Each number is the median, with the smallest and the largest in
brackets."""
_SECTION = re.compile(r"^## .*: `(\w+)`\n\n((?:(?!^## ).*\n?)*)", re.MULTILINE)


def main() -> None:
    options = _options()
    results = _read(options.output)
    for name in options.names or SECTIONS:
        title, section = SECTIONS[name]
        found = f"{_moment()}\n\n{section(Options(options.generations, options.rounds))}"
        print(f"## {title}: `{name}`\n\n{found}\n", flush=True)
        results[name] = found
        _write(options.output, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", choices=[*SECTIONS, []], help=", ".join(SECTIONS))
    parser.add_argument("--generations", type=int, default=200, help="in each end-to-end run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    return parser.parse_args()


def _read(path: Path) -> dict[str, str]:
    """The sections of the page, by name."""
    text = path.read_text() if path.exists() else ""
    return {found[1]: found[2].strip() for found in _SECTION.finditer(text)}


def _write(path: Path, results: dict[str, str]) -> None:
    sections = [f"## {title}: `{name}`\n\n{results[name]}" for name, (title, _) in SECTIONS.items() if name in results]
    path.write_text("\n\n".join([INTRODUCTION, _machine(), *sections]) + "\n")


def _moment() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}, load of the machine before: {os.getloadavg()[0]:.1f}."


def _machine() -> str:
    """What the newest run used."""
    names = ["azure-storage-blob", "requests", "pydantic"]
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
    if PEERS.exists():
        code = "from importlib.metadata import version as v; print(v('dbos'), v('durabletask'))"
        found = subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        versions += [f"dbos {found[0]}", f"durabletask {found[1]}"]
    return f"Machine: {os.cpu_count()} cores, {platform.machine()}; {', '.join(versions)}."


if __name__ == "__main__":
    sys.exit(main())
