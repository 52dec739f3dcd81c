"""The files that azd, GitHub and the Functions host read in addition to the Bicep files."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagegen.settings import ROUTE_PREFIX
from tests.infra.bicep import INFRA, ROOT
from tests.infra.bicep_source import outputs

HOST_SCHEMA = ROOT.parent / "shared" / "reference" / "infra" / "host.schema.json"
"""The schema of host.json from schemastore.org. It is not part of this repository."""


@pytest.fixture(scope="module")
def host() -> dict[str, Any]:
    return json.loads((ROOT / "host.json").read_text(encoding="utf-8"))


def test_repository_has_the_files_of_an_azd_template() -> None:
    names = [
        ".devcontainer/devcontainer.json",
        ".funcignore",
        ".github/ISSUE_TEMPLATE/bug.md",
        ".azdignore",
        ".github/workflows/azure-dev.yml",
        ".github/workflows/ci.yml",
        ".vscode/extensions.json",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "SECURITY.md",
        "azure.yaml",
        "infra/main.bicep",
        "infra/main.parameters.json",
    ]
    missing = [name for name in names if not (ROOT / name).is_file() or not (ROOT / name).read_text("utf-8").strip()]
    assert missing == []


def test_package_contains_the_app_and_nothing_else() -> None:
    packaged = set(_git("ls-files")) - set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.funcignore"))
    app = {name for name in packaged if name.startswith("imagegen/")}
    assert "imagegen/settings.py" in app
    assert packaged - app == {"function_app.py", "host.json", "requirements.txt"}


def test_package_contains_dependencies_and_no_local_files(tmp_path: Path) -> None:
    # git does not track these files: .funcignore alone keeps them out of the package, or lets them in.
    packaged = [".python_packages/lib/site-packages/azure/functions/__init__.py"]
    ignored = [
        ".venv/pyvenv.cfg",
        ".azure/demo/.env",
        "local.settings.json",
        "imagegen/__pycache__/app.cpython-313.pyc",
    ]
    rules = (ROOT / ".funcignore").read_text(encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(rules, encoding="utf-8")
    checked = subprocess.run(
        ["git", "check-ignore", *packaged, *ignored], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert checked.stdout.splitlines() == ignored
    # git check-ignore never lists its own folder.
    assert ".git" in rules.splitlines()


def test_azd_deploys_a_function_app_with_packages_of_its_own() -> None:
    service = azure_yaml()["services"]["api"]
    # remoteBuild: the build service has another Python than the app.
    expected = {"project": ".", "host": "function", "language": "python", "remoteBuild": False}
    assert {name: value for name, value in service.items() if name != "hooks"} == expected
    commands = [hook["run"].partition(" -m ")[2] for hook in service["hooks"]["prepackage"].values()]
    python = (ROOT / ".python-version").read_text(encoding="utf-8").strip()
    command = (
        "pip install --quiet --disable-pip-version-check --upgrade --target .python_packages/lib/site-packages "
        f"--only-binary=:all: --python-version {python} --implementation cp "
        "--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --requirement requirements.txt"
    )
    assert commands == [command, command]
    docs = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").replace(" \\\n  ", " ")
    assert command.replace(" --quiet --disable-pip-version-check", "") in docs


@pytest.mark.skipif(
    (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 13)),
    reason="the packages of the app are for Python 3.13 on Linux x86_64",
)
def test_packages_that_azd_deploys_import(tmp_path: Path) -> None:
    """Run the hook of azure.yaml, and import the app with nothing but the packages that it installed."""
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    command = azure_yaml()["services"]["api"]["hooks"]["prepackage"]["posix"]["run"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    installed = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to establish a new connection" in installed.stderr and "CI" not in os.environ:
        pytest.skip("no connection to a package index")
    assert installed.returncode == 0, installed.stderr
    packages = tmp_path / ".python_packages" / "lib" / "site-packages"
    native = [file.relative_to(packages) for file in packages.rglob("*.so")]
    modules = [".".join([*file.parent.parts, file.name.partition(".")[0]]) for file in native]
    assert "pydantic_core._pydantic_core" in modules
    code = (
        f"import sys, importlib; sys.path[:0] = {[str(ROOT), str(packages)]!r}\n"
        f"for name in {[*modules, 'azure.identity']!r}: importlib.import_module(name)\n"
        "import function_app; print(len(function_app.app.get_functions()))"
    )
    imported = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False
    )
    assert (imported.returncode, imported.stderr) == (0, "")
    assert int(imported.stdout) > 10


def test_hooks_exist_and_are_executable() -> None:
    hooks = azure_yaml()["hooks"]
    named = [hook["run"] for hook in hooks["postup"].values()]
    # A missing `az login` must not stop a deployment whose provider is registered already.
    for hook in hooks["preprovision"].values():
        assert "az provider register --namespace Microsoft.App --wait" in hook["run"]
        assert "NETWORK" in hook["run"]
        assert hook["continueOnError"]
    assert {Path(name).suffix for name in named} == {".sh", ".ps1"}
    for name in named:
        assert (ROOT / name).is_file(), name
        if name.endswith(".sh"):
            assert (ROOT / name).stat().st_mode & stat.S_IXUSR


def test_printed_lines_start_a_generation(tmp_path: Path) -> None:
    """Run the lines as a user pastes them, with an `az` and a `curl` that write down their arguments."""
    variables = {
        "FUNCTION_KEY_COMMAND": "az functionapp keys list --name func-x",
        "BASE_URL": "https://func-x.example/api",
    }
    assert variables.keys() <= outputs()
    path = "/usr/bin:/bin"
    printed = subprocess.run(
        [INFRA / "hooks" / "first-image.sh"],
        env={"PATH": path, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = "\n".join(line for line in printed.splitlines() if line.startswith("  "))
    for tool, answer in (("az", "the-key"), ("curl", "")):
        stub = tmp_path / tool
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{stub}.arguments"\necho "{answer}"\n', encoding="utf-8")
        stub.chmod(0o755)
    subprocess.run(["sh", "-eu", "-c", lines], env={"PATH": f"{tmp_path}:{path}"}, check=True)
    assert (tmp_path / "az.arguments").read_text(encoding="utf-8").split() == variables["FUNCTION_KEY_COMMAND"].split()[
        1:
    ]
    arguments = (tmp_path / "curl.arguments").read_text(encoding="utf-8").splitlines()
    assert f"{variables['BASE_URL']}/generations" in arguments
    assert "x-functions-key: the-key" in arguments
    assert json.loads(arguments[arguments.index("-d") + 1]) == {"prompt": "a lighthouse in fog, oil on canvas"}


def test_workflows_use_no_secret_and_least_rights() -> None:
    workflows = list((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) == 2
    for file in workflows:
        text = file.read_text(encoding="utf-8")
        assert "secrets." not in text, file
        assert "\npermissions:\n  contents: read\n" in text, file
        assert "pull_request_target" not in text, file
    deploys = (ROOT / ".github" / "workflows" / "azure-dev.yml").read_text(encoding="utf-8")
    assert "id-token: write" in deploys
    assert "--federated-credential-provider github" in deploys


@pytest.mark.skipif(not HOST_SCHEMA.is_file(), reason="no schema of host.json next to this repository")
def test_host_json_matches_its_schema(host: dict[str, Any]) -> None:
    from jsonschema import Draft7Validator

    schema = json.loads(HOST_SCHEMA.read_text(encoding="utf-8"))
    problems = [problem.message for problem in Draft7Validator(schema).iter_errors(host)]  # pyright: ignore[reportUnknownMemberType]
    assert problems == []


def test_host_json_silences_the_storage_clients_of_the_host(host: dict[str, Any]) -> None:
    # They log each poll of a queue as Information.
    assert host["logging"]["logLevel"] == {"default": "Information", "Azure": "Warning"}


def test_host_json_has_the_version_and_timeout_of_the_app(host: dict[str, Any]) -> None:
    assert host["version"] == "2.0"
    # Version 4 of the bundle: version 5 may break bindings.
    assert host["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.*, 5.0.0)",
    }
    assert host["extensions"]["http"]["routePrefix"] == ROUTE_PREFIX
    # Longer than an image call (up to 250 s measured), and short enough to end a hanging run.
    assert timedelta(minutes=5) < _time(host["functionTimeout"]) <= timedelta(minutes=30)


def test_failed_message_is_retried_later_then_poison(host: dict[str, Any]) -> None:
    queues = host["extensions"]["queues"]
    assert 1 <= queues["batchSize"] <= 32
    assert 0 < queues["newBatchThreshold"] <= queues["batchSize"]
    # With the default of 0, a message would be poison one second into an outage.
    assert _time(queues["visibilityTimeout"]) >= timedelta(seconds=10)
    assert 2 <= queues["maxDequeueCount"] <= 10
    # The app writes base64, the default of the host.
    assert queues.get("messageEncoding", "base64") == "base64"


def test_sampling_keeps_every_run_and_exception(host: dict[str, Any]) -> None:
    sampling = host["logging"]["applicationInsights"]["samplingSettings"]
    assert sampling["isEnabled"]
    assert set(sampling["excludedTypes"].split(";")) >= {"Request", "Exception"}
    # The alerts read log events of these levels.
    assert host["logging"]["logLevel"]["default"] == "Information"


def azure_yaml() -> Any:
    return yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def _time(text: str) -> timedelta:
    hours, minutes, seconds = map(int, text.split(":"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
