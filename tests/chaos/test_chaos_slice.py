"""A small run of `make chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.run import run
from tests.chaos.scenario import POLLED_MODEL, Options, plan


def test_small_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    options = Options(seed=168, generations=20, kills=3, crashes=2, hosts=2, seconds=8)
    scenario = plan(options)
    # Another seed must have these too: a 404 on a poll must not end a generation, whatever is killed.
    assert any(one.model == POLLED_MODEL and "[poll-404:1]" in one.prompt for one in scenario.starts)
    assert scenario.kills
    assert scenario.crash_points
    report = run(options, logs=tmp_path)
    assert report.problems == [], "\n".join(report.figures)
