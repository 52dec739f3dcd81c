"""What azd, GitHub and the Functions host read beside the Bicep files."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from imagegen.settings import ROUTE_PREFIX
from tests.infra.bicep import INFRA, ROOT

HOST_SCHEMA = ROOT.parent / "shared" / "reference" / "infra" / "host.schema.json"
"""The schema of host.json from schemastore.org. It is no part of this repository: without it the rules below stand."""


@pytest.fixture(scope="module")
def host() -> dict[str, Any]:
    return json.loads((ROOT / "host.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        ".devcontainer/devcontainer.json",
        ".funcignore",
        ".github/ISSUE_TEMPLATE/bug.md",
        ".github/workflows/azure-dev.yml",
        ".github/workflows/ci.yml",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "SECURITY.md",
        "azure.yaml",
        "infra/main.bicep",
        "infra/main.parameters.json",
    ],
)
def test_an_azd_template_has_this_file(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


def test_the_package_has_the_app_and_nothing_else() -> None:
    packaged = set(_git("ls-files")) - set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.funcignore"))
    app = {name for name in packaged if name.startswith("imagegen/")}
    assert "imagegen/settings.py" in app
    assert packaged - app == {"function_app.py", "host.json", "requirements.txt"}


@pytest.mark.parametrize(
    ("name", "packaged"),
    [
        (".python_packages/lib/site-packages/azure/functions/__init__.py", True),
        (".venv/pyvenv.cfg", False),
        (".azure/demo/.env", False),
        (".git/config", False),
        ("local.settings.json", False),
        ("imagegen/__pycache__/api.cpython-313.pyc", False),
    ],
)
def test_what_git_does_not_know_is_packaged_or_not(tmp_path: Path, name: str, packaged: bool) -> None:
    rules = (ROOT / ".funcignore").read_text(encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(rules, encoding="utf-8")
    ignored = subprocess.run(["git", "check-ignore", "--quiet", name], cwd=tmp_path, check=False).returncode == 0
    assert ignored is not packaged or name.startswith(".git/")  # git never lists its own folder
    if name.startswith(".git/"):
        assert ".git" in rules.splitlines()


def test_packages_are_those_of_the_python_that_runs_the_app() -> None:
    text = (ROOT / "azure.yaml").read_text(encoding="utf-8")
    python = (ROOT / ".python-version").read_text(encoding="utf-8").strip()
    commands = re.findall(r"python3? -m pip install[\s\S]*?--requirement (\S+)", text)
    assert commands == ["requirements.txt", "requirements.txt"]
    assert re.findall(r"--python-version (\S+)", text) == [python, python]
    assert text.count("--target .python_packages/lib/site-packages") == 2
    assert "remoteBuild: false" in text


def test_hooks_are_there_and_can_be_run() -> None:
    named = re.findall(r"run: (infra/hooks/\S+)", (ROOT / "azure.yaml").read_text(encoding="utf-8"))
    assert {Path(name).suffix for name in named} == {".sh", ".ps1"}
    for name in named:
        assert (ROOT / name).is_file(), name
        if name.endswith(".sh"):
            assert (ROOT / name).stat().st_mode & stat.S_IXUSR


def test_the_printed_lines_start_a_generation(tmp_path: Path, template: dict[str, Any]) -> None:
    """They are run as they are pasted, with an az and a curl that write down what they are asked."""
    outputs = {
        "FUNCTION_KEY_COMMAND": "az functionapp keys list --name func-x",
        "BASE_URL": "https://func-x.example/api",
    }
    assert outputs.keys() <= template["outputs"].keys()
    path = "/usr/bin:/bin"
    printed = subprocess.run(
        [INFRA / "hooks" / "first-picture.sh"],
        env={"PATH": path, **outputs},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = "\n".join(line for line in printed.splitlines() if line.startswith("  "))
    for tool, answer in (("az", "the-key"), ("curl", "")):
        stub = tmp_path / tool
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{stub}.said"\necho "{answer}"\n', encoding="utf-8")
        stub.chmod(0o755)
    subprocess.run(["sh", "-eu", "-c", lines], env={"PATH": f"{tmp_path}:{path}"}, check=True)
    assert (tmp_path / "az.said").read_text(encoding="utf-8").split() == outputs["FUNCTION_KEY_COMMAND"].split()[1:]
    said = (tmp_path / "curl.said").read_text(encoding="utf-8").splitlines()
    assert f"{outputs['BASE_URL']}/generations" in said
    assert "x-functions-key: the-key" in said
    assert json.loads(said[said.index("-d") + 1]) == {"prompt": "a lighthouse in fog, oil on canvas"}


def test_pipelines_hold_no_secret_and_take_the_least_rights() -> None:
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = file.read_text(encoding="utf-8")
        assert "secrets." not in text, file
        assert "\npermissions:\n  contents: read\n" in text, file
        assert "pull_request_target" not in text, file
    deploys = (ROOT / ".github" / "workflows" / "azure-dev.yml").read_text(encoding="utf-8")
    assert "id-token: write" in deploys
    assert "--federated-credential-provider github" in deploys


def test_host_json_fits_its_schema(host: dict[str, Any]) -> None:
    if not HOST_SCHEMA.is_file():
        return  # the next test is always there
    from jsonschema import Draft7Validator

    schema = json.loads(HOST_SCHEMA.read_text(encoding="utf-8"))
    problems = [problem.message for problem in Draft7Validator(schema).iter_errors(host)]  # pyright: ignore[reportUnknownMemberType]
    assert problems == []


def test_host_json_is_what_the_app_needs(host: dict[str, Any]) -> None:
    assert host["version"] == "2.0"
    # Version 4 of the bundle, and never 5 by surprise.
    assert host["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.*, 5.0.0)",
    }
    assert host["extensions"]["http"]["routePrefix"] == ROUTE_PREFIX
    # Longer than an image call may take (250 s were seen), and an end for what hangs.
    assert timedelta(minutes=5) < _time(host["functionTimeout"]) <= timedelta(minutes=30)


def test_a_failed_message_waits_and_is_poison_in_the_end(host: dict[str, Any]) -> None:
    queues = host["extensions"]["queues"]
    assert 1 <= queues["batchSize"] <= 32
    assert 0 < queues["newBatchThreshold"] <= queues["batchSize"]
    # The default is 0: what fails because something is down would be poison within a second.
    assert _time(queues["visibilityTimeout"]) >= timedelta(seconds=10)
    assert 2 <= queues["maxDequeueCount"] <= 10
    # The app writes what the host's default reads: base64.
    assert queues.get("messageEncoding", "base64") == "base64"


def test_sampling_leaves_runs_and_exceptions_whole(host: dict[str, Any]) -> None:
    sampling = host["logging"]["applicationInsights"]["samplingSettings"]
    assert sampling["isEnabled"]
    assert set(sampling["excludedTypes"].split(";")) >= {"Request", "Exception"}
    # The log events that alerts read are written at these levels.
    assert host["logging"]["logLevel"]["default"] == "Information"


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def _time(text: str) -> timedelta:
    hours, minutes, seconds = map(int, text.split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
