"""The copy of an image into storage, against a bare download and upload; and its memory by size of the image."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta

from bench.app import open_app
from bench.peers.steps import Steps, Task, new_id
from bench.services import Options, Services, in_turns, services, spread, table
from imagegen.app import utc_now
from imagegen.storage.clients import open_storage
from imagegen.storage.download import Downloader
from imagegen.storage.images import BlobImages
from imagegen.upstream.protocol import ImageUrl
from local.stack import ROOT

SIZES = (200_000, 2_000_000, 20_000_000)
COPIES = 10


def section(options: Options) -> str:
    rows: list[list[str]] = []
    with services() as running:
        peaks = [_measure_apart(running, "memory", 0)["peak"]]
        for size in SIZES:
            found = in_turns({way: _way(running, way, size) for way in ("app", "bare")}, options.rounds)
            speeds = {way: [one["speed"] for one in reports] for way, reports in found.items()}
            ratios = [ours / bare for ours, bare in zip(speeds["app"], speeds["bare"], strict=True)]
            peak = _measure_apart(running, "memory", size)["peak"] - peaks[0]
            rows.append(
                [f"{size:,}", spread(speeds["app"], 1), spread(speeds["bare"], 1), spread(ratios), f"{peak:.0f}"]
            )
    header = ["bytes", "app, MB/s", "bare, MB/s", "ratio", "peak above idle, MiB"]
    text = f"""Download, checks, hashes and upload of {COPIES} images, one after the other, in a process of its own,
against a bare `requests` download and upload with the same hashes, which holds the image in memory. Azurite and the
emulator share the machine."""
    return f"{text}\n\n{table(header, rows)}"


def _way(running: Services, way: str, size: int) -> Callable[[], dict[str, float]]:
    return lambda: _measure_apart(running, way, size)


def _measure_apart(running: Services, way: str, size: int) -> dict[str, float]:
    task = running.work(1, prompt=f"[bytes:{size}] a lighthouse")
    command = [sys.executable, "-m", "bench.copy", way, str(size)]
    done = subprocess.run(command, input=json.dumps(asdict(task)), capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def measure(way: str, size: int) -> None:
    """Print megabytes per second and the peak memory in MiB of this process."""
    task = Task(**json.load(sys.stdin))
    steps = Steps(task)
    one = new_id()
    url, _ = steps.poll(steps.submit(one))
    assert url
    images = _images(task)

    def copy() -> None:
        if way == "bare":
            steps.write(f"{one}/0.png", steps.fetch(url), content_type="image/png")
        else:
            images.copy(ImageUrl(url, None), one, 0)

    if size:
        copy()  # opens the connections, and the emulator draws
    began = time.perf_counter()
    for _ in range(COPIES if size else 0):
        copy()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"speed": COPIES * size / 1e6 / seconds, "peak": peak}))


def _images(task: Task) -> BlobImages:
    settings = open_app(task).settings
    downloader = Downloader(allowed_hosts=[], endpoints=[task.endpoint], connections=1, seconds=60)
    return BlobImages(
        open_storage(settings, connections=1),
        settings.images_container,
        downloader=downloader,
        limit=settings.max_image_bytes,
        link_lifetime=timedelta(hours=1),
        clock=utc_now,
    )


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
