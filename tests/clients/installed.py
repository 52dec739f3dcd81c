"""Clients that nobody here wrote, each installed once, apart from the app and from each other, under .local/clients."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
_KEPT = HERE.parents[1] / ".local" / "clients"
_PATIENCE = 300
"""Seconds for a first installation over a slow network."""


def python_client(name: str) -> Path:
    """The interpreter of a virtual environment with ``requirements-{name}.txt``."""
    wanted = HERE / f"requirements-{name}.txt"

    def make(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)])

    return _installed(name, wanted.read_bytes() + sys.version.encode(), make) / "bin" / "python"


def newman() -> list[str]:
    """The command of the newman that package-lock.json pins."""
    lock = HERE / "package-lock.json"

    def make(folder: Path) -> None:
        for source in (HERE / "package.json", lock):
            shutil.copy(source, folder)
        _run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder)

    return [
        "node",
        str(_installed("newman", lock.read_bytes(), make) / "node_modules" / "newman" / "bin" / "newman.js"),
    ]


def _installed(name: str, wanted: bytes, make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled, now or in an earlier run, of these requirements."""
    folder = _KEPT / f"{name}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    complete = folder / ".complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whoever runs the tests beside us waits here, and then finds it made. The kernel lets go of the lock of the dead.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


def _run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
