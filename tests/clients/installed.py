"""Third-party clients. Each is installed once, in its own folder under .local/clients."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
_INSTALLATIONS = HERE.parents[1] / ".local" / "clients"
_TIMEOUT = 300
"""Seconds; a first installation may use a slow network."""


def python_client(name: str) -> Path:
    """The interpreter of a virtual environment with ``requirements-{name}.txt``."""
    requirements = HERE / f"requirements-{name}.txt"

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run(
            [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
        )

    return _installed(name, requirements.read_bytes() + sys.version.encode(), install) / "bin" / "python"


def newman() -> list[str]:
    """The command of the newman that package-lock.json pins."""
    lock = HERE / "package-lock.json"

    def install(folder: Path) -> None:
        for source in (HERE / "package.json", lock):
            shutil.copy(source, folder)
        _run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder)

    return [
        "node",
        str(_installed("newman", lock.read_bytes(), install) / "node_modules" / "newman" / "bin" / "newman.js"),
    ]


def _installed(name: str, requirements: bytes, install: Callable[[Path], None]) -> Path:
    """The folder that `install` filled from these requirements, now or in an earlier run."""
    folder = _INSTALLATIONS / f"{name}-{hashlib.sha256(requirements).hexdigest()[:12]}"
    complete = folder / ".complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A parallel test process waits here and then finds the installation. The kernel releases the lock when its
    # process dies.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            complete.touch()
    return folder


def _run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
