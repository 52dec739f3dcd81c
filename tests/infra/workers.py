"""Expensive values, computed by one worker of pytest-xdist and read by the others."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable

import pytest


def computed_once[T](folders: pytest.TempPathFactory, name: str, compute: Callable[[], T]) -> T:
    """Compute a value, or read what another worker of this test run computed."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return compute()
    # The workers of one run have their folders in one parent.
    file = folders.getbasetemp().parent / f"{name}.pickle"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.is_file():
            file.write_bytes(pickle.dumps(compute()))
    return pickle.loads(file.read_bytes())  # noqa: S301 - this test run wrote it
