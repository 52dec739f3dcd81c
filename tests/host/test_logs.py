"""What the host prints of the log, and what it reports because Azure would drop it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import requests

from local.host.logs import STORAGE_THREADS, InvocationFilter
from tests.host.conftest import Queues, RunHost

DROPPED = r"local\.host: Azure would drop a record of level (\w+) of the logger '([\w.]+)', because .*: (.+)"


def dropped(output: str) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for found in re.finditer(DROPPED, output)]


def test_records_of_an_invocation_are_printed(run_host: RunHost) -> None:
    with run_host("logs") as (child, base):
        for route in ("sync", "async", "threads"):
            assert requests.get(f"{base}/{route}", timeout=10).status_code == 200
        child.wait_for(r"INFO +sync: logged in a function$")
        child.wait_for(r"INFO +azure\.core: logged by an SDK in a function$")  # only the app may hide these
        child.wait_for(r"INFO +async: logged in an async function$")
        child.wait_for(r"WARNING +thread: logged with a context$")


def test_record_without_invocation_is_reported_not_printed(run_host: RunHost) -> None:
    with run_host("logs") as (child, base):
        requests.get(f"{base}/threads", timeout=10)
        child.wait_for(r"thread: logged with a context$")
    assert dropped(child.output) == [("WARNING", "at.import"), ("WARNING", "bare.thread")]
    found = re.search(DROPPED, child.output)
    assert found is not None
    file, _, line = found[3].rpartition(":")
    assert Path(file).read_text().splitlines()[int(line) - 1].startswith('logging.getLogger("at.import")')
    assert "logged at import" not in child.output
    assert "logged without a context" not in child.output


def test_storage_requests_of_the_host_are_not_logged(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", **queues.env) as (child, _):
        assert child.terminate() == 0  # after the calls that create the queue
    assert "azure.core" not in child.output


@pytest.mark.parametrize(
    ("logger", "level", "thread", "printed"),
    [
        ("imagegen", logging.INFO, "work_0", False),
        ("local.host", logging.INFO, "MainThread", True),
        ("local.host.queues", logging.INFO, "MainThread", True),
        ("local.hosting", logging.INFO, "MainThread", False),  # another package
        ("azure.functions", logging.INFO, "MainThread", True),  # the runtime
        ("azure.storage.blob", logging.WARNING, "MainThread", False),
        ("azure.storage.blob", logging.ERROR, f"{STORAGE_THREADS}_0", True),
        ("asyncio", logging.ERROR, "MainThread", True),
    ],
)
def test_records_of_the_host_need_no_invocation(logger: str, level: int, thread: str, printed: bool) -> None:
    record = logging.LogRecord(logger, level, "here.py", 1, "text", None, None)
    record.threadName = thread
    assert (InvocationFilter(lambda: None).filter(record) is True) is printed
