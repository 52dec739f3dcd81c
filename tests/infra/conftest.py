"""The Bicep CLI and its predictions, made once for all tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.bicep import HOW_TO_GET_BICEP, INFRA, Bicep, Prediction, find_bicep
from tests.infra.parameter_sets import PARAMETER_SETS


@pytest.fixture(scope="session")
def bicep() -> Bicep:
    """The compiler. Without one the test is skipped; with REQUIRE_BICEP=1 it fails."""
    command = find_bicep()
    if command is None:
        if os.environ.get("REQUIRE_BICEP") == "1":
            pytest.fail(HOW_TO_GET_BICEP, pytrace=False)
        pytest.skip(HOW_TO_GET_BICEP)
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
