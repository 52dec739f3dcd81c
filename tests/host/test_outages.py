"""Outages of storage: the host logs each with one line, retries, and goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Generator
from uuid import uuid4

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
)
from azure.storage.blob import BlobClient
from azure.storage.queue import QueueClient
from uuid_utils import uuid7

from imagegen.storage.work_queue import CALLS_QUEUE
from local.azurite import Azurite
from local.host.listeners import Stop
from local.host.outages import Outage, is_refusal, retry
from local.processes import python, running
from local.stack import app_environment, functions_host
from tests.host.conftest import APPS, ROOT, Queues, RunHost
from tests.host.failing_storage import FailingStorage, Failure, failing_storage
from tests.host.test_queues import encoded, next_message
from tests.host.test_timers import BEGINS, until_ticks

FAILED = "storage failed: "
WORKS = "storage works again: "


@pytest.fixture
def storage(azurite: Azurite) -> Generator[FailingStorage]:
    with failing_storage(azurite) as storage:
        yield storage


@pytest.fixture
def timer_env(storage: FailingStorage) -> dict[str, str]:
    return {
        "AzureWebJobsStorage": storage.connection_string,
        "AzureFunctionsWebHost__hostid": uuid4().hex,
        "SCHEDULE": "* * * * * *",
    }


def error_of(status: int) -> HttpResponseError:
    error = HttpResponseError("reason")
    error.status_code = status
    return error


class CountedStop(Stop):
    """Does not wait. It is set after a number of pauses."""

    def __init__(self, pauses: int) -> None:
        super().__init__()
        self._left = pauses
        self.pauses: list[float] = []

    async def within(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self._left -= 1
        return self._left == 0


def fail() -> None:
    raise ServiceRequestError("first line\nsecond line")


def test_pauses_double_up_to_thirty_seconds() -> None:
    stop = CountedStop(8)
    assert asyncio.run(retry(fail, Outage("queue q"), stop)) is None
    assert stop.pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_outage_is_one_line_and_its_end_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    answers = iter([ServiceRequestError("first\nsecond"), error_of(500), None, None, error_of(503)])

    def call() -> str:
        if error := next(answers):
            raise error
        return "answer"

    async def calls() -> None:
        outage, stop = Outage("queue q"), CountedStop(3)
        assert await retry(call, outage, stop) == "answer"
        assert await retry(call, outage, stop) == "answer"
        assert await retry(call, outage, stop) is None
        assert stop.pauses == [1, 2, 1]  # the second outage begins anew

    asyncio.run(calls())
    assert caplog.messages == [
        f"{FAILED}queue q: first. The host retries.",
        f"{WORKS}queue q",
        f"{FAILED}queue q: reason. The host retries.",
    ]


def test_pause_that_is_not_worthwhile_ends_retries() -> None:
    stop = CountedStop(100)
    assert asyncio.run(retry(fail, Outage("queue q"), stop, worthwhile=lambda pause: pause < 4)) is None
    assert stop.pauses == [1, 2]


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (error_of(400), True),  # the name of the queue is invalid
        (error_of(403), True),
        (error_of(404), True),
        (ClientAuthenticationError("the key is not base64"), True),
        (ServiceRequestError("no such scheme", error=ValueError()), True),
        (error_of(408), False),
        (error_of(409), False),
        (error_of(412), False),
        (error_of(429), False),
        (error_of(500), False),
        (error_of(503), False),
        (HttpResponseError("a body that is not XML"), False),
        (ServiceRequestError("connection refused", error=OSError()), False),
    ],
)
def test_refusal_is_not_an_outage(error: AzureError, refused: bool) -> None:
    assert is_refusal(error) is refused


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("app", ["timers", "queues"])
def test_host_starts_when_storage_works_again(
    storage: FailingStorage, timer_env: dict[str, str], app: str, failure: Failure
) -> None:
    storage.failure = failure
    env = timer_env | {"IN": f"in-{uuid4().hex}"}
    with running(python("local.host", "--port", "0", "--root", str(APPS / app)), env=env, cwd=ROOT) as child:
        if failure is not Failure.LOST:  # its first retry finds the container or queue
            child.wait_for(f"{FAILED}containers and queues of the functions. Start Azurite if it does not run: ")
            assert "Ready: " not in child.output
        storage.failure = None
        child.wait_for("Ready: ")
        assert child.terminate() == 0
    assert child.output.count(FAILED) == child.output.count(WORKS) <= 1
    assert "Traceback" not in child.output


def test_signal_ends_a_host_that_waits_for_storage(storage: FailingStorage, timer_env: dict[str, str]) -> None:
    storage.failure = Failure.ERROR_500
    command = python("local.host", "--port", "0", "--root", str(APPS / "timers"))
    with running(command, env=timer_env, cwd=ROOT) as child:
        child.wait_for(FAILED)
        child.signal(signal.SIGTERM)
        assert child.wait(5) == 0
    assert child.output.rstrip().endswith("Stopped")


@pytest.mark.parametrize("failure", Failure)
def test_messages_are_processed_after_an_outage(
    run_host: RunHost, storage: FailingStorage, queues: Queues, failure: Failure
) -> None:
    env = queues.env | {"AzureWebJobsStorage": storage.connection_string}
    name = queues.env["IN"]
    with run_host("queues", **env) as (child, _):
        storage.failure, storage.only = failure, f"{name}/messages"
        _until_failed(storage, 4)
        storage.failure = None
        queues.incoming.send_message(encoded("hello"))
        assert next_message(queues, queues.outgoing, within=40).startswith("hello True")
        child.wait_for(f"{WORKS}queue {name}")
        assert child.terminate() == 0
    assert child.output.count(f"{FAILED}queue {name}: ") == 1
    assert "Traceback" not in child.output


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.LOST])
def test_processed_message_is_deleted_after_an_outage(
    run_host: RunHost, storage: FailingStorage, queues: Queues, failure: Failure
) -> None:
    env = queues.env | {"AzureWebJobsStorage": storage.connection_string}
    with run_host("queues", **env) as (child, _):
        storage.failure, storage.only = failure, "DELETE "
        queues.incoming.send_message(encoded("hello"))
        assert next_message(queues, queues.outgoing) == "hello True 1"
        _until_failed(storage, 1 if failure is Failure.LOST else 3)
        storage.failure = None
        _until_empty(queues.incoming)
    assert child.output.count("answer received hello") == 1
    assert "Traceback" not in child.output


def test_poison_message_is_moved_after_an_outage(run_host: RunHost, storage: FailingStorage, queues: Queues) -> None:
    env = queues.env | {"AzureWebJobsStorage": storage.connection_string}
    with run_host("queues", **env) as (child, _):
        storage.failure, storage.only = Failure.ERROR_500, "-poison"
        queues.incoming.send_message("plain text, not base64")
        _until_failed(storage, 3)
        storage.failure = None
        assert next_message(queues, queues.poison) == "plain text, not base64"
        _until_empty(queues.incoming)
    assert child.output.count("is not base64") == 1  # received once


def test_timer_ticks_again_after_an_outage(
    run_host: RunHost, storage: FailingStorage, timer_env: dict[str, str]
) -> None:
    with run_host("timers", **timer_env) as (child, _):
        until_ticks(child, 1)
        storage.failure = Failure.ERROR_500
        child.wait_for(f"{FAILED}lease locks/")
        time.sleep(2)
        storage.failure = None
        child.wait_for(f"{WORKS}lease locks/")
        until_ticks(child, child.output.count(BEGINS) + 1)
        assert child.terminate() == 0
    assert child.output.count(FAILED) == 1
    assert "Traceback" not in child.output


def test_missed_occurrence_is_found_after_an_outage(
    run_host: RunHost, storage: FailingStorage, timer_env: dict[str, str]
) -> None:
    timer_env["SCHEDULE"] = "0 0 0 1 1 *"
    name = f"timers/{timer_env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick/status"
    with run_host("timers", **timer_env) as (child, _):
        _until_stored(storage, name)
        assert child.terminate() == 0
    status = BlobClient.from_connection_string(storage.connection_string, "azure-webjobs-hosts", name)
    missed = {"last": "2020-01-01T00:00:00Z", "next": "2021-01-01T00:00:00Z"}
    status.upload_blob(json.dumps(missed), overwrite=True)
    storage.failure, storage.only = Failure.ERROR_500, f"GET /devstoreaccount1/azure-webjobs-hosts/{name}"
    with run_host("timers", **timer_env) as (child, _):
        child.wait_for(f"{FAILED}last run of tick: ")
        assert BEGINS not in child.output
        storage.failure = None
        child.wait_for("tick begins, past due: True")


def test_last_run_is_stored_after_an_outage(
    run_host: RunHost, storage: FailingStorage, timer_env: dict[str, str]
) -> None:
    timer_env["SCHEDULE"] = "0 0 0 1 1 *"
    name = f"timers/{timer_env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick/status"
    storage.failure, storage.only = Failure.ERROR_503, f"PUT /devstoreaccount1/azure-webjobs-hosts/{name}"
    with run_host("timers", **timer_env) as (child, _):
        child.wait_for(f"{FAILED}last run of tick: ")
        storage.failure = None
        _until_stored(storage, name)
        assert child.terminate() == 0


def test_app_without_storage_logs_events_and_no_trace(azurite: Azurite) -> None:
    # The host's own requests pass: only the app's records fail.
    with failing_storage(azurite) as storage:
        env = app_environment(storage.connection_string, "http://127.0.0.1:9") | {
            "AzureFunctionsWebHost__hostid": uuid4().hex,
            "GENERATIONS_CONTAINER": f"generations-{uuid4().hex}",
        }
        storage.failure, storage.only = Failure.ERROR_500, env["GENERATIONS_CONTAINER"]
        with (
            functions_host(env) as (_, child),
            QueueClient.from_connection_string(storage.connection_string, CALLS_QUEUE) as queue,
        ):
            queue.clear_messages()  # of other tests
            queue.send_message(encoded(json.dumps({"ids": [f"{uuid7()}"]})))
            child.wait_for(r"work\.returned doing='read record' attempt=1")
            child.wait_for(
                rf"advance_generations \(queue {CALLS_QUEUE}\) failed \d+ ms: StorageUnavailableError: storage does "
                "not answer; the message returns to the queue"
            )
            child.wait_for(r"poll\.failed doing='list records'")
            child.wait_for(
                r"poll_operations \(timer(, past due)?\) failed \d+ ms: StorageUnavailableError: no listing of this "
                "slot succeeded; the next tick tries again"
            )
            assert queue.get_queue_properties().approximate_message_count == 1
            queue.clear_messages()
        assert "Traceback" not in child.output


def _until_failed(storage: FailingStorage, count: int, *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while len(storage.failed) < count:
        assert time.monotonic() < deadline, f"{len(storage.failed)} of {count} requests failed within {within} s"
        time.sleep(0.02)


def _until_empty(queue: QueueClient, *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while queue.get_queue_properties().approximate_message_count:
        assert time.monotonic() < deadline, f"{queue.queue_name} is not empty after {within} s"
        time.sleep(0.05)


def _until_stored(storage: FailingStorage, name: str, *, within: float = 30) -> None:
    blob = BlobClient.from_connection_string(storage.connection_string, "azure-webjobs-hosts", name)
    deadline = time.monotonic() + within
    while not blob.exists():
        assert time.monotonic() < deadline, f"{name} is not stored after {within} s"
        time.sleep(0.05)
