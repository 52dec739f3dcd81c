"""The benchmarks run, and a partial run keeps the other sections of the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.services import services
from local.stack import ROOT


def test_a_run_of_some_benchmarks_keeps_the_others(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n## Bursts: `burst`\n\nkept\n\n## An idle tick: `tick`\n\nreplaced\n")
    command = [sys.executable, "-m", "bench", "start", "cost", "tick", "--generations", "2", "--rounds", "1"]
    subprocess.run([*command, "--output", str(page)], check=True, capture_output=True, cwd=ROOT)
    text = page.read_text()
    assert "## Bursts: `burst`\n\nkept\n" in text
    assert "replaced" not in text
    assert text.index("`start`") < text.index("`cost`") < text.index("`tick`") < text.index("`burst`")


@pytest.mark.parametrize("direct", [False, True])
def test_the_app_and_the_bound_finish_their_generations(direct: bool) -> None:
    with services() as running:
        for contender in ("bench.app", "bench.peers.bound"):
            report = running.run(contender, running.work(2, direct=direct))
            assert len(report["lags"]) == (0 if direct else 2)
