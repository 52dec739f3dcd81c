"""Settings of the app, Bicep files, README.md and the example of local settings agree. Needs no Bicep compiler."""

from __future__ import annotations

import ast
import json
import re
from typing import Final

import pytest

from imagegen.deployments import ImageApi
from imagegen.settings import Settings, read_settings
from tests.infra.bicep import ROOT
from tests.infra.bicep_source import app_settings, parameters
from tests.infra.setting_names import NEVER_PROVISIONED, READ_BY_THE_PLATFORM

SETTINGS: Final = {field.alias: (name, field) for name, field in Settings.model_fields.items() if field.alias}
"""Settings that the app reads: the name of the variable, the name of the attribute, and its declaration."""

NOT_IN_README: Final = {"WEBSITE_HOSTNAME": "the platform sets it"}

ONLY_LOCAL: Final = {"FUNCTIONS_WORKER_RUNTIME": "Core Tools need it; Flex Consumption refuses it"}


def missing_edits(setting: str, *, required: bool) -> list[str]:
    """Files that must mention a setting of imagegen/settings.py and do not, each with what to add."""
    edits: list[str] = []
    if setting not in app_settings() and setting not in NEVER_PROVISIONED:
        edits += [
            "infra/types.bicep: the setting in `tuning`, the type of the parameter extraSettings",
            "infra/main.parameters.json: the setting in extraSettings, so that azd can set it",
            "azure.yaml and .github/workflows/azure-dev.yml: the variable, so that a pipeline passes it on",
            "tests/infra/parameter_sets.py: a value in extraSettings",
        ]
    if setting not in _documented() and setting not in NOT_IN_README:
        edits.append("README.md: a row in the table of settings")
    if required and setting not in _example():
        edits.append("local.settings.json.example: a value for local work, because the setting has no default")
    return edits


def test_every_setting_is_in_every_file() -> None:
    edits = {name: missing_edits(name, required=field.is_required()) for name, (_, field) in SETTINGS.items()}
    missing = [f"{name} must be added to:\n  " + "\n  ".join(files) for name, files in edits.items() if files]
    if missing:
        pytest.fail("imagegen/settings.py has settings that other files lack.\n" + "\n".join(missing), pytrace=False)


def test_new_setting_is_reported_with_every_file_to_edit() -> None:
    edits = missing_edits("A_NEW_SETTING", required=True)
    files = [file for edit in edits for file in edit.partition(":")[0].split(" and ")]
    assert files == [
        "infra/types.bicep",
        "infra/main.parameters.json",
        "azure.yaml",
        ".github/workflows/azure-dev.yml",
        "tests/infra/parameter_sets.py",
        "README.md",
        "local.settings.json.example",
    ]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_every_setting_is_used_by_the_app() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "imagegen").rglob("*.py")]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [name for name, (attribute, _) in SETTINGS.items() if attribute not in used] == []


def test_provisioned_settings_are_those_that_are_read() -> None:
    provisioned = app_settings().keys()
    assert provisioned - SETTINGS.keys() - READ_BY_THE_PLATFORM.keys() == set(), (
        "infra/ provisions these settings, but neither the app nor the platform reads them: remove them"
    )
    assert provisioned & NEVER_PROVISIONED.keys() == set()
    assert READ_BY_THE_PLATFORM.keys() - provisioned == set()


def test_readme_and_example_have_only_settings_that_exist() -> None:
    existing = SETTINGS.keys() | READ_BY_THE_PLATFORM.keys()
    assert _documented() - existing == set()
    assert _example().keys() - existing - ONLY_LOCAL.keys() == set()


def test_app_accepts_the_example() -> None:
    assert read_settings(_example()).deployments


def test_limits_and_defaults_of_parameters_are_those_of_settings() -> None:
    schema = Settings.model_json_schema()["properties"]
    compared = {"GENERATION_TIMEOUT_SECONDS": "generationTimeoutSeconds", "RETENTION_DAYS": "retentionDays"}
    for setting, name in compared.items():
        assert app_settings()[setting] == f"string({name})"
        declared, parameter = schema[setting], parameters()[name]
        limits = (parameter.limit("minValue"), parameter.limit("maxValue"))
        assert limits == (declared["minimum"], declared["maximum"]), setting
        assert parameter.default_value == declared["default"], setting


def test_image_apis_of_the_parameter_are_those_of_the_app() -> None:
    [allowed] = re.findall(r"@allowed\(\[(.+)\]\)", parameters()["imageApi"].decorators)
    assert set(re.findall(r"'(\w+)'", allowed)) == set(ImageApi)


def _documented() -> set[str]:
    """Names in the first column of the table of settings in README.md."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^\| *setting *\|.*\n\|[ :|-]+\|\n((?:\|.*\n)+)", readme, re.MULTILINE | re.IGNORECASE)
    assert found, "README.md: no table with the heading `| setting |`"
    names: set[str] = set()
    for row in found[1].splitlines():
        whole = ""
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            # `AzureWebJobsStorage__blobServiceUri`, `__clientId`: the second stands for AzureWebJobsStorage__clientId.
            whole = whole.partition("__")[0] + name if name.startswith("__") else name
            names.add(whole)
    return names


def _example() -> dict[str, str]:
    return json.loads((ROOT / "local.settings.json.example").read_text(encoding="utf-8"))["Values"]
