"""schemathesis generates valid and invalid requests from /openapi.json and checks every answer against it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from local.stack import Stack
from tests.clients.conftest import COMPAT_KEY
from tests.clients.installed import HERE, python_client
from tests.e2e.conftest import result, start

_ENDS = {200: "a thing", 422: "a thing [contentFilter]", 424: "a thing [failed:x]", 410: "a thing [status:canceled]"}

_UNKNOWN = ["01900000-0000-7000-8000-000000000000", "AAAAAAAAAAAAAAAAAAAAAA"]
_SEEN = {
    "startGeneration": {202, 400, 405},
    "listGenerations": {200, 400},
    "getGeneration": {200, 404, 405},
    "getGenerationResult": {200, 202, 404, 405, 410, 422, 424},
    "cancelGeneration": {200, 405},
    "deleteGeneration": {204},
    "listModels": {200, 405},
    "getHealth": {200, 405},
    "submitOldGeneration": {202, 400, 404, 405},
    "getOldOperation": {200, 404, 405},
    "deleteOldOperation": {204, 404},
}
"""Statuses that a run must have seen; otherwise it tested only the refusals."""


def test_every_answer_matches_the_description(stack: Stack, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    environment = os.environ | {
        "PYTHONPATH": str(HERE),
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "BASE": stack.base_url,
        "API_KEY": COMPAT_KEY,
        "GENERATIONS": json.dumps(_generations(stack)),
        "ANSWERS": str(answers),
    }
    command = [str(python_client("schemathesis").with_name("st")), "--config-file", str(HERE / "schemathesis.toml")]
    command += ["run", f"{stack.base_url}/openapi.json", "--no-color"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, set[int]] = {}
    for line in answers.read_text().splitlines():
        name, status = line.split()
        seen.setdefault(name, set()).add(int(status))
    missing = {name: wanted - seen.get(name, set()) for name, wanted in _SEEN.items()}
    assert not any(missing.values()), missing


def _generations(stack: Stack) -> list[list[str]]:
    """Id and token of a generation for each status of the result, and of one that does not exist."""
    started = {status: start(stack.base_url, prompt) for status, prompt in _ENDS.items()}
    for status, answer in started.items():
        assert result(answer.headers["Location"]).status_code == status
    started[202] = start(stack.base_url, "a thing [never]")
    known = [answer.json()["urls"]["self"].rpartition("/")[2].split("?token=") for answer in started.values()]
    return [*known, _UNKNOWN]
