"""A crash point kills the process, and says first which one it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from imagegen.crash_points import CrashPoint
from local.stack import ROOT

_REACHES_TWO = (
    "from imagegen.crash_points import CrashPoint, crash_point\n"
    "crash_point(CrashPoint.KEY_CLAIMED)\n"
    "crash_point(CrashPoint.CALL_CLAIMED)\n"
)


@pytest.mark.parametrize(
    ("points", "code", "output"),
    [
        ("", 0, ""),
        (f"{CrashPoint.COPY_CLAIMED}=1", 0, ""),
        (f"{CrashPoint.KEY_CLAIMED}=0", 0, ""),
        (f"{CrashPoint.CALL_CLAIMED}=1", -signal.SIGKILL, "crash point callClaimed\n"),
    ],
)
def test_crash_point_prints_its_name_and_kills(points: str, code: int, output: str) -> None:
    env = {**os.environ, "IMAGEGEN_TEST_CRASH_POINTS": points}
    ended = subprocess.run([sys.executable, "-c", _REACHES_TWO], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (code, output)
