from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.host.logs import logger_levels
from local.host.settings import ConfigurationError, HostSettings, QueueSettings, load, parse_timespan

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, host: dict[str, Any], values: dict[str, str] | None = None) -> Path:
    (root / "host.json").write_text(json.dumps({"version": "2.0", **host}))
    if values is not None:
        (root / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    return root


def test_the_defaults_are_azures(tmp_path: Path) -> None:
    settings = load(write(tmp_path, {}), {})
    assert settings.route_prefix == "api"
    assert settings.queues == QueueSettings(
        batch_size=16, new_batch_threshold=8, visibility_timeout=timedelta(), max_dequeue_count=5, base64=True
    )


def test_host_json_is_read(tmp_path: Path) -> None:
    queues = {"batchSize": 4, "visibilityTimeout": "00:00:30", "maxDequeueCount": 2, "messageEncoding": "none"}
    root = write(tmp_path, {"extensions": {"http": {"routePrefix": ""}, "queues": queues}})
    settings = load(root, {})
    assert settings.route_prefix == ""
    assert settings.queues == QueueSettings(
        batch_size=4,
        new_batch_threshold=2,  # half of the batch
        visibility_timeout=timedelta(seconds=30),
        max_dequeue_count=2,
        base64=False,
    )


def test_the_environment_overrides_host_json(tmp_path: Path) -> None:
    root = write(tmp_path, {"extensions": {"queues": {"batchSize": 4}}})
    settings = load(root, {"AzureFunctionsJobHost__extensions__queues__batchSize": "1"})
    assert settings.queues.batch_size == 1


def test_the_environment_wins_over_local_settings(tmp_path: Path) -> None:
    root = write(tmp_path, {}, {"A": "file", "B": "file"})
    settings = load(root, {"A": "environment"})
    assert (settings.environ["A"], settings.environ["B"]) == ("environment", "file")


@pytest.mark.parametrize(
    ("queues", "words"),
    [
        ({"batchSize": 33}, "batchSize is 33, not 1 to 32"),
        ({"visibilityTimeout": 30}, "'30' is not a time span"),
        ({"messageEncoding": "hex"}, "messageEncoding is 'hex'"),
        ({"maxDequeueCount": 0}, "maxDequeueCount is 0"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, queues: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(write(tmp_path, {"extensions": {"queues": queues}}), {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:30", 30), ("01:02:03", 3723), ("1.00:00:00", 86400), ("00:00:00.500", 0.5)]
)
def test_time_spans_are_dot_nets(text: str, seconds: float) -> None:
    assert parse_timespan(text) == timedelta(seconds=seconds)


def test_settings_in_percent_signs_are_resolved(tmp_path: Path) -> None:
    settings = HostSettings(root=tmp_path, environ={"A": "1", "B": "2"})
    assert settings.resolve("%A%-%B%-plain", function="f", binding="b") == "1-2-plain"
    with pytest.raises(ConfigurationError, match="function f, binding b: setting C of '%C%' is not set"):
        settings.resolve("%C%", function="f", binding="b")


@pytest.mark.parametrize(
    ("environ", "connection", "expected"),
    [
        ({"AzureWebJobsStorage": "x"}, "AzureWebJobsStorage", "x"),
        ({"AzureWebJobsStorage": "x"}, "Storage", "x"),  # Azure finds it without the prefix too
        ({"Mine": "y"}, "Mine", "y"),
        ({"Mine": "UseDevelopmentStorage=true"}, "Mine", "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"),
    ],
)
def test_connections_are_found(tmp_path: Path, environ: dict[str, str], connection: str, expected: str) -> None:
    settings = HostSettings(root=tmp_path, environ=environ)
    assert expected in settings.connection_string(connection, wanted_by="f")


def test_log_levels_are_loggers() -> None:
    levels = {"Azure": "Warning", "Function.start": "Debug", "default": "Error", "Host.Results": "None"}
    assert logger_levels(levels) == {
        "azure": logging.WARNING,
        "": logging.DEBUG,  # the more special category, whatever the order
        "local.host": logging.CRITICAL + 10,
    }
    with pytest.raises(ConfigurationError, match=r"logLevel\.default is 'Loud'"):
        logger_levels({"default": "Loud"})
