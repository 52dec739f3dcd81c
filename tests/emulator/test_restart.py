"""An emulator that is killed and started again with the same ``--state``."""

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.emulator.process import KEY, ROOT, Emulator, running


def call_flux(emulator: Emulator, prompt: str) -> str:
    """Return the URL of an image of a direct call."""
    answer = emulator.session.post(
        f"{emulator.base}/providers/blackforestlabs/v1/flux-2-pro?api-version=preview",
        json={"model": "FLUX.2-pro", "prompt": prompt},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=20,
    )
    return answer.json()["data"][0]["url"]


def test_operations_and_images_survive_a_kill(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "new folder" / "emulator.sqlite"))
    with running(tmp_path / "log", *state) as first:
        port = str(urlsplit(first.base).port)
        ended = first.start("[seconds:0] [image-jpeg] ended")
        removed = first.start("[seconds:0] removed")
        assert first.delete(removed).status_code == 204
        busy = first.start("[seconds:2] busy")
        never = first.start("[never] busy")
        urls = [first.get(ended).json()["result"]["data"][0]["url"], call_flux(first, "[seconds:0] [url] direct")]
        images = [first.image(url).content for url in urls]
        first.process.kill()
        first.process.wait()
    with running(tmp_path / "log", *state, "--port", port) as second:
        assert [second.image(url).content for url in urls] == images
        assert second.get(ended).json()["status"] == "succeeded"
        assert second.get(removed).status_code == 404
        assert second.get(never).json()["status"] == "running"
        while (answer := second.get(busy).json())["status"] == "running":
            time.sleep(0.05)
        assert second.image(answer["result"]["data"][0]["url"]).status_code == 200
        second.reset()
    with running(tmp_path / "log", *state, "--port", port) as third:
        assert third.get(ended).status_code == 404
        assert third.image(urls[0]).status_code == 404  # still signed by the key of the first


def test_repeated_submit_after_a_kill_finds_its_operation(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "emulator.sqlite"))
    headers: dict[str, str | None] = {"Operation-Id": "00000000-0000-4000-8000-00000000000a"}
    with running(tmp_path / "log", *state) as first:
        assert first.submit({"prompt": "[seconds:0] x"}, headers=headers).json()["status"] == "notRunning"
    with running(tmp_path / "log", *state) as second:
        assert second.submit({"prompt": "[seconds:0] x"}, headers=headers).json()["status"] == "succeeded"
        assert second.submit({"prompt": "other"}, headers=headers).status_code == 400


def test_unreadable_state_is_one_line(tmp_path: Path) -> None:
    state = tmp_path / "emulator.sqlite"
    state.write_bytes(b"no database " * 1000)
    command = [sys.executable, "-m", "local.emulator", "--port", "0", "--state", str(state)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    reason = "file is not a database. Delete this file to start anew."
    assert (ended.returncode, ended.stderr) == (1, f"Cannot read the state in {state}: {reason}\n")
