from __future__ import annotations

import asyncio
import base64
import time
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from azure.storage.queue import QueueClient, QueueMessage

from local.azurite import Azurite
from local.host import queues as host_queues
from local.host.bindings import QueueTrigger
from local.host.listeners import Stop
from local.host.queues import QueueListener
from local.host.runtime import Function, Outcome
from local.host.settings import HostSettings, QueueSettings
from tests.host.conftest import Queues, RunHost


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def next_message(queues: Queues, client: QueueClient, *, within: float = 20) -> str:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        content = queues.receive(client)
        if content is not None:
            return content
        time.sleep(0.05)
    return pytest.fail(f"no message in {client.queue_name} within {within} s")


def test_message_is_processed_once_and_deleted(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", **queues.env) as (child, _):
        queues.incoming.send_message(encoded("hello"))
        # All metadata, and the first attempt.
        assert next_message(queues, queues.outgoing) == "hello True 1"
        child.wait_for(rf"answer \(queue {queues.env['IN']}\) ok \d+ ms")
        assert child.terminate() == 0
    assert queues.incoming.get_queue_properties().approximate_message_count == 0


def test_failing_message_is_retried_then_poisoned(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", **queues.env) as (child, _):
        queues.incoming.send_message(encoded("poison"))
        assert next_message(queues, queues.poison) == encoded("poison")
        child.wait_for("answer received poison, attempt 2")  # maxDequeueCount
        child.wait_for("ValueError: cannot process this")
        assert "answer received poison, attempt 3" not in child.output


def test_message_that_is_not_base64_is_poisoned_alone(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", **queues.env):
        queues.incoming.send_message("plain text, not base64")
        queues.incoming.send_message(encoded("hello"))
        assert next_message(queues, queues.poison) == "plain text, not base64"
        assert next_message(queues, queues.outgoing) == "hello True 1"


def test_message_of_killed_host_is_processed_after_restart(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", **queues.env) as (child, _):
        queues.incoming.send_message(encoded("hang once"))
        child.wait_for("answer received hang once, attempt 1")
        child.kill()
    with run_host("queues", **queues.env):
        assert next_message(queues, queues.outgoing, within=40) == "hang once True 2"


def test_stopping_host_receives_no_messages_and_drops_none(run_host: RunHost, queues: Queues) -> None:
    with run_host("queues", 3, **queues.env) as (child, _):
        queues.incoming.send_message(encoded("hang once"))
        child.wait_for("answer received hang once, attempt 1")
        child.process.terminate()
        time.sleep(0.5)  # the signal ends the pause between two polls
        queues.incoming.send_message(encoded("hello"))
        assert child.wait(4) == 0
    assert "answer received hello" not in child.output
    with run_host("queues", **queues.env):
        assert next_message(queues, queues.outgoing) == "hello True 1"
        assert next_message(queues, queues.outgoing, within=40) == "hang once True 2"  # after its invisibility


class FakeWorker:
    """Its function ends when the test allows it."""

    def __init__(self) -> None:
        self.invocations = 0
        self.may_end = asyncio.Event()

    async def invoke(self, *_: object, **__: object) -> Outcome:
        self.invocations += 1
        await self.may_end.wait()
        return Outcome(succeeded=True)


def test_message_stays_invisible_while_function_runs(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_queues, "INVISIBILITY", timedelta(seconds=2))
    renewals: list[str] = []
    update = QueueClient.update_message

    def counted(client: QueueClient, message: QueueMessage, **options: Any) -> QueueMessage:
        renewals.append(message.content)
        return update(client, message, **options)

    monkeypatch.setattr(QueueClient, "update_message", counted)
    trigger = QueueTrigger(name="message", queue_name=f"long-{uuid4().hex}")
    settings = HostSettings("id", {"AzureWebJobsStorage": azurite.connection_string})

    async def process() -> int:
        worker, stop = FakeWorker(), Stop()
        listener = QueueListener(Function("1", "long", trigger), trigger, settings, cast("Any", worker))
        listener.prepare()
        listener.queue.send_message(encoded("once"))
        running = asyncio.create_task(listener.run(stop))
        async with asyncio.timeout(30):
            # Four renewals, one a second: twice as long as the message would be invisible without them.
            while len(renewals) < 4:
                await asyncio.sleep(0.05)
        worker.may_end.set()
        stop.set()
        await running
        assert listener.queue.get_queue_properties().approximate_message_count == 0  # deleted by the last pop receipt
        return worker.invocations

    assert asyncio.run(process()) == 1
    assert renewals == [encoded("once")] * len(renewals)


def test_message_received_during_stop_is_returned(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, stop = FakeWorker(), Stop()
    receive = QueueClient.receive_messages

    def receive_during_stop(client: QueueClient, **options: Any) -> object:
        stop.set()
        return receive(client, **options)

    monkeypatch.setattr(QueueClient, "receive_messages", receive_during_stop)
    trigger = QueueTrigger(name="message", queue_name=f"stop-{uuid4().hex}")
    settings = HostSettings("id", {"AzureWebJobsStorage": azurite.connection_string})
    listener = QueueListener(Function("1", "stop", trigger), trigger, settings, cast("Any", worker))
    listener.prepare()
    listener.queue.send_message(encoded("once"))
    asyncio.run(asyncio.wait_for(listener.run(stop), 10))
    assert worker.invocations == 0
    returned = listener.queue.receive_message()
    assert returned is not None
    assert returned.dequeue_count == 2


class PausingStop(Stop):
    """Does not wait. It records the pauses, and is set after a number of them."""

    def __init__(self, pauses: int) -> None:
        super().__init__()
        self._last = pauses
        self.pauses: list[float] = []

    async def within(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        if len(self.pauses) == self._last:
            self.set()
        return self.is_set()


def test_pauses_double_up_to_max_polling_interval(azurite: Azurite) -> None:
    trigger = QueueTrigger(name="message", queue_name=f"empty-{uuid4().hex}")
    settings = HostSettings(
        "id",
        {"AzureWebJobsStorage": azurite.connection_string},
        queues=QueueSettings(max_polling_interval=timedelta(seconds=0.5)),
    )
    listener = QueueListener(Function("1", "empty", trigger), trigger, settings, cast("Any", FakeWorker()))
    listener.prepare()
    stop = PausingStop(5)
    asyncio.run(asyncio.wait_for(listener.run(stop), 10))
    assert stop.pauses == [0.1, 0.2, 0.4, 0.5, 0.5]
