"""Queue triggers: receive, invoke, then delete, release or poison."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from local.host.logs import logger
from local.host.messages import TypedData
from local.host.queues import Message, Queue, UndecodableError
from local.host.stop import Stop

if TYPE_CHECKING:
    from datetime import datetime

    from local.host.invocations import Invoker, Outcome
    from local.host.runtime import Function
    from local.host.settings import HostSettings, QueueSettings

# How long nobody else sees a message, renewed at half of it while its function runs. Azure takes ten minutes; here
# a message of a killed host should come back while its developer still looks at the screen.
INVISIBILITY = timedelta(seconds=15)
_FIRST_POLL = 0.1
_STORAGE_GONE = 2.0


class QueueTrigger:
    """One function waiting for the messages of one queue."""

    def __init__(self, function: Function, settings: HostSettings, invoker: Invoker) -> None:
        binding = function.trigger
        self.function = function
        self.queue = Queue(
            settings.connection_string(
                binding.values.get("connection") or "AzureWebJobsStorage",
                wanted_by=f"function {function.name}, binding {binding.name}",
            ),
            settings.resolve(binding.values["queueName"], function=function.name, binding=binding.name),
            is_base64=settings.queues.base64,
        )
        self._settings: QueueSettings = settings.queues
        self._invoker = invoker
        self._processing: set[asyncio.Task[None]] = set()

    async def listen(self, stop: Stop) -> None:
        """Process messages until told to stop; returns when the last function has ended."""
        idle = _FIRST_POLL
        while not stop.is_set():
            if len(self._processing) > self._settings.new_batch_threshold:
                await self._one_done(stop)
                continue
            received = await self._receive()
            for message in received or ():
                self._process(message)
            if received:
                idle = _FIRST_POLL
            else:
                await stop.within(_STORAGE_GONE if received is None else idle)
                idle = min(idle * 2, self._settings.max_polling_interval.total_seconds())
        if self._processing:
            await asyncio.wait(self._processing)

    async def _one_done(self, stop: Stop) -> None:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *self._processing}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _receive(self) -> list[Message] | None:
        try:
            return await asyncio.to_thread(
                self.queue.receive, self._settings.batch_size, hidden_for=INVISIBILITY.total_seconds()
            )
        except AzureError as error:
            logger.warning("queue %s cannot be read: %s", self.queue.name, str(error).splitlines()[0])
            return None

    def _process(self, message: Message) -> None:
        task = asyncio.create_task(self._finish(message))
        self._processing.add(task)
        task.add_done_callback(self._processing.discard)

    async def _finish(self, message: Message) -> None:
        try:
            await self._handle(message)
        except AzureError as error:
            # Harmless: the message becomes visible again and the function, at least once by contract, runs again.
            logger.warning("message %s of queue %s stays: %s", message.id, self.queue.name, error)

    async def _handle(self, message: Message) -> None:
        if message.dequeue_count > self._settings.max_dequeue_count:
            await self._poison(message)
            return
        try:
            body = self.queue.decode(message)
        except UndecodableError as error:
            logger.error("%s", error)
            await self._poison(message)
            return
        succeeded, message = await self._invoke(message, body)
        if succeeded:
            await asyncio.to_thread(self.queue.delete, message)
        elif message.dequeue_count >= self._settings.max_dequeue_count:
            await self._poison(message)
        else:
            await asyncio.to_thread(self.queue.hide, message, self._settings.visibility_timeout)

    async def _invoke(self, message: Message, body: bytes) -> tuple[bool, Message]:
        """Run the function with the message kept invisible; returns the message with its last pop receipt."""
        over = Stop()
        keeping = asyncio.create_task(self._keep(message, over))
        try:
            outcome = await self.by_message(message, body)
        finally:
            # Told, not cancelled: a renewal under way changes the pop receipt that the caller needs.
            over.set()
            message = await keeping
        return outcome.succeeded, message

    async def _keep(self, message: Message, over: Stop) -> Message:
        while not await over.within(INVISIBILITY.total_seconds() / 2):
            try:
                message = await asyncio.to_thread(self.queue.hide, message, INVISIBILITY)
            except AzureError as error:
                logger.warning("message %s could not be kept invisible: %s", message.id, error)
        return message

    async def by_message(self, message: Message, body: bytes, *, reason: str = "") -> Outcome:
        """Run the function once with this message."""
        return await self._invoker.invoke(
            self.function,
            _body(body),
            reason=reason or f"queue {self.queue.name}",
            metadata=trigger_metadata(message),
        )

    async def _poison(self, message: Message) -> None:
        poison = self.queue.poison()
        await asyncio.to_thread(poison.create)
        # Copied, then deleted: a crash between the two leaves it in both, and nothing is lost.
        await asyncio.to_thread(poison.send_encoded, message.content)
        await asyncio.to_thread(self.queue.delete, message)
        logger.warning("message %s moved to queue %s", message.id, poison.name)


def trigger_metadata(message: Message) -> dict[str, TypedData]:
    """Return what the azure-functions QueueMessage converter reads, in the form the Azure host sends it."""
    return {
        "Id": TypedData(string=message.id),
        "PopReceipt": TypedData(string=message.pop_receipt),
        "DequeueCount": TypedData(json=str(message.dequeue_count)),
        "InsertionTime": _time(message.inserted_on),
        "ExpirationTime": _time(message.expires_on),
        "NextVisibleTime": _time(message.next_visible_on),
    }


def _time(moment: datetime) -> TypedData:
    return TypedData(json=json.dumps(moment.isoformat()))


def _body(body: bytes) -> TypedData:
    try:
        return TypedData(string=body.decode())
    except UnicodeDecodeError:
        return TypedData(bytes=body)
