"""Memory for responses with large images.

Each row is a separate process that does the work of the queue function: take messages, call the model, write images.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from bench.services import Options, table
from imagegen.app import build
from imagegen.generation import GenerationRequest
from imagegen.settings import read_settings
from local.azurite import azurite
from local.stack import EVERY_MODEL, ROOT, app_environment, emulator

ROWS = [
    # images per response, bytes of each, concurrent responses
    (0, 0, 0),
    (1, 2_000_000, 1),
    (1, 20_000_000, 1),
    (10, 20_000_000, 1),
    (1, 2_000_000, 8),
    (1, 20_000_000, 4),
    (10, 20_000_000, 4),
    (1, 20_000_000, 8),
]


_NOTE = """One process does the work of the queue function, on the machine that also runs Azurite and the emulator. A
response goes to a temporary file as it arrives. Then one image at a time is in memory: as base64, as bytes, and in the
parser."""
_CONSEQUENCE = """The consequence for `instanceMemoryMB`. The Functions host needs memory too; it is not measured here:

| memory | images of up to 2 MB | images of up to 20 MB |
| --- | --- | --- |
| 512 | `batchSize` 8, as it is | `batchSize` 1, `newBatchThreshold` 0 |
| 2048 | `batchSize` 8, as it is | `batchSize` 8, as it is |

`batchSize` and `newBatchThreshold` are in `host.json`. Their sum is the number of messages that an instance works on at
once. An image of gpt-image has 1 to 4 MB at 1024x1024."""


def section(options: Options) -> str:
    rows: list[list[str]] = []
    idle = 0.0
    with azurite() as storage, emulator("--speed", "0") as (endpoint, _):
        env = app_environment(storage.connection_string, endpoint, IMAGE_DEPLOYMENTS=EVERY_MODEL)
        for row in ROWS[: options.generations]:
            command = [sys.executable, "-m", "bench.memory", *map(str, row)]
            done = subprocess.run(command, input=json.dumps(env), capture_output=True, text=True, check=True, cwd=ROOT)
            peak, seconds = map(float, done.stdout.split())
            idle = idle or peak
            rows.append([*(f"{number:,}" for number in row), f"{peak:.0f}", f"{peak - idle:.0f}", f"{seconds:.1f}"])
    header = ["images in a response", "bytes each", "responses at once", "peak MiB", "above idle", "seconds"]
    return f"{_NOTE}\n\n{table(header, rows)}\n\n{_CONSEQUENCE}"


def measure(images: int, length: int, concurrent: int) -> None:
    """Print the peak MiB of this process and the seconds for a number of concurrent responses."""
    app = build(read_settings(json.load(sys.stdin)))
    started: list[str] = []
    for number in range(concurrent):
        request = GenerationRequest(prompt=f"[bytes:{length}] {number} {time.time()}", n=images, model="gpt-image-2")
        generation = app.generations.start(request, metadata={}, timeout=timedelta(hours=1))
        started.append(generation.id)
    began = time.monotonic()
    with ThreadPoolExecutor(max(1, concurrent)) as pool:
        list(pool.map(partial(app.worker.advance_by_id, has_minutes=True), started))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.monotonic() - began)


if __name__ == "__main__":
    measure(*map(int, sys.argv[1:]))
