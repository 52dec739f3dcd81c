"""Storage transactions of one generation: the table in docs/architecture.md."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from imagegen.app import build, utc_now
from imagegen.settings import read_settings
from imagegen.web.http import Request, answer
from local.azurite import azurite
from local.stack import KEY, emulator

_WIRE = "azure.core.pipeline.policies.http_logging_policy"


def test_storage_transactions_match_the_docs(caplog: pytest.LogCaptureFixture) -> None:
    with azurite() as storage, emulator("--speed", "0.2") as (endpoint, _):
        service = build(
            read_settings(
                {
                    "AzureWebJobsStorage": storage.connection_string,
                    "AZURE_OPENAI_ENDPOINT": endpoint,
                    "AZURE_OPENAI_API_KEY": KEY,
                    "AZURE_OPENAI_API": "operations",
                    "POLL_SCHEDULE": "0 * * * * *",
                }
            )
        )

        def generate() -> int:
            body = json.dumps({"prompt": "a lighthouse"}).encode()
            post = Request("POST", "http://localhost/api/generations", {}, {}, {}, body)
            assert answer(post, service.routes.start_generation).status == 202
            return service.poller.run(utc_now() + timedelta(seconds=30)).passes

        generate()  # creates the containers; in Azure, Bicep creates them
        with caplog.at_level(logging.INFO, _WIRE):
            passes = generate()

    counted = Counter(_transaction(record) for record in caplog.records if record.name == _WIRE)
    counted.pop("", None)
    assert counted.pop("list active/") == passes
    assert counted == {
        "PUT active/": 3,
        "PUT done/": 1,
        "PUT image": 1,
        "GET active/": 1,
        "HEAD throttling/": 1,
        "DELETE active/": 1,
    }


def _transaction(record: logging.LogRecord) -> str:
    lines = record.getMessage().splitlines()
    if not lines[0].startswith("Request URL"):
        return ""
    method = next(line.split("'")[1] for line in lines if line.startswith("Request method"))
    url = urlsplit(lines[0].split("'")[1])
    container, _, name = url.path.strip("/").partition("/")[2].partition("/")
    if container == "images":
        return f"{method} image"
    return f"{method} {name.partition('/')[0]}/" if name else "list active/"
