"""A small run of `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.scenario import Options

# A group of its own: the run uses more processes than any other test.
pytestmark = pytest.mark.xdist_group("chaos")


def test_small_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    options = Options(seed=21, generations=20, kills=4, crashes=2, hosts=2, seconds=8)
    report = run(options, logs=tmp_path)
    assert report.problems == [], "\n".join(report.figures)
