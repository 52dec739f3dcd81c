"""The template compiles without a word, and its parameters are what people and azd are told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.infra.bicep import INFRA, ROOT, Bicep
from tests.infra.parameter_sets import PARAMETER_SETS

FILES = sorted(INFRA.rglob("*.bicep"))

ENVIRONMENT_NAMES = {
    "environmentName": "AZURE_ENV_NAME",
    "location": "AZURE_LOCATION",
    "principalId": "AZURE_PRINCIPAL_ID",
    "principalType": "AZURE_PRINCIPAL_TYPE",
    "resourceGroupName": "AZURE_RESOURCE_GROUP",
}
"""Parameters that azd has a name of its own for. Every other is called as it is, in capitals."""


def environment_name(parameter: str) -> str:
    return ENVIRONMENT_NAMES.get(parameter) or re.sub(r"(?<!^)([A-Z]+)", r"_\1", parameter).upper()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """infra/, to be written to."""
    return shutil.copytree(INFRA, tmp_path / "infra")


def test_compiler_has_nothing_to_say(bicep: Bicep) -> None:
    # A wrong property is only a warning, and the exit status is 0 then.
    said = bicep.run("build", INFRA / "main.bicep", "--stdout")
    assert (said.err, said.status) == ("", 0)


def test_linter_has_nothing_to_say(bicep: Bicep) -> None:
    said = bicep.run("lint", "--pattern", INFRA / "**" / "*.bicep")
    assert (said.out, said.err, said.status) == ("", "", 0)


def test_linter_reads_every_file_and_finds_a_wrong_property(bicep: Bicep, copy: Path) -> None:
    files = sorted(copy.rglob("*.bicep"))
    for file in files:
        with file.open("a", encoding="utf-8") as end:
            end.write(
                "resource wrong 'Microsoft.Network/networkSecurityGroups@2025-05-01' = "
                "{ name: 'wrong', properties: { flushConection: true } }\n"
            )
    said = bicep.run("lint", "--pattern", copy / "**" / "*.bicep")
    assert all(f"{file}(" in said.err for file in files)
    assert said.err.count('The property "flushConection" is not allowed') >= len(files) - 2  # types.bicep, main.bicep


def test_files_are_formatted(bicep: Bicep, copy: Path) -> None:
    said = bicep.run("format", "--pattern", copy / "**" / "*.bicep")
    assert (said.err, said.status) == ("", 0)
    for file in FILES:
        assert (copy / file.relative_to(INFRA)).read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), file


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_rule_is_silenced_but_the_one_without_an_alternative(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for silenced in re.finditer(r"#disable(?:-next-line|-diagnostics)?[^\n]*\n([^\n]*)", text):
        assert "use-recent-api-versions" in silenced[0]
        assert "Microsoft.Insights/diagnosticSettings@2021-05-01-preview" in silenced[1]


def test_old_api_versions_are_errors() -> None:
    config = re.sub(r"^\s*//.*$", "", (INFRA / "bicepconfig.json").read_text(encoding="utf-8"), flags=re.MULTILINE)
    rules = json.loads(config)["analyzers"]["core"]["rules"]
    assert rules["use-recent-api-versions"] == {"level": "error", "maxAllowedAgeInDays": 730}
    assert {rule["level"] for rule in rules.values()} == {"error"}


def test_every_parameter_says_what_it_is_and_every_number_has_limits(template: dict[str, Any]) -> None:
    for name, parameter in template["parameters"].items():
        assert parameter.get("metadata", {}).get("description"), name
        if parameter["type"] == "int":
            assert "allowedValues" in parameter or "minValue" in parameter, name


def test_only_the_environment_and_its_region_must_be_given(template: dict[str, Any]) -> None:
    required = {name for name, parameter in template["parameters"].items() if "defaultValue" not in parameter}
    assert required == {"environmentName", "location"}


def test_every_parameter_is_turned_in_some_parameter_set(template: dict[str, Any]) -> None:
    for name, parameter in template["parameters"].items():
        if "defaultValue" in parameter:
            tried = [given[name] for given in PARAMETER_SETS.values() if name in given]
            assert any(value != parameter["defaultValue"] for value in tried), name


def test_azd_can_set_every_parameter_and_its_default_is_the_template_s(template: dict[str, Any]) -> None:
    file = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))
    expected: dict[str, Any] = {}
    for name, parameter in template["parameters"].items():
        default = parameter.get("defaultValue")
        if parameter["type"] in ("array", "object"):
            expected[name] = {"value": default}
            continue
        calculated = isinstance(default, str) and default.startswith("[")
        text = "" if default is None or calculated else json.dumps(default).strip('"')
        expected[name] = {"value": f"${{{environment_name(name)}{f'={text}' if text else ''}}}"}
    assert file["parameters"] == expected


def test_no_output_becomes_the_input_of_the_next_deployment_by_its_name(template: dict[str, Any]) -> None:
    # azd puts outputs beside what people set: one of the same name would be read back as the parameter.
    inputs = {environment_name(name) for name in template["parameters"]}
    assert inputs & set(template["outputs"]) == {"AZURE_LOCATION", "AZURE_RESOURCE_GROUP"}


def test_no_module_comes_from_a_registry() -> None:
    for file in FILES:
        for module in re.findall(r"^module \w+ '([^']+)'", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert (file.parent / module).resolve().is_relative_to(ROOT), module
