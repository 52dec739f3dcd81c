"""The app with the packages that Azure installs, and no others."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.azurite import azurite
from local.stack import EVERY_MODEL, ROOT, app_environment, emulator


@pytest.fixture
def interpreter() -> Path:
    """Python in a virtual environment that has requirements.txt alone.

    Installing takes about 20 s, so the environment stays in .local/ until requirements.txt changes.
    """
    folder = ROOT / ".local" / "requirements-venv"
    requirements = ROOT / "requirements.txt"
    wanted = f"{sys.version} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    installed = folder / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", requirements], check=True)
        installed.write_text(wanted)
    return folder / "bin" / "python"


def test_app_needs_only_requirements_txt(interpreter: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "imagegen", tmp_path / "imagegen", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "function_app.py", tmp_path)
    with azurite() as storage, emulator("--speed", "0") as (emulator_url, _):
        env = app_environment(
            storage.connection_string, emulator_url, IMAGE_DEPLOYMENTS=EVERY_MODEL, POLL_SCHEDULE="*/2 * * * * *"
        )
        done = subprocess.run(
            [interpreter, Path(__file__).with_name("requirements_only.py")],
            cwd=tmp_path,
            env=os.environ | env | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "operations 200",
        "gpt-image-2 200",
        "get_health 200",
        "get_openapi 200",
        "list_models 200",
        "DefaultAzureCredential",
    ]
