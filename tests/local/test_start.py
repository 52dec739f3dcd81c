"""`make start` as a process: it is killed, stopped, started again, and asked for what it cannot do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from imagegen.settings import Settings
from local.processes import Child, running
from local.settings import LocalSettings
from local.stack import EVERY_MODEL, ROOT
from local.start import Command, developer_stack
from tests.e2e.conftest import result, start, until
from tests.scripted_server import ScriptedServer

MODELS = [entry["name"] for entry in json.loads(EVERY_MODEL)]
COMMAND = [sys.executable, "-u", "-m", "local", "start"]


def environment(data: Path, **settings: str) -> dict[str, str]:
    """Return a value for every variable, and choose ports that no other test uses."""
    if not data.exists():
        data.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as app, socket.create_server(("127.0.0.1", 0)) as emulator:
            ports = {"app": app.getsockname()[1], "emulator": emulator.getsockname()[1]}
        (data / "ports.json").write_text(json.dumps(ports))
    return {
        **dict.fromkeys((field.alias or "" for field in Settings.model_fields.values() if field.alias), ""),
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "AZURE_OPENAI_API_KEY": "local-openai-key",
        "POLL_SCHEDULE": "*/2 * * * * *",
        "PORT": "",
        "KEYS": "",
        "DATA": str(data),
        **settings,
    }


@contextmanager
def started(data: Path, **settings: str) -> Generator[tuple[Child, str]]:
    """Yield the process, and the address of the app."""
    with running(COMMAND, env=environment(data, **settings), cwd=ROOT) as child:
        base = child.wait_for(r"^The app +(http\S+)/health", timeout=120).group(1)
        child.wait_for("^Ctrl-C stops everything")
        yield child, base


def refused(data: Path, **settings: str) -> str:
    """Return what a start prints that ends with an error."""
    with running(COMMAND, env=environment(data, **settings), cwd=ROOT) as child:
        assert child.wait(60) == 1
        printed = "".join(child.lines())
    assert "Traceback" not in printed
    return printed


def test_every_model_goes_on_after_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data) as (first, base):
        answers = [start(base, "[seconds:3] a lighthouse", model=model) for model in MODELS]
        emulator = re.search(r"^The image APIs +(\S+)$", first.output, re.MULTILINE)
        assert emulator
        until(lambda: calls(emulator[1]) == len(MODELS) - 1 or None, what="calls")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    with started(data) as (second, _):
        note = f"The last run was killed. Nothing is lost: {len(MODELS)} generations go on."
        assert note in second.output
        assert f"{len(MODELS) - 1} calls were cut: they are repeated and may be billed again." in second.output
        for answer in answers:
            assert result(answer.headers["Location"]).json()["status"] == "succeeded"

        second.signal(signal.SIGINT)  # running calls end, and nothing is killed
        assert second.wait() == 0
        assert list(second.lines())[-1] == "Stopped. Nothing is lost: make start goes on with it.\n"
        assert "Traceback" not in second.output


def calls(emulator: str) -> int:
    return requests.get(f"{emulator}/_emulator/stats", timeout=10).json()["calls"]


def test_own_server_of_the_environment_is_used(tmp_path: Path, server: ScriptedServer) -> None:
    server.answers(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    data, endpoint = tmp_path / "data", f"{server.url}/path"
    with started(data, AZURE_OPENAI_ENDPOINT=endpoint) as (child, base):
        assert f"{endpoint} (AZURE_OPENAI_ENDPOINT of environment; no emulator)" in child.output
        assert re.search(r"^Settings .*; from the environment: .*AZURE_OPENAI_ENDPOINT", child.output, re.MULTILINE)
        start(base, "a lighthouse", model="operations")
        start(base, "a lighthouse", model="gpt-image-2")
        seen = {"/path/openai/images/generations:submit", "/path/openai/v1/images/generations"}
        until(lambda: seen <= {one.target.partition("?")[0] for one in server.seen} or None, what="requests")

        assert f"make start is already running (pid {child.pid}) with the data in {data}." in refused(data)
        port = base.rpartition(":")[2].partition("/")[0]
        assert f"PORT={port} cannot be used: Address already in use." in refused(tmp_path / "other", PORT=port)
        assert "The folder /proc/x cannot be used for the data: " in refused(data, DATA="/proc/x")
        assert "DATA=~nouser/x names a user that does not exist." in refused(data, DATA="~nouser/x")

        os.kill(azurite_of(child), signal.SIGKILL)
        assert child.wait() == 1
        last = list(child.lines())[-1]
        assert last == "Azurite ended unexpectedly: see the output above. Nothing is lost: run make start again.\n"


def azurite_of(parent: Child) -> int:
    found = subprocess.run(["pgrep", "-P", str(parent.pid), "-f", "azurite.js"], capture_output=True, check=True)
    return int(found.stdout)


def test_invalid_settings_are_sentences(tmp_path: Path) -> None:
    printed = refused(
        tmp_path / "data",
        IMAGE_DEPLOYMENTS="[",
        RETENTION_DAYS="x",
        AZURE_OPENAI_ENDPOINT="http://a.example.com",
    )
    assert printed.startswith("Invalid settings:\n")
    for name in ("IMAGE_DEPLOYMENTS", "RETENTION_DAYS", "AZURE_OPENAI_ENDPOINT"):
        assert f"\n  {name}: " in printed
    assert not (tmp_path / "data" / "azurite").exists()


def test_port_that_is_used_after_the_choice_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        services = ("blobs", "emulator", "app")
        ports = {
            name: stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for name in services
        }
        settings = environment(tmp_path, KEYS="")
        (tmp_path / "ports.json").write_text(json.dumps(ports))
        raced: set[int] = set()

        def is_free_at_first(port: int) -> bool:
            is_first = port not in raced
            raced.add(port)
            return is_first

        monkeypatch.setattr("local.data_folder.is_free", is_free_at_first)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        asked = LocalSettings(ROOT / "local.settings.json", settings)
        running = stack.enter_context(developer_stack(asked, Command(tmp_path, None, None)))
        assert requests.get(f"{running.stack.base_url}/health", timeout=30).status_code == 200
        for name, port in ports.items():
            assert f"Port {port} ({name}) is in use by another program, so a free port is used." in "".join(
                running.notes
            )
