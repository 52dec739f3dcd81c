from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.host import storage
from local.host.settings import ConfigurationError, HostSettings, QueueSettings, load

CONNECTION = (
    "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;"
    "BlobEndpoint=http://127.0.0.1:8/a;QueueEndpoint=http://127.0.0.1:9/a;"
)


def write(root: Path, host_json: dict[str, Any]) -> Path:
    (root / "host.json").write_text(json.dumps({"version": "2.0", **host_json}))
    return root


def test_defaults_are_those_of_azure(tmp_path: Path) -> None:
    settings = load(write(tmp_path, {}), {})
    assert settings.route_prefix == "api"
    assert settings.queues == QueueSettings(
        batch_size=16,
        new_batch_threshold=None,
        visibility_timeout=timedelta(),
        max_dequeue_count=5,
        max_polling_interval=timedelta(minutes=1),
    )


def test_host_json_is_read(tmp_path: Path) -> None:
    queues = {"batchSize": 4, "newBatchThreshold": 1, "visibilityTimeout": "01:02:03", "maxDequeueCount": 2}
    queues |= {"maxPollingInterval": "00:00:00.500"}
    extensions = {"http": {"routePrefix": "/a/b/"}, "queues": queues}
    settings = load(write(tmp_path, {"extensions": extensions, "logging": {}}), {})
    assert settings.route_prefix == "a/b"
    assert settings.queues == QueueSettings(
        batch_size=4,
        new_batch_threshold=1,
        visibility_timeout=timedelta(hours=1, minutes=2, seconds=3),
        max_dequeue_count=2,
        max_polling_interval=timedelta(seconds=0.5),
    )


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ({"batchSize": 33}, "batchSize: Input should be less than or equal to 32"),
        ({"visibilityTimeout": 30}, "visibilityTimeout: 30 is not a time span such as '00:00:30'"),
        ({"visibilityTimeout": "30"}, "visibilityTimeout: '30' is not a time span such as '00:00:30'"),
        ({"maxPollingInterval": "00:00:00"}, "maxPollingInterval: the shortest interval is '00:00:00.100'"),
        ({"messageEncoding": "none"}, "messageEncoding: Input should be 'base64'"),
        ({"maxDequeueCount": 0}, "maxDequeueCount: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_value_is_named(tmp_path: Path, queues: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(write(tmp_path, {"extensions": {"queues": queues}}), {})
    assert str(raised.value) == f"{tmp_path / 'host.json'}: extensions.queues.{message}"


def test_override_of_host_json_is_not_supported(tmp_path: Path) -> None:
    name = "AzureFunctionsJobHost__extensions__queues__batchSize"
    with pytest.raises(ConfigurationError, match=f"does not support the setting {name}"):
        load(write(tmp_path, {}), {name: "1"})


def test_host_id_is_the_setting_or_one_per_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = write(tmp_path, {}), write(tmp_path / "other", {})
    assert load(first, {}).host_id == load(first, {}).host_id != load(second, {}).host_id
    assert load(first, {"AzureFunctionsWebHost__hostid": "mine"}).host_id == "mine"


def test_settings_in_percent_signs_are_resolved() -> None:
    settings = HostSettings("id", {"A": "1", "B": "2"})
    assert settings.resolve("%A%-%B%-plain", where="function f, binding b") == "1-2-plain"
    with pytest.raises(ConfigurationError, match="function f, binding b: '%C%' needs the setting C"):
        settings.resolve("%C%", where="function f, binding b")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AzureWebJobsStorage": ""},
        {"AzureWebJobsStorage": "AccountKey=c2VjcmV0"},
        {"AzureWebJobsStorage__queueServiceUri": "https://x"},
    ],
)
def test_storage_without_connection_string_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="AzureWebJobsStorage is not a connection string") as raised:
        storage.hosts_container(environ)
    assert "c2VjcmV0" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="AzureWebJobsStorage is not a connection string") as raised:
        storage.queue(environ, "q")
    assert "c2VjcmV0" not in str(raised.value)


@pytest.mark.parametrize(
    ("connection", "blobs", "queues"),
    [
        (CONNECTION, "http://127.0.0.1:8/a", "http://127.0.0.1:9/a"),
        (
            "UseDevelopmentStorage=true",
            "http://127.0.0.1:10000/devstoreaccount1",
            "http://127.0.0.1:10001/devstoreaccount1",
        ),
    ],
)
def test_storage_with_connection_string_is_used(connection: str, blobs: str, queues: str) -> None:
    environ = {"AzureWebJobsStorage": connection}
    assert storage.hosts_container(environ).url == f"{blobs}/azure-webjobs-hosts"
    assert storage.queue(environ, "q").url == f"{queues}/q"
