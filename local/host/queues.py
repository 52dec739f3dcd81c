"""Queue triggers: receive a message, invoke the function, then delete, retry or poison the message."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from datetime import datetime, timedelta

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.queue import QueueClient, QueueMessage

from local.host import storage
from local.host.bindings import QueueTrigger
from local.host.listeners import Stop
from local.host.messages import TypedData
from local.host.runtime import Function, Worker
from local.host.settings import HostSettings

logger = logging.getLogger(__name__)

# How long a message is invisible to other hosts; renewed at half of it while the function runs. Azure uses ten
# minutes, but here the message of a killed host should return while the developer still looks at the screen.
INVISIBILITY = timedelta(seconds=15)
# Seconds between polls of an empty queue: from the first to the last, doubled each time. Azure's last is one minute.
_FIRST_POLL = 0.1
_LAST_POLL = 2.0


class QueueListener:
    """Invokes one function with the messages of one queue."""

    def __init__(self, function: Function, trigger: QueueTrigger, settings: HostSettings, worker: Worker) -> None:
        name = settings.resolve(trigger.queue_name, where=function.where)
        self.description = f"{function.name}: queue {name}"
        self._function = function
        self._worker = worker
        self._settings = settings.queues
        # No decoding by the SDK: it fails the whole batch if one message is not base64.
        self.queue = storage.queue(settings.environ, name)
        self._poison_queue = storage.queue(settings.environ, f"{name}-poison")
        self._in_progress: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        _create(self.queue)

    async def run(self, stop: Stop) -> None:
        threshold = self._settings.new_batch_threshold
        threshold = self._settings.batch_size // 2 if threshold is None else threshold
        pause = _FIRST_POLL
        while not stop.is_set():
            if len(self._in_progress) > threshold:
                await asyncio.wait(self._in_progress, return_when=asyncio.FIRST_COMPLETED)
            elif messages := await self._receive():
                pause = _FIRST_POLL
                for message in messages:
                    task = asyncio.create_task(self._process(message))
                    self._in_progress.add(task)
                    task.add_done_callback(self._in_progress.discard)
            else:
                await stop.within(pause)
                pause = min(pause * 2, _LAST_POLL)
        if self._in_progress:
            await asyncio.wait(self._in_progress)

    async def _receive(self) -> list[QueueMessage]:
        """Return at most one batch, invisible to other hosts."""
        pages = self.queue.receive_messages(
            messages_per_page=self._settings.batch_size, visibility_timeout=int(INVISIBILITY.total_seconds())
        ).by_page()
        try:
            return await asyncio.to_thread(lambda: list(next(pages, ())))
        except AzureError as error:
            logger.warning("queue %s cannot be read: %s", self.queue.queue_name, str(error).splitlines()[0])
            return []

    async def _process(self, message: QueueMessage) -> None:
        try:
            body = _decoded(message)
            attempts = message.dequeue_count or 0
            if body is None or attempts > self._settings.max_dequeue_count:
                await asyncio.to_thread(self._poison, message)
            elif await self._invoke(message, body):
                await asyncio.to_thread(self.queue.delete_message, message)
            elif attempts == self._settings.max_dequeue_count:
                await asyncio.to_thread(self._poison, message)
            else:
                await asyncio.to_thread(self._hide, message, self._settings.visibility_timeout)
        except AzureError as error:
            # Harmless: the message becomes visible again and the function runs again, at least once by contract.
            logger.warning("message %s stays in queue %s: %s", message.id, self.queue.queue_name, error)

    async def _invoke(self, message: QueueMessage, body: bytes) -> bool:
        """Invoke the function while the message stays invisible. Return whether it succeeded."""
        ended = Stop()
        renewal = asyncio.create_task(self._renew_until(ended, message))
        try:
            outcome = await self._worker.invoke(
                self._function,
                TypedData(bytes=body),
                reason=f"queue {self.queue.queue_name}",
                metadata=metadata_of(message),
            )
        finally:
            # Not cancelled: a renewal in progress changes the pop receipt, which the caller needs.
            ended.set()
            await renewal
        return outcome.succeeded

    async def _renew_until(self, ended: Stop, message: QueueMessage) -> None:
        while not await ended.within(INVISIBILITY.total_seconds() / 2):
            try:
                await asyncio.to_thread(self._hide, message, INVISIBILITY)
            except AzureError as error:
                logger.warning("the invisibility of message %s cannot be renewed: %s", message.id, error)

    def _hide(self, message: QueueMessage, duration: timedelta) -> None:
        updated = self.queue.update_message(message, visibility_timeout=int(duration.total_seconds()))
        message.pop_receipt = updated.pop_receipt

    def _poison(self, message: QueueMessage) -> None:
        _create(self._poison_queue)
        # Copy before delete: a crash between them leaves the message in both queues, and loses nothing.
        self._poison_queue.send_message(message.content)
        self.queue.delete_message(message)
        logger.warning("message %s moved to queue %s", message.id, self._poison_queue.queue_name)


def _create(queue: QueueClient) -> None:
    with contextlib.suppress(ResourceExistsError):
        queue.create_queue()


def _decoded(message: QueueMessage) -> bytes | None:
    try:
        return base64.b64decode(message.content or "", validate=True)
    except ValueError as error:
        logger.warning("message %s is not base64: %s", message.id, error)
        return None


def metadata_of(message: QueueMessage) -> dict[str, TypedData]:
    """What the SDK's queue converter reads, in the form that the Azure host sends."""
    return {
        "Id": TypedData(string=message.id),
        "PopReceipt": TypedData(string=message.pop_receipt),
        "DequeueCount": TypedData(json=str(message.dequeue_count)),
        "InsertionTime": _time(message.inserted_on),
        "ExpirationTime": _time(message.expires_on),
        "NextVisibleTime": _time(message.next_visible_on),
    }


def _time(moment: datetime | None) -> TypedData:
    return TypedData(json=json.dumps(moment and moment.isoformat()))
