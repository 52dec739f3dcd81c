"""The Bicep CLI and its predictions, computed once for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra.bicep import HOW_TO_GET_BICEP, INFRA, ROOT, Bicep, Prediction, find_bicep
from tests.infra.parameter_sets import PARAMETER_SETS
from tests.infra.workers import computed_once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a Bicep CLI where there is none. With REQUIRE_BICEP=1 they fail instead."""
    if os.environ.get("REQUIRE_BICEP") == "1" or find_bicep():
        return
    for item in items:
        if "bicep" in getattr(item, "fixturenames", ()):
            # pytest reports a marker in one line a file, and a skip in a fixture in one line a test.
            item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_BICEP))


@pytest.fixture(scope="session")
def bicep() -> Bicep:
    command = find_bicep()
    if command is None:
        pytest.fail(HOW_TO_GET_BICEP, pytrace=False)
    return Bicep(command)


@pytest.fixture(scope="session")
def template(bicep: Bicep, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """main.bicep as an ARM template."""
    return computed_once(tmp_path_factory, "template", lambda: bicep.compile(INFRA / "main.bicep"))


@pytest.fixture(scope="session")
def predictions(bicep: Bicep, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Prediction]:
    """The predicted deployment of each parameter set."""
    return computed_once(tmp_path_factory, "predictions", lambda: bicep.predict(PARAMETER_SETS))


@pytest.fixture(scope="session")
def bindings() -> list[dict[str, Any]]:
    """The bindings of every function of the app."""
    # In another process: an app object returns its functions only once.
    code = (
        "import json, function_app\n"
        "functions = function_app.app.get_functions()\n"
        "print(json.dumps([b for f in functions for b in json.loads(f.get_function_json())['bindings']]))"
    )
    indexed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(indexed.stdout)
