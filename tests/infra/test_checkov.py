"""checkov on what a deployment would make: every check passes, but those that are skipped with a reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.infra.bicep import INFRA, ROOT, Prediction

HOW_TO_GET_CHECKOV = (
    "no checkov: python -m venv .venv-checkov && .venv-checkov/bin/pip install -r infra/requirements-checkov.txt, "
    "or set CHECKOV to one"
)

SKIPS: dict[str, dict[str, str]] = tomllib.loads((INFRA / "checkov-skips.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def checkov() -> str:
    """checkov, which lives in a virtual environment of its own. With REQUIRE_CHECKOV=1 it must be there."""
    own = ROOT / ".venv-checkov" / "bin" / "checkov"
    found = os.environ.get("CHECKOV") or (str(own) if own.is_file() else shutil.which("checkov"))
    if found is None:
        if os.environ.get("REQUIRE_CHECKOV") == "1":
            pytest.fail(HOW_TO_GET_CHECKOV, pytrace=False)
        pytest.skip(HOW_TO_GET_CHECKOV)
    return found


def failed_checks(checkov: str, prediction: Prediction, folder: Path) -> set[str]:
    """The checks that fail, after a look that checkov did read every resource.

    It is given the predicted resources and not the Bicep files: its parser is older than the language, and where it
    fails to parse it exits with 0.
    """
    file = folder / "deployment.json"
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    template = {"$schema": schema, "contentVersion": "1.0.0.0", "resources": prediction.resources}
    file.write_text(json.dumps(template), encoding="utf-8")
    said = subprocess.run(
        [checkov, "--file", file, "--framework", "arm", "--skip-download", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # no configuration of checkov's own is looked for in the repository
        env={**os.environ, "HOME": str(folder)},
    )
    report: dict[str, Any] = json.loads(said.stdout)
    assert report["results"]["parsing_errors"] == [], said.stderr
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["resource_count"] >= len(prediction.of_type("Microsoft.Storage/storageAccounts")) + 30
    checked = {check["resource"] for kind in ("passed_checks", "failed_checks") for check in report["results"][kind]}
    for type_ in ("Microsoft.Storage/storageAccounts", "Microsoft.Web/sites"):
        assert f"{type_}.{prediction.the(type_)['name']}" in checked
    return {check["check_id"] for check in report["results"]["failed_checks"]}


def test_every_check_passes_or_is_skipped_for_a_reason(
    checkov: str, predictions: Mapping[str, Prediction], tmp_path: Path
) -> None:
    everywhere, without_network = set(SKIPS["everywhere"]), set(SKIPS["without_network"])
    assert failed_checks(checkov, predictions["network, app inside"], tmp_path) == everywhere
    assert failed_checks(checkov, predictions["everything"], tmp_path) <= everywhere
    found: set[str] = set()
    for name in ("defaults", "old API", "topic"):
        found |= failed_checks(checkov, predictions[name], tmp_path)
    assert found == everywhere | without_network


@pytest.mark.parametrize(("check", "reason"), [item for skips in SKIPS.values() for item in skips.items()])
def test_every_skip_says_why(check: str, reason: str) -> None:
    assert check.startswith("CKV")
    assert len(reason.split()) > 5
