from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from local.host import queue_triggers
from local.host.invocations import Outcome
from local.host.queue_triggers import QueueTrigger
from local.host.queues import Message, Queue
from local.host.runtime import Binding, Function
from local.host.settings import HostSettings
from local.host.stop import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from local.azurite import Azurite


class Invocations:
    """Stands where functions are invoked: the function ends when the test says so."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()

    async def invoke(self, *_: object, **__: object) -> Outcome:
        self.count += 1
        await self.may_end.wait()
        return Outcome(succeeded=True)


def test_a_message_stays_invisible_as_long_as_its_function_runs(
    azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_triggers, "INVISIBILITY", timedelta(seconds=2))
    renewals: list[Message] = []
    hide = Queue.hide

    def counted(queue: Queue, message: Message, duration: timedelta) -> Message:
        renewals.append(message)
        return hide(queue, message, duration)

    monkeypatch.setattr(Queue, "hide", counted)
    name = f"long-{uuid4().hex}"
    settings = HostSettings(root=tmp_path, environ={"AzureWebJobsStorage": azurite.connection_string})
    binding = Binding(name="message", type="queueTrigger", values={"queueName": name, "connection": ""})
    function = Function(id="1", name="long", trigger=binding, outputs=())

    async def process() -> int:
        invocations, stop = Invocations(), Stop()
        trigger = QueueTrigger(function, settings, cast("Any", invocations))
        trigger.queue.create()
        trigger.queue.send("once")
        listening = asyncio.create_task(trigger.listen(stop))
        async with asyncio.timeout(30):
            # Four renewals at half of the time: twice as long as the message would have stayed invisible.
            while len(renewals) < 4:
                await asyncio.sleep(0.05)
        invocations.may_end.set()
        stop.set()
        await listening
        assert trigger.queue.receive(1, hidden_for=1) == []  # deleted with the last pop receipt
        return invocations.count

    assert asyncio.run(process()) == 1
    assert base64.b64decode(renewals[0].content) == b"once"
