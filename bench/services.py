"""What every benchmark needs: services on this machine, contenders as processes, rounds in turns, medians."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient

from bench.peers.steps import Task
from local.azurite import ACCOUNT, ACCOUNT_KEY, azurite
from local.stack import KEY, ROOT, emulator

PEERS = ROOT / ".venv-bench" / "bin" / "python"
"""Has the peers. `make bench` creates it."""
IMAGE_BYTES = 200_000
CONTAINER = "bench"


@dataclass(frozen=True)
class Options:
    generations: int
    """In each end-to-end run."""
    rounds: int


@dataclass(frozen=True)
class Services:
    """Azurite and the emulator of the image APIs."""

    task: Task
    """With their addresses. Its other fields are placeholders."""
    connection_string: str

    def work(self, count: int, **fields: Any) -> Task:
        """A task for a contender."""
        return replace(self.task, count=count, **fields)

    def run(self, module: str, task: Task, *, python: str | Path = sys.executable) -> dict[str, Any]:
        """Run a contender in a process of its own. Return its report."""
        command = [python, "-m", module]
        done = subprocess.run(command, input=json.dumps(asdict(task)), capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def services(upstream_seconds: float = 0) -> Generator[Services]:
    """Run both, with models that answer after this time with an image of 200 kB."""
    with azurite() as storage, emulator("--speed", "0") as (endpoint, _):
        service = BlobServiceClient.from_connection_string(storage.connection_string)
        service.get_container_client(CONTAINER).create_container()
        task = Task(
            count=0,
            prompt=f"[bytes:{IMAGE_BYTES}] [seconds:{upstream_seconds}] a lighthouse in fog",
            upstream_seconds=upstream_seconds,
            endpoint=endpoint,
            api_key=KEY,
            blob_endpoint=storage.blob_endpoint,
            queue_endpoint=storage.queue_endpoint,
            account=ACCOUNT,
            account_key=ACCOUNT_KEY,
            container=CONTAINER,
        )
        yield Services(task, storage.connection_string)


def in_turns[T](ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """The results of each way, in rounds: all ways see the same load of the machine."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def spread(values: list[float], digits: int = 2) -> str:
    """The median and, if there is more than one value, the smallest and the largest one."""
    median = f"{statistics.median(values):,.{digits}f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
