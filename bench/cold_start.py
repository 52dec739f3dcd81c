"""Import of function_app in a fresh process, against the imports that no such app can do without."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from bench.services import Options, in_turns, spread, table
from local.stack import ROOT

BARE = "import azure.functions, azure.storage.blob, azure.identity, requests"


def section(options: Options) -> str:
    ways = {
        "app": partial(_seconds, "import function_app"),
        "bare": partial(_seconds, BARE),
        "Python": partial(_seconds, "pass"),
    }
    for way in ways.values():
        way()  # writes the bytecode
    found = in_turns(ways, 5 * options.rounds)
    ratios = [
        (ours - python) / (bare - python)
        for ours, bare, python in zip(found["app"], found["bare"], found["Python"], strict=True)
    ]
    rows = [[name, spread([1000 * one for one in times], 0)] for name, times in found.items()]
    text = f"A fresh process that runs `import function_app`, against `{BARE}`, with bytecode on disk."
    return f"{text}\n\n{table(['', 'ms'], rows)}\n\nRatio, without the start of Python: {spread(ratios)}."


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return time.perf_counter() - began
