"""What keeps the host from starting, and the message that it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.azurite import ACCOUNT_KEY, Azurite
from local.processes import python, running
from tests.host.conftest import APPS, ROOT, CopyApp

SILENT_STORAGE = (
    "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;"
    "BlobEndpoint=http://127.0.0.1:9/a;QueueEndpoint=http://127.0.0.1:9/a;"
)
_FUNCTION_APP = """
import azure.functions as func

app = func.FunctionApp()

{decorators}
def start({parameters}): ...
"""


def output_of_failed_start(root: Path, **env: str) -> str:
    with running(python("local.host", "--port", "0", "--root", str(root)), env=env, cwd=ROOT) as child:
        assert child.wait() == 1
    assert "Ready" not in child.output
    return child.output


def write_app(root: Path, source: str) -> Path:
    (root / "host.json").write_text("{}")
    (root / "function_app.py").write_text(source)
    return root


@pytest.mark.parametrize(
    ("app", "env", "words"),
    [
        (
            "timers",
            {"AzureWebJobsStorage": SILENT_STORAGE},
            "function tick, binding timer: '%SCHEDULE%' needs the setting",
        ),
        (
            "timers",
            {"AzureWebJobsStorage": SILENT_STORAGE, "SCHEDULE": "* * * * *"},
            "function tick, binding timer: the schedule '* * * * *' has 5 fields instead of 6",
        ),
        (
            "timers",
            {"AzureWebJobsStorage": "", "SCHEDULE": "0 * * * * *"},
            "AzureWebJobsStorage is not a connection string",
        ),
        (
            "timers",
            {"AzureWebJobsStorage": "AccountName=a;AccountKey", "SCHEDULE": "0 * * * * *"},
            "AzureWebJobsStorage is not a connection string",
        ),
        (
            "timers",
            {"AzureWebJobsStorage": SILENT_STORAGE.replace("YQ==", "Y"), "SCHEDULE": "0 * * * * *"},
            "the host cannot use storage: ",
        ),
        (
            "queues",
            {"AzureWebJobsStorage": SILENT_STORAGE.replace(":9/", ":99999/"), "IN": "in"},
            "the host cannot use storage: ",
        ),
        (
            "queues",
            {"AzureWebJobsStorage": SILENT_STORAGE},
            "function answer, binding message: '%IN%' needs the setting",
        ),
    ],
)
def test_wrong_setting_is_named(app: str, env: dict[str, str], words: str) -> None:
    assert f"error: {words}" in output_of_failed_start(APPS / app, **env)


@pytest.mark.parametrize(
    "settings",
    [
        {"IN": "Not_A_Queue"},
        {"IN": "in", "key": "YQ=="},  # another key
    ],
)
def test_refusal_of_storage_is_named(azurite: Azurite, settings: dict[str, str]) -> None:
    connection_string = azurite.connection_string.replace(ACCOUNT_KEY, settings.get("key", ACCOUNT_KEY))
    output = output_of_failed_start(APPS / "queues", AzureWebJobsStorage=connection_string, IN=settings["IN"])
    assert "error: the host cannot use storage: " in output
    assert "Set AzureWebJobsStorage to the connection string" in output


@pytest.mark.parametrize(
    ("decorators", "parameters", "problem"),
    [
        (
            '@app.blob_trigger(arg_name="blob", path="c/{name}", connection="AzureWebJobsStorage")',
            "blob: func.InputStream",
            "Input tag 'blobTrigger' found",
        ),
        (
            '@app.route("x")\n@app.queue_output(arg_name="out", queue_name="q", connection="AzureWebJobsStorage")',
            "req: func.HttpRequest, out: func.Out[str]",
            "Input tag 'queue' found",
        ),
        (
            '@app.route("x", auth_level=func.AuthLevel.ADMIN)',
            "req: func.HttpRequest",
            "httpTrigger.authLevel: Input should be 'ANONYMOUS' or 'FUNCTION'",
        ),
        (
            '@app.queue_trigger(arg_name="message", queue_name="q", connection="Other")',
            "message: func.QueueMessage",
            "queueTrigger.connection: Input should be 'AzureWebJobsStorage'",
        ),
        (
            '@app.timer_trigger(arg_name="timer", schedule="0 * * * * *", run_on_startup=True)',
            "timer: func.TimerRequest",
            "timerTrigger.runOnStartup: Input should be False",
        ),
        (
            '@app.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False)',
            "timer: func.TimerRequest",
            "timerTrigger.useMonitor: Input should be True",
        ),
    ],
)
def test_unsupported_binding_is_named(tmp_path: Path, decorators: str, parameters: str, problem: str) -> None:
    source = _FUNCTION_APP.format(decorators=decorators, parameters=parameters)
    output = output_of_failed_start(write_app(tmp_path, source))
    assert "error: function start: the local host does not support the binding {" in output
    assert problem in output


def test_unsupported_retry_policy_is_named(tmp_path: Path) -> None:
    timer = '@app.timer_trigger(arg_name="timer", schedule="0 * * * * *")'
    retry = '@app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:01")'
    source = _FUNCTION_APP.format(decorators=f"{timer}\n{retry}", parameters="timer: func.TimerRequest")
    output = output_of_failed_start(write_app(tmp_path, source))
    assert "error: function start: the local host does not support retry policies" in output


def test_unsupported_route_is_named(tmp_path: Path) -> None:
    source = _FUNCTION_APP.format(decorators='@app.route("things/{id:guid}")', parameters="req: func.HttpRequest")
    output = output_of_failed_start(write_app(tmp_path, source))
    assert "error: function start: the local host does not support the route 'things/{id:guid}'" in output


@pytest.mark.parametrize(
    ("decorators", "parameters", "words"),
    [
        (
            "import there_is_no_such_module",
            "",
            ["Cannot find module", "there_is_no_such_module", 'function_app.py", line 6'],
        ),
        (
            '@app.route("x")',
            "request: func.HttpRequest",
            ["cannot load the start function", "declared in Python but not in the function definition"],
        ),
        (
            '@app.route("x")',
            "req: func.TimerRequest",
            ["cannot load the start function", "do not match the corresponding function parameter's Python type"],
        ),
    ],
)
def test_runtime_error_is_printed(tmp_path: Path, decorators: str, parameters: str, words: list[str]) -> None:
    source = _FUNCTION_APP.format(decorators=decorators, parameters=parameters)
    output = output_of_failed_start(write_app(tmp_path, source))
    assert "error: the function app cannot be loaded" in output
    for word in words:
        assert word in output


def test_syntax_error_in_host_json_is_located(copy_app: CopyApp) -> None:
    root = copy_app("http", {})
    (root / "host.json").write_text('{\n  "version": "2.0",\n}\n')
    output = output_of_failed_start(root)
    assert f"error: {root / 'host.json'}: Invalid JSON: trailing comma at line 3 column 1" in output


def test_byte_order_mark_in_host_json_is_ignored(copy_app: CopyApp) -> None:
    root = copy_app("timers", {})
    (root / "host.json").write_text(json.dumps({}), encoding="utf-8-sig")
    assert "needs the setting SCHEDULE" in output_of_failed_start(root)


def test_folder_without_host_json_is_rejected(tmp_path: Path) -> None:
    assert f"error: {tmp_path / 'host.json'} does not exist" in output_of_failed_start(tmp_path)


def test_folder_without_functions_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    assert "0 functions found" in output_of_failed_start(tmp_path)
