"""How a command of make ends: quietly, and with everything that it started.

Imports nothing heavy: it is what runs first, see `local/__main__.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1


def stop_on_sigterm() -> None:
    """A SIGTERM ends this process as Ctrl-C does: with its children. Both, also where a script started it with &."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def end_with_make() -> None:
    """Have the kernel send SIGTERM when make dies, on Linux.

    make passes on no SIGKILL, so a killed make would leave the stack running on its ports, with nobody to stop it.
    Only make: whoever starts this in the background of a shell may well want it to outlive the shell.
    """
    parent = os.getppid()
    if sys.platform != "linux" or _name(parent) not in ("make", "gmake"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before prctl was called
        sys.exit(1)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
