"""checkov passes on the predicted deployments, except for checks that infra/checkov-skips.toml lists with a reason."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.bicep import INFRA, ROOT, Prediction
from tests.infra.workers import computed_once

HOW_TO_GET_CHECKOV = (
    "no checkov found: python -m venv .venv-checkov && .venv-checkov/bin/pip install -r "
    "infra/requirements-checkov.txt, or set CHECKOV to its path"
)


@dataclass(frozen=True, slots=True)
class Skip:
    """One entry of infra/checkov-skips.toml."""

    asks_for: str
    reason: str
    passes_with: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Parameters that make the check pass; empty if none does."""

    def is_obsolete_in(self, prediction: Prediction) -> bool:
        return bool(self.passes_with) and self.passes_with.items() <= prediction.parameters.items()


@dataclass(frozen=True, slots=True)
class Report:
    """Ids of the checks that pass, and that fail on at least one resource, for one prediction."""

    passed: set[str]
    failed: set[str]


SKIPS: Final = {
    check: Skip(**skip)
    for check, skip in tomllib.loads((INFRA / "checkov-skips.toml").read_text(encoding="utf-8")).items()
}

PREDICTIONS: Final = ["defaults", "old API", "second region", "network", "network, app inside", "everything"]
"""Parameter sets that checkov reads. They differ in each parameter that a skip names."""


@pytest.fixture(scope="module")
def checkov() -> str:
    """Path of checkov, which has its own virtual environment. With REQUIRE_CHECKOV=1 it must exist."""
    own = ROOT / ".venv-checkov" / "bin" / "checkov"
    found = os.environ.get("CHECKOV") or (str(own) if own.is_file() else shutil.which("checkov"))
    if found is None:
        if os.environ.get("REQUIRE_CHECKOV") == "1":
            pytest.fail(HOW_TO_GET_CHECKOV, pytrace=False)
        pytest.skip(HOW_TO_GET_CHECKOV)
    return found


@pytest.fixture(scope="module")
def reports(
    checkov: str, predictions: Mapping[str, Prediction], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Report]:
    """The report of checkov on each of the PREDICTIONS."""
    selected = {name: predictions[name] for name in PREDICTIONS}
    return computed_once(
        tmp_path_factory, "checkov", lambda: run_checkov(checkov, selected, tmp_path_factory.mktemp("checkov"))
    )


def run_checkov(checkov: str, predictions: Mapping[str, Prediction], folder: Path) -> dict[str, Report]:
    """Run all checks on each prediction. Fails if checkov did not read every resource.

    checkov reads the predicted resources instead of the Bicep files: its parser does not know the whole language, and
    it exits with 0 after a parse error.
    """
    files = {name: folder / f"{number}.json" for number, name in enumerate(predictions)}
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    for name, file in files.items():
        template = {"$schema": schema, "contentVersion": "1.0.0.0", "resources": predictions[name].resources}
        file.write_text(json.dumps(template), encoding="utf-8")
    checked = subprocess.run(
        [checkov, "--framework", "arm", "--skip-download", "--output", "json", "--file", *files.values()],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,  # checkov would read its configuration from the working directory
        env={**os.environ, "HOME": str(folder)},
    )
    output: dict[str, Any] = json.loads(checked.stdout)
    assert output["results"]["parsing_errors"] == [], checked.stderr
    # checkov counts resources of one type and name once.
    different = {
        (name, resource["type"], resource["name"]) for name in files for resource in predictions[name].resources
    }
    assert output["summary"]["resource_count"] == len(different)
    return {name: _report(output["results"], predictions[name], file) for name, file in files.items()}


def test_every_failing_check_is_a_skip(reports: dict[str, Report]) -> None:
    assert {
        name: report.failed - SKIPS.keys() for name, report in reports.items() if report.failed - SKIPS.keys()
    } == {}


def test_every_skip_is_needed(reports: dict[str, Report]) -> None:
    assert SKIPS.keys() - {check for report in reports.values() for check in report.failed} == set()


def test_every_skip_says_why(reports: dict[str, Report], predictions: Mapping[str, Prediction]) -> None:
    """A check passes exactly where the deployment has the parameters of `passes_with`; the text names other causes."""
    for check, skip in SKIPS.items():
        # A deployment without the resource of the check says nothing about it.
        checked = {name: report for name, report in reports.items() if check in report.passed | report.failed}
        passes = {name: check in report.passed for name, report in checked.items()}
        assert passes == {name: skip.is_obsolete_in(predictions[name]) for name in checked}, check
        assert skip.passes_with or re.search(r"Flex Consumption|[Cc]aller", skip.reason), (
            f"{check}: name the parameters that make it pass in passes_with, or say what about Flex Consumption or the "
            "callers of the app rules it out"
        )


def test_references_between_skips_lead_to_a_reason() -> None:
    references = {check: re.findall(r"CKV_AZURE_\d+", skip.reason) for check, skip in SKIPS.items()}
    referenced = {other for others in references.values() for other in others}
    assert referenced
    assert [other for other in referenced if other not in SKIPS or references[other]] == []


def _report(results: dict[str, Any], prediction: Prediction, file: Path) -> Report:
    def checks(kind: str) -> list[dict[str, Any]]:
        return [check for check in results[kind] if check["file_abs_path"] == str(file)]

    passed, failed = checks("passed_checks"), checks("failed_checks")
    resources = {check["resource"] for check in passed + failed}
    for type_ in ("Microsoft.Storage/storageAccounts", "Microsoft.Web/sites"):
        assert f"{type_}.{prediction.the(type_)['name']}" in resources, prediction
    failed_ids = {check["check_id"] for check in failed}
    return Report({check["check_id"] for check in passed} - failed_ids, failed_ids)
