"""The Bicep CLI and its predictions, made once for all tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.bicep import HOW_TO_GET_BICEP, INFRA, Bicep, Prediction, find_bicep
from tests.infra.parameter_sets import PARAMETER_SETS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a compiler, skip what needs it; with REQUIRE_BICEP=1 it fails instead."""
    if os.environ.get("REQUIRE_BICEP") == "1" or find_bicep():
        return
    for item in items:
        if "bicep" in getattr(item, "fixturenames", ()):
            # By a marker, which pytest reports in one line a file; a skip inside the fixture would be one a test.
            item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_BICEP))


@pytest.fixture(scope="session")
def bicep() -> Bicep:
    """The compiler."""
    command = find_bicep()
    if command is None:
        pytest.fail(HOW_TO_GET_BICEP, pytrace=False)
    return Bicep(command)


@pytest.fixture(scope="session")
def template(bicep: Bicep) -> dict[str, Any]:
    """main.bicep as an ARM template."""
    return bicep.compile(INFRA / "main.bicep")


@pytest.fixture(scope="session")
def predictions(bicep: Bicep) -> Mapping[str, Prediction]:
    """What each parameter set would make."""
    return bicep.predict(PARAMETER_SETS)


@pytest.fixture(params=PARAMETER_SETS)
def prediction(request: pytest.FixtureRequest, predictions: Mapping[str, Prediction]) -> Prediction:
    """One parameter set after the other."""
    return predictions[request.param]
