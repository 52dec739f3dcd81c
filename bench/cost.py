"""What a generation needs: requests to storage and to the image service, bytes; and what 1,000 images cost."""

from __future__ import annotations

from base64 import b64decode

from azure.storage.queue import QueueClient

from bench.app import open_app, start
from bench.services import Options, Services, services, table
from bench.wire import Wire
from imagegen.storage.work_queue import CALLS_QUEUE

WRITE, READ, MESSAGE = 0.05 / 10_000, 0.004 / 10_000, 0.004 / 10_000
"""US dollars for a write or a listing of blobs, a read of a blob, and a request to a queue. Deletes are free."""

_RARELY = "0 0 0 1 1 *"
"""A tick of the timer that does not come soon: each start asks for an early one."""

_PRICES = """Prices: assumptions of November 2026, hot, LRS, US dollars, as in [deploy.md](deploy.md#costs): 10,000
writes or listings of blobs 0.05, 10,000 reads 0.004, 10,000 requests to a queue 0.004; deletes are free. Source:
[blobs](https://azure.microsoft.com/pricing/details/storage/blobs/),
[queues](https://azure.microsoft.com/pricing/details/storage/queues/). Check them there. The image itself, the compute
time and what the Functions host does with its own storage come on top."""


def section(options: Options) -> str:  # noqa: ARG001 - as the others
    rows: list[list[str]] = []
    with services() as running:
        for name, direct in (("polled", False), ("direct", True)):
            _generate(running, direct=direct)  # creates the containers and the queue
            with Wire() as wire:
                _generate(running, direct=direct)
            rows.append([name, *_row(wire)])
    header = ["model", "storage requests", "in all", "of them queue", "upstream calls", "bytes", "$ per 1,000 images"]
    text = """One generation with one image of 200 kB, ready at its first poll, in instances that have just started: one
for the start, which asks for an early tick, and one for the rest. Not counted are the listings, which all active
generations share: one a second while there is work, $0.005 for 1,000."""
    return f"{text}\n\n{table(header, rows)}\n\n{_PRICES}"


def _row(wire: Wire) -> list[str]:
    own = {name: count for name, count in sorted(wire.transactions.items()) if not name.startswith("list ")}
    messages = sum(count for name, count in own.items() if name.endswith("message"))
    blobs = {name.partition(" ")[0]: 0 for name in own}
    for name, count in own.items():
        blobs[name.partition(" ")[0]] += 0 if name.endswith("message") else count
    reads = blobs.get("GET", 0) + blobs.get("HEAD", 0)
    dollars = blobs["PUT"] * WRITE + reads * READ + messages * MESSAGE
    kinds = ", ".join(f"{count} {name}" for name, count in own.items())
    calls = sum(wire.upstream.values())
    return [kinds, str(sum(own.values())), str(messages), str(calls), f"{wire.bytes:,}", f"{1000 * dollars:.3f}"]


def _generate(running: Services, *, direct: bool) -> None:
    """In an app that has cached nothing."""
    task = running.work(1, direct=direct)
    app = open_app(task, POLL_SCHEDULE=_RARELY)
    start(app, task)
    if direct:
        queue = QueueClient.from_connection_string(running.connection_string, CALLS_QUEUE)
        message = queue.receive_message()
        assert message
        app.call(b64decode(message.content))
        queue.delete_message(message)
    else:
        open_app(task, POLL_SCHEDULE=_RARELY).poll_early()
