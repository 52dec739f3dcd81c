"""Storage transactions of one generation: the table in docs/architecture.md."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter

import pytest
from azure.storage.queue import QueueClient

from bench.wire import Wire
from imagegen.app import build
from imagegen.settings import read_settings
from imagegen.storage.work_queue import CALLS_QUEUE
from imagegen.web.http import Request, answer
from local.azurite import azurite
from local.stack import KEY, emulator

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
    "GET active/": 1,
    "GET done/": 1,
    "HEAD throttling/": 1,
    "DELETE active/": 1,
    "POST message": 1,
    "GET message": 1,
}


@pytest.mark.parametrize(("api", "expected"), [("operations", POLLED), ("images", DIRECT)])
def test_storage_transactions_match_the_docs(api: str, expected: dict[str, int]) -> None:
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
                slot = build(settings).poll_early()  # mostly another instance
                assert slot
                return slot.passes
            message = queue.receive_message()
            assert message
            service.call(b64decode(message.content))
            return 0

        generate()  # creates the containers and the queue; in Azure, Bicep creates them
        with Wire() as wire:
            passes = generate()

    counted = Counter(wire.transactions)
    assert counted.pop("list active/") == passes + 1  # the start counts the active ones, at most every ten seconds
    assert counted == expected
