"""How the commands of make end: without a traceback, and with all their child processes.

This module imports nothing heavy, because it runs first (see `local/__main__.py`).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1


def stop_on_sigterm() -> None:
    """Treat SIGTERM like Ctrl-C. A shell that starts a command with `&` makes it ignore SIGINT; this undoes it."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def end_with_make() -> None:
    """On Linux, ask the kernel for a SIGTERM when make dies.

    make cannot pass on a SIGKILL: without this, the stack of a killed make would keep its ports. Only make counts as
    a parent here. A command in the background of a shell may be meant to outlive the shell.
    """
    parent = os.getppid()
    if sys.platform != "linux" or _name(parent) not in ("make", "gmake"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # make died before the call of prctl
        sys.exit(1)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
