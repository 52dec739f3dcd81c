"""What keeps the host from starting, and what it says then."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from local.processes import python, running
from tests.host.conftest import APPS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

NO_STORAGE = {"AzureWebJobsStorage": "", "SCHEDULE": "0 * * * * *"}
NOBODY = (
    "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;"
    "BlobEndpoint=http://127.0.0.1:9/a;QueueEndpoint=http://127.0.0.1:9/a;"
)


def output_of_failed_start(root: Path, **env: str) -> str:
    with running(python("local.host", "--port", "0", "--root", str(root)), env=env, cwd=ROOT) as child:
        assert child.wait() == 1
    return child.output


@pytest.mark.parametrize(
    ("app", "env", "words"),
    [
        # the runtime's own message and its stack trace
        ("bad_import", {}, ["Cannot find module", "there_is_no_such_module", 'function_app.py", line 4']),
        (
            "bad_binding",
            {},
            ["cannot load the mismatched function", "declared in Python but not in the function definition"],
        ),
        ("unsupported", {}, ["function stored", "binding blob", "blobTrigger does not exist in the local host"]),
        (
            "timers",
            {"AzureWebJobsStorage": NOBODY},
            ["function tick, binding timer: setting SCHEDULE of '%SCHEDULE%' is not set"],
        ),
        ("timers", {**NO_STORAGE, "SCHEDULE": "* * * * *"}, ["AzureWebJobsStorage is not set"]),
        ("queues", {**NO_STORAGE, "IN": "in", "OUT": "out"}, ["AzureWebJobsStorage is not set"]),
        (
            "queues",
            {"AzureWebJobsStorage": "", "AzureWebJobsStorage__queueServiceUri": "https://x", "IN": "i", "OUT": "o"},
            ["identity", "does not support"],
        ),
        ("timers", {"AzureWebJobsStorage": NOBODY, "SCHEDULE": "0 * * * * *"}, ["storage cannot be used"]),
        (
            "timers",
            {"AzureWebJobsStorage": NOBODY, "SCHEDULE": "* * * * *"},
            ["function tick, binding timer", "'* * * * *' has 5 fields, not 6"],
        ),
        ("nowhere", {}, ["host.json does not exist"]),
    ],
)
def test_an_app_that_cannot_run_says_why_and_exits_1(app: str, env: dict[str, str], words: list[str]) -> None:
    output = output_of_failed_start(APPS / app, **env)
    assert "Ready" not in output
    for word in words:
        assert word in output


@pytest.mark.parametrize("name", ["host.json", "local.settings.json"])
def test_bad_json_is_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    shutil.copytree(APPS / "http", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "app" / name).write_text('{\n  "version": "2.0",\n}\n')
    assert f"{name}, line 2, column 19" in output_of_failed_start(tmp_path / "app")


def test_a_folder_without_functions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    assert "0 functions found" in output_of_failed_start(tmp_path)
