"""Storage transactions of one generation: the table in docs/architecture.md."""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections import Counter
from urllib.parse import urlsplit

import pytest
from azure.storage.queue import QueueClient

from imagegen.app import build
from imagegen.settings import read_settings
from imagegen.storage.work_queue import CALLS_QUEUE, SLOTS_QUEUE
from imagegen.web.http import Request, answer
from local.azurite import azurite
from local.stack import KEY, emulator

_WIRE = "azure.core.pipeline.policies.http_logging_policy"


POLLED = {
    "PUT active/": 3,
    "PUT done/": 1,
    "PUT image": 1,
    "GET active/": 1,
    "HEAD throttling/": 1,
    "DELETE active/": 1,
    "HEAD slot": 2,
    "PUT slot": 2,
    "POST message": 1,
}
DIRECT = {
    "PUT active/": 2,
    "PUT done/": 1,
    "PUT image": 1,
    "GET active/": 2,
    "GET done/": 1,
    "HEAD throttling/": 1,
    "DELETE active/": 1,
}


@pytest.mark.parametrize(("api", "expected"), [("operations", POLLED), ("images", DIRECT)])
def test_storage_transactions_match_the_docs(
    caplog: pytest.LogCaptureFixture, api: str, expected: dict[str, int]
) -> None:
    with azurite() as storage, emulator("--speed", "0.2") as (endpoint, _):
        settings = read_settings(
            {
                "AzureWebJobsStorage": storage.connection_string,
                "AZURE_OPENAI_ENDPOINT": endpoint,
                "AZURE_OPENAI_API_KEY": KEY,
                "AZURE_OPENAI_API": api,
                "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
                "POLL_SCHEDULE": "0 0 0 1 1 *",  # no tick of the timer comes soon: each start asks for an early one
            }
        )
        queue = QueueClient.from_connection_string(storage.connection_string, CALLS_QUEUE)

        def generate() -> int:
            """Return the number of listings. The app is new: it has cached nothing."""
            service = build(settings)
            body = json.dumps({"prompt": "a lighthouse"}).encode()
            post = Request("POST", "http://localhost/api/generations", {}, {}, {}, body)
            assert answer(post, service.routes.start_generation).status == 202
            if api == "operations":
                slot = service.poll_early()
                assert slot
                return slot.passes
            message = queue.receive_message()
            assert message
            service.call(b64decode(message.content))
            return 0

        generate()  # creates the containers and the queue; in Azure, Bicep creates them
        with caplog.at_level(logging.INFO, _WIRE):
            passes = generate()

    counted = Counter(_transaction(record) for record in caplog.records if record.name == _WIRE)
    assert counted.pop("list active/") == passes + 1  # the start counts the active ones, at most every ten seconds
    assert {name: count for name, count in counted.items() if name} == expected


def _transaction(record: logging.LogRecord) -> str:
    lines = record.getMessage().splitlines()
    if not lines[0].startswith("Request URL"):
        return ""
    method = next(line.split("'")[1] for line in lines if line.startswith("Request method"))
    url = urlsplit(lines[0].split("'")[1])
    container, _, name = url.path.strip("/").partition("/")[2].partition("/")
    if container == CALLS_QUEUE:
        return ""
    if container == "images":
        return f"{method} image"
    if container == SLOTS_QUEUE:
        return f"{method} message"
    if name == "slot":
        return f"{method} slot"
    return f"{method} {name.partition('/')[0]}/" if name else "list active/"
