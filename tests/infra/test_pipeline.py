"""The GitHub pipeline deploys with the same parameters and the same azd as a person."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from tests.infra.bicep import INFRA, ROOT

SIGN_IN: Final = {"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID"}
SET_BY_AZD: Final = {"AZURE_ENV_NAME", "AZURE_LOCATION", "AZURE_RESOURCE_GROUP"}
"""`azd pipeline config` sets them without being asked."""
FIXED: Final = {"AZURE_PRINCIPAL_TYPE": "ServicePrincipal", "ASSIGN_PRINCIPAL_ROLES": "false"}
"""The pipeline is another principal than the person, and reads no data."""


def read_yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps(workflow: str, job: str) -> list[dict[str, Any]]:
    return read_yaml(ROOT / ".github" / "workflows" / f"{workflow}.yml")["jobs"][job]["steps"]


def used_by_parameters() -> set[str]:
    """Variables in main.parameters.json. azd computes the id of the principal that runs it."""
    text = (INFRA / "main.parameters.json").read_text(encoding="utf-8")
    return set(re.findall(r"\$\{(\w+)", text)) - {"AZURE_PRINCIPAL_ID"}


def test_pipeline_gets_every_variable_of_the_parameters() -> None:
    env: dict[str, str] = read_yaml(ROOT / ".github" / "workflows" / "azure-dev.yml")["jobs"]["deploy"]["env"]
    variables = SIGN_IN | (used_by_parameters() - FIXED.keys())
    # Azure refuses another first month of a budget.
    budget = {"MONTHLY_BUDGET": "${{ vars.BUDGET_START_DATE && vars.MONTHLY_BUDGET || '' }}"}
    assert env == {name: f"${{{{ vars.{name} }}}}" for name in variables} | budget | FIXED


def test_pipeline_config_copies_every_variable() -> None:
    copied: list[str] = read_yaml(ROOT / "azure.yaml")["pipeline"]["variables"]
    assert sorted(copied) == sorted(used_by_parameters() - FIXED.keys() - SET_BY_AZD)


def test_person_and_pipeline_use_an_azd_that_spares_other_groups() -> None:
    # Before 1.24.1, `azd down` deletes the resource group of an existing image account.
    assert read_yaml(ROOT / "azure.yaml")["requiredVersions"]["azd"] == ">= 1.24.1"
    [setup] = [step for step in steps("azure-dev", "deploy") if step.get("uses", "").startswith("Azure/setup-azd@")]
    assert setup["with"]["version"] == "1.24.1"
    assert "azd-install) 1.24.1 or later" in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_ci_runs_the_http_tests_on_core_tools() -> None:
    commands = "\n".join(step.get("run", "") for step in steps("ci", "core-tools"))
    assert "npm install --global azure-functions-core-tools@4" in commands
    assert re.search(r"FUNCTIONS_HOST=.+/bin/func\"\n.+ pytest tests/e2e tests/clients$", commands, re.MULTILINE)


def test_ci_checks_the_rules_of_the_template_gallery() -> None:
    assert any(
        step.get("uses", "").startswith("microsoft/template-validation-action@") for step in steps("ci", "template")
    )
    # The rules that can be checked here too.
    assert re.fullmatch(r"imagegen@\d+\.\d+\.\d+", read_yaml(ROOT / "azure.yaml")["metadata"]["template"])
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in ("Features", "Getting Started", "Guidance", "Resources") if name not in headings] == []
