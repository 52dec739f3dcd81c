"""The queue of long work on a real Azurite: what goes in, and what the host makes of it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Generator
from contextlib import suppress

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient

from imagegen.errors import StorageUnavailableError
from imagegen.settings import Settings, SettingsError, read_settings
from imagegen.storage import work_queue
from imagegen.storage.work_queue import QUEUE, WorkQueue, read_ids
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
    """The queue as it is, without any decoding; it is not there yet."""
    client = QueueClient.from_connection_string(azurite.connection_string, QUEUE)
    with suppress(ResourceNotFoundError):
        client.delete_queue()
    yield client
    client.close()


def test_a_message_is_base64_of_json_as_the_host_reads_it(azurite: Azurite, raw: QueueClient) -> None:
    WorkQueue(settings(azurite.connection_string), connections=1).send([ID, "another"])
    message = raw.receive_message()
    assert message is not None
    content = b64decode(message.content, validate=True)
    assert json.loads(content) == {"ids": [ID, "another"]}
    assert read_ids(content) == [ID, "another"]  # bytes are what the worker hands over


def test_a_queue_that_is_not_there_is_made_once(azurite: Azurite, raw: QueueClient) -> None:
    queue = WorkQueue(settings(azurite.connection_string), connections=1)
    for number in range(3):
        queue.send([str(number)])
    found = [read_ids(b64decode(message.content)) for message in raw.receive_messages(max_messages=10)]
    assert sorted(found) == [["0"], ["1"], ["2"]]


def test_a_message_is_small_enough_for_the_largest_batch(azurite: Azurite, raw: QueueClient) -> None:
    WorkQueue(settings(azurite.connection_string), connections=1).send([ID] * 200)
    assert raw.receive_message() is not None  # 64 KiB are the limit, in base64


def test_no_log_line_holds_a_generation_or_the_account(
    azurite: Azurite, raw: QueueClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "imagegen"):
        WorkQueue(settings(azurite.connection_string), connections=1).send([ID])
    assert [record.getMessage() for record in caplog.records if record.name == "imagegen"] == ["work.queued ids=1"]


def test_a_queue_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_retries(_: int) -> dict[str, int]:
        return {"retry_total": 0}

    monkeypatch.setattr(work_queue, "client_options", without_retries)
    away = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;QueueEndpoint=http://127.0.0.1:1/a;"
    with pytest.raises(StorageUnavailableError, match=r"^send message$"):
        WorkQueue(settings(away), connections=1).send([ID])


def test_a_connection_string_that_is_none_is_named_and_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"^AzureWebJobsStorage: ") as caught:
        WorkQueue(settings("s3cret"), connections=1)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"ids": ["a", "b"]}', b'{"ids": ["a", "b"]}', '{"ids": ["a", "b"], "later": 1}'])
def test_what_we_sent_is_read(content: str | bytes) -> None:
    assert read_ids(content) == ["a", "b"]


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
        (b'{"ids": "abc"}', "must be"),  # a text is not its letters
        (b'{"ids": {"a": 1}}', "must be"),
        (b'{"ids": [1]}', "must be"),
        (b'{"ids": ["a", null]}', "must be"),
        (b'{"prompt": "x"}', "must be"),  # somebody else's message
    ],
)
def test_what_is_none_of_ours_ends_among_the_poisoned(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        read_ids(content)
    assert "prompt" not in str(caught.value)
