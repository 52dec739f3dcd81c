"""The queues: ``generations-due`` for calls of minutes, ``polls-due`` for work that the timer passes on.

Two queues, so that a poll never waits behind calls, and the platform scales the two functions independently. A third,
``slots-due``, has the messages of early ticks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient, TextBase64EncodePolicy

from imagegen.events import log_event
from imagegen.lifecycle.ports import Turn
from imagegen.settings import Settings, SettingsError
from imagegen.storage.clients import INVALID_CONNECTION_STRING, client_options, storage_credential, storage_errors

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CALLS_QUEUE: Final = "generations-due"
POLLS_QUEUE: Final = "polls-due"
_ONCE: Final = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 0}
"""Options of a send that is not repeated."""
SLOTS_QUEUE: Final = "slots-due"


class _Queue:
    """A queue that triggers a function. Thread-safe."""

    def __init__(
        self, settings: Settings, name: str, *, connections: int, credential: TokenCredential | None = None
    ) -> None:
        options: dict[str, Any] = client_options(connections)
        # The Functions host expects Base64.
        options["message_encode_policy"] = TextBase64EncodePolicy()
        if settings.storage_connection_string:
            connection_string = settings.storage_connection_string.get_secret_value()
            try:
                self._client = QueueClient.from_connection_string(connection_string, name, **options)
            except ValueError:
                raise SettingsError(INVALID_CONNECTION_STRING) from None
            return
        if settings.queue_service_uri is None:
            raise SettingsError("AzureWebJobsStorage__queueServiceUri: is missing. Set it to the queue endpoint.")
        credential = credential or storage_credential(settings)
        self._client = QueueClient(settings.queue_service_uri, name, credential=credential, **options)

    def _send(self, content: object, **options: int) -> None:
        """Send one message: JSON."""
        send = partial(self._client.send_message, json.dumps(content), **options)
        with storage_errors("send message"):
            try:
                send()
            except ResourceNotFoundError:
                # In Azure the queue exists, because the Bicep template creates it.
                self._client.create_queue()
                send()


class WorkQueue(_Queue):
    """Sends ids of generations. The timer sends a lost message again."""

    def send(self, ids: Sequence[str], turn: Turn | None = None) -> None:
        """Send one message with all of these.

        Parameters
        ----------
        turn
            Lets them begin. None: they wait while earlier ones wait.

        Raises
        ------
        StorageUnavailableError
            If it could not be sent.
        """
        given = {"turn": {"deployment": turn.address}} if turn else {}
        # The timer sends turns one by one, and repeats one that fails in its next pass.
        options = _ONCE if turn else {}
        self._send({"ids": list(ids), **given}, **options)
        log_event("work.queued", ids=len(ids))

    def count(self) -> int:
        """Messages in the queue, those included that a worker is processing. Approximate.

        Raises
        ------
        StorageUnavailableError
            If storage does not answer.
        """
        with storage_errors("count messages"):
            try:
                return self._client.get_queue_properties().approximate_message_count or 0
            except ResourceNotFoundError:
                return 0


class SlotQueue(_Queue):
    """Sends messages that start a slot early. The timer makes good for a lost one."""

    def send(self, delay: int) -> None:
        """Send a message that workers see after this many seconds. What it says is for operators only.

        Raises
        ------
        StorageUnavailableError
            If it could not be sent. The send is not repeated: the caller of a start waits.
        """
        self._send({"delay": delay}, visibility_timeout=delay, **_ONCE)
        log_event("slot.requested", seconds=delay)


@dataclass(frozen=True, slots=True)
class Message:
    """What a message asks for."""

    ids: tuple[str, ...]
    turn: Turn | None = None


def read_message(content: str | bytes) -> Message:
    """What a message asks for.

    Raises
    ------
    ValueError
        If the message is malformed. Retries do not help: the host moves it to the poison queue for the operator.
    """
    given = json.loads(content)
    message = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    ids = message.get("ids")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in cast("list[Any]", ids)):
        raise ValueError('a message must be {"ids": ["…"]}')
    return Message(tuple(cast("list[str]", ids)), _turn(message.get("turn")))


def _turn(given: object) -> Turn | None:
    if not isinstance(given, dict):
        return None
    address = cast("dict[str, Any]", given).get("deployment")
    return Turn(address if isinstance(address, str) else None)
