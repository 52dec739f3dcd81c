"""A Storage queue and its messages."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import QueueClient, QueueMessage

from local.host.storage import CLIENT_OPTIONS

if TYPE_CHECKING:
    from datetime import datetime, timedelta


class UndecodableError(Exception):
    """A message is not base64, though host.json says that messages are."""


@dataclass(frozen=True)
class Message:
    """A message as it was received, still encoded."""

    id: str
    pop_receipt: str
    content: str
    dequeue_count: int
    inserted_on: datetime
    expires_on: datetime
    next_visible_on: datetime


class Queue:
    """One queue. All calls block."""

    def __init__(self, connection_string: str, name: str, *, is_base64: bool) -> None:
        self.name = name
        self._connection_string = connection_string
        self._is_base64 = is_base64
        # No encoding policy: the SDK's raises for the whole batch when one message is not base64.
        self._client = QueueClient.from_connection_string(connection_string, name, **CLIENT_OPTIONS)

    def create(self) -> None:
        """Create the queue if it is missing."""
        try:
            self._client.create_queue()
        except ResourceExistsError:
            return

    def poison(self) -> Queue:
        return Queue(self._connection_string, f"{self.name}-poison", is_base64=self._is_base64)

    def receive(self, count: int, *, hidden_for: float) -> list[Message]:
        """Return up to `count` messages, invisible to others for `hidden_for` seconds."""
        pages = self._client.receive_messages(messages_per_page=count, visibility_timeout=int(hidden_for)).by_page()
        return [_message(message) for message in next(pages, ())]

    def hide(self, message: Message, duration: timedelta) -> Message:
        """Keep the message invisible from now on for `duration`; returns it with its new pop receipt."""
        updated = self._client.update_message(
            message.id,
            message.pop_receipt,
            content=message.content,
            visibility_timeout=int(duration.total_seconds()),
        )
        return replace(message, pop_receipt=str(updated.pop_receipt))

    def delete(self, message: Message) -> None:
        self._client.delete_message(message.id, message.pop_receipt)

    def send(self, body: str | bytes) -> None:
        self.send_encoded(self._encode(body))

    def send_encoded(self, content: str) -> None:
        self._client.send_message(content)

    def decode(self, message: Message) -> bytes:
        """Return the body of a message.

        Raises
        ------
        UndecodableError
            It is not base64 and should be.
        """
        if not self._is_base64:
            return message.content.encode()
        try:
            return base64.b64decode(message.content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UndecodableError(f"message {message.id} of queue {self.name} is not base64: {error}") from error

    def _encode(self, body: str | bytes) -> str:
        raw = body.encode() if isinstance(body, str) else body
        return base64.b64encode(raw).decode() if self._is_base64 else raw.decode()


def _message(received: QueueMessage) -> Message:
    # The SDK's attributes are optional, for messages made by hand; a received one has them all.
    fields = cast("Any", received)
    return Message(
        id=fields.id,
        pop_receipt=fields.pop_receipt,
        content=fields.content or "",
        dequeue_count=fields.dequeue_count,
        inserted_on=fields.inserted_on,
        expires_on=fields.expires_on,
        next_visible_on=fields.next_visible_on,
    )
