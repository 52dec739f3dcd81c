"""newman runs the Postman collection in connectors/postman."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from local.stack import ROOT, Stack
from tests.clients.conftest import COMPAT_KEY, all_generations
from tests.clients.installed import newman

_FOLDER = ROOT / "connectors" / "postman"


def test_every_step_of_the_collection_passes(stack: Stack, tmp_path: Path) -> None:
    before = {found["id"] for found in all_generations(stack)}
    collection = _FOLDER / "imagegen.postman_collection.json"
    report = tmp_path / "report.json"
    variables = {"baseUrl": stack.base_url, "apiKey": COMPAT_KEY, "pollSeconds": "0.2"}
    command = [*newman(), "run", str(collection), "--environment", str(_FOLDER / "local.postman_environment.json")]
    command += [word for name, value in variables.items() for word in ("--env-var", f"{name}={value}")]
    command += [
        "--reporters",
        "cli,json",
        "--reporter-json-export",
        str(report),
        "--color",
        "off",
        "--timeout",
        "60000",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    ran = json.loads(report.read_text())["run"]["executions"]
    assert {step["item"]["name"] for step in ran} == set(_names(json.loads(collection.read_text())))
    assert all(step["assertions"] for step in ran), "a step has no check"
    canceled = next(step for step in ran if step["item"]["name"] == "7: cancel it")
    assert json.loads(bytes(canceled["response"]["stream"]["data"]))["status"] == "canceled"
    assert {found["id"] for found in all_generations(stack)} == before, "the collection must delete its generations"


def _names(item: dict[str, Any]) -> list[str]:
    return [item["name"]] if "request" in item else [name for inner in item["item"] for name in _names(inner)]
