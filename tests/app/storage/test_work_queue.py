"""The work queue on a real Azurite."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Generator
from contextlib import suppress

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient

from imagegen.errors import StorageUnavailableError
from imagegen.lifecycle.ports import Turn
from imagegen.settings import Settings, SettingsError, read_settings
from imagegen.storage import work_queue
from imagegen.storage.work_queue import CALLS_QUEUE, SLOTS_QUEUE, Message, SlotQueue, WorkQueue, read_message
from local.azurite import Azurite
from tests.app.generations import ID

NEEDED = {
    "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
    "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
    "POLL_SCHEDULE": "0 * * * * *",
}


def settings(connection_string: str) -> Settings:
    return read_settings(NEEDED | {"AzureWebJobsStorage": connection_string})


@pytest.fixture
def raw(azurite: Azurite) -> Generator[QueueClient]:
    """The queue without decoding. It does not exist yet."""
    client = QueueClient.from_connection_string(azurite.connection_string, CALLS_QUEUE)
    with suppress(ResourceNotFoundError):
        client.delete_queue()
    yield client
    client.close()


def test_message_is_base64_of_json(azurite: Azurite, raw: QueueClient) -> None:
    WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1).send([ID, "another"])
    message = raw.receive_message()
    assert message is not None
    content = b64decode(message.content, validate=True)
    assert json.loads(content) == {"ids": [ID, "another"]}
    assert read_message(content) == Message((ID, "another"))  # the Functions worker passes bytes


def test_missing_queue_is_created(azurite: Azurite, raw: QueueClient) -> None:
    queue = WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1)
    for number in range(3):
        queue.send([str(number)])
    found = [read_message(b64decode(message.content)).ids for message in raw.receive_messages(max_messages=10)]
    assert sorted(found) == [("0",), ("1",), ("2",)]


def test_largest_batch_fits_into_a_message(azurite: Azurite, raw: QueueClient) -> None:
    WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1).send([ID] * 200)
    assert raw.receive_message() is not None  # the limit is 64 KiB of base64


def test_count_includes_messages_in_work(azurite: Azurite, raw: QueueClient) -> None:
    queue = WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1)
    assert queue.count() == 0  # the queue does not exist yet
    for number in range(3):
        queue.send([str(number)])
    assert raw.receive_message() is not None
    assert queue.count() == 3


def test_log_holds_no_id_and_no_account(azurite: Azurite, raw: QueueClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "imagegen"):
        WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1).send([ID])
    assert [record.getMessage() for record in caplog.records if record.name == "imagegen"] == ["work.queued ids=1"]


@pytest.mark.parametrize("exists", [False, True])
def test_message_for_a_slot_is_visible_after_its_delay(
    azurite: Azurite, caplog: pytest.LogCaptureFixture, exists: bool
) -> None:
    queue = SlotQueue(settings(azurite.connection_string), SLOTS_QUEUE, connections=1)
    with QueueClient.from_connection_string(azurite.connection_string, SLOTS_QUEUE) as slots:
        with suppress(ResourceNotFoundError):
            slots.delete_queue()
        if exists:
            slots.create_queue()
        with caplog.at_level("INFO", "imagegen"):
            queue.send(3_600)
        assert slots.receive_message() is None
        queue.send(0)
        message = slots.receive_message()
        assert message is not None
        assert b64decode(message.content, validate=True) == b'{"delay": 0}'
        assert slots.get_queue_properties().approximate_message_count == 2
    assert caplog.messages == ["slot.requested seconds=3600"]


def test_unreachable_queue_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_retries(_: int) -> dict[str, int]:
        return {"retry_total": 0}

    monkeypatch.setattr(work_queue, "client_options", without_retries)
    unreachable = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;QueueEndpoint=http://127.0.0.1:1/a;"
    with pytest.raises(StorageUnavailableError, match=r"^send message$"):
        WorkQueue(settings(unreachable), CALLS_QUEUE, connections=1).send([ID])


def test_invalid_connection_string_is_named_but_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"^AzureWebJobsStorage: ") as caught:
        WorkQueue(settings("s3cret"), CALLS_QUEUE, connections=1)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "turn"),
    [
        ('{"ids": ["a", "b"]}', None),
        (b'{"ids": ["a", "b"]}', None),
        ('{"ids": ["a", "b"], "later": 1}', None),
        ('{"ids": ["a", "b"], "turn": {}}', Turn()),
        ('{"ids": ["a", "b"], "turn": {"deployment": null}}', Turn()),
        ('{"ids": ["a", "b"], "turn": {"deployment": "h/d"}}', Turn("h/d")),
        ('{"ids": ["a", "b"], "turn": true}', None),
    ],
)
def test_read_message(content: str | bytes, turn: Turn | None) -> None:
    assert read_message(content) == Message(("a", "b"), turn)


def test_message_can_give_a_turn(azurite: Azurite, raw: QueueClient) -> None:
    WorkQueue(settings(azurite.connection_string), CALLS_QUEUE, connections=1).send([ID], Turn("h/d"))
    message = raw.receive_message()
    assert message is not None
    assert read_message(b64decode(message.content)) == Message((ID,), Turn("h/d"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"not json", "Expecting value"),
        (b"\xff\xfe\x00", "truncated data|can't decode"),
        (b"null", "must be"),
        (b"[]", "must be"),
        (b'"ids"', "must be"),
        (b"{}", "must be"),
        (b'{"ids": null}', "must be"),
        (b'{"ids": "abc"}', "must be"),  # text instead of a list
        (b'{"ids": {"a": 1}}', "must be"),
        (b'{"ids": [1]}', "must be"),
        (b'{"ids": ["a", null]}', "must be"),
        (b'{"prompt": "x"}', "must be"),  # a message of another app
    ],
)
def test_malformed_message_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        read_message(content)
    assert "prompt" not in str(caught.value)
