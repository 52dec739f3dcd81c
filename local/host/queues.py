"""Queue triggers: receive a message, invoke the function, then delete, retry or poison the message."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueMessage

from local.host import storage
from local.host.bindings import QueueTrigger
from local.host.listeners import Stop
from local.host.messages import TypedData
from local.host.outages import Outage, retry
from local.host.runtime import Function, Worker
from local.host.settings import FIRST_POLL, HostSettings

logger = logging.getLogger(__name__)

# How long a message is invisible to other hosts; renewed at half of it while the function runs. Azure uses ten
# minutes, but here the message of a killed host should return while the developer still looks at the screen.
INVISIBILITY = timedelta(seconds=15)


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
        self._outage = Outage(f"queue {name}")
        self._in_progress: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        _create(self.queue)

    async def run(self, stop: Stop) -> None:
        threshold = self._settings.new_batch_threshold
        threshold = self._settings.batch_size // 2 if threshold is None else threshold
        pause = FIRST_POLL
        while not stop.is_set():
            if len(self._in_progress) > threshold:
                await asyncio.wait(self._in_progress, return_when=asyncio.FIRST_COMPLETED)
            elif messages := await retry(self._receive, self._outage, stop):
                pause = FIRST_POLL
                for message in messages:
                    task = asyncio.create_task(self._process(message, stop))
                    self._in_progress.add(task)
                    task.add_done_callback(self._in_progress.discard)
            else:
                await stop.within(pause.total_seconds())
                pause = min(pause * 2, self._settings.max_polling_interval)
        if self._in_progress:
            await asyncio.wait(self._in_progress)

    def _receive(self) -> list[QueueMessage]:
        """Return at most one batch, invisible to other hosts. Blocks."""
        pages = self.queue.receive_messages(
            messages_per_page=self._settings.batch_size, visibility_timeout=int(INVISIBILITY.total_seconds())
        ).by_page()
        return list(next(pages, ()))

    async def _process(self, message: QueueMessage, stop: Stop) -> None:
        body = _decoded(message)
        attempts = message.dequeue_count or 0
        if stop.is_set():  # received while the signal came: another host continues at once
            await self._settle(message, lambda: self._hide(message, timedelta()))
        elif body is None or attempts > self._settings.max_dequeue_count:
            await self._poison(message)
        elif await self._invoke(message, body):
            await self._settle(message, lambda: self._delete(message))
        elif attempts == self._settings.max_dequeue_count:
            await self._poison(message)
        else:
            await self._settle(message, lambda: self._hide(message, self._settings.visibility_timeout))

    async def _settle(self, message: QueueMessage, call: Callable[[], None]) -> bool:
        """Call storage until it answers, or until the message is visible to other hosts. Return whether it answered.

        A message that becomes visible runs again: at least once, by contract.
        """
        ends = time.monotonic() + INVISIBILITY.total_seconds()

        def call_and_confirm() -> bool:
            call()
            return True

        outage = Outage(f"message {message.id} of queue {self.queue.queue_name}")
        # The host that stops still settles its messages, so it does not stop the retries.
        settled = await retry(
            call_and_confirm, outage, Stop(), worthwhile=lambda pause: time.monotonic() + pause < ends
        )
        if settled is None:
            logger.warning("message %s becomes visible again and is processed again", message.id)
        return settled is not None

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
        outage = Outage(f"invisibility of message {message.id} of queue {self.queue.queue_name}")
        while not await ended.within(INVISIBILITY.total_seconds() / 2):
            await retry(lambda: self._hide(message, INVISIBILITY), outage, ended)

    def _hide(self, message: QueueMessage, duration: timedelta) -> None:
        updated = self.queue.update_message(message, visibility_timeout=int(duration.total_seconds()))
        message.pop_receipt = updated.pop_receipt

    def _delete(self, message: QueueMessage) -> None:
        # Not found: an earlier attempt deleted it, or storage renewed it, and the answer was lost.
        with contextlib.suppress(ResourceNotFoundError):
            self.queue.delete_message(message)

    async def _poison(self, message: QueueMessage) -> None:
        # Copy before delete: a crash between them leaves the message in both queues, and loses nothing.
        if await self._settle(message, lambda: self._copy_to_poison_queue(message)) and await self._settle(
            message, lambda: self._delete(message)
        ):
            logger.warning("message %s moved to queue %s", message.id, self._poison_queue.queue_name)

    def _copy_to_poison_queue(self, message: QueueMessage) -> None:
        _create(self._poison_queue)
        self._poison_queue.send_message(message.content)


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
