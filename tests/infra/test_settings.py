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
from tests.infra.bicep_source import app_settings, parameters, parameters_of
from tests.infra.setting_names import NEVER_PROVISIONED, READ_BY_THE_PLATFORM

SETTINGS: Final = {field.alias: (name, field) for name, field in Settings.model_fields.items() if field.alias}
"""Settings that the app reads: the name of the variable, the name of the attribute, and its declaration."""

NOT_IN_README: Final = {"WEBSITE_HOSTNAME": "the platform sets it"}

ONLY_LOCAL: Final = {"FUNCTIONS_WORKER_RUNTIME": "Core Tools need it; Flex Consumption refuses it"}

RESERVED: Final = "Reserved: "
"""Start of the description of a Bicep parameter whose setting the app does not read yet."""


def missing_edits(setting: str, *, required: bool) -> list[str]:
    """Files that must mention a setting of imagegen/settings.py and do not, each with what to add."""
    edits: list[str] = []
    if setting not in app_settings() and setting not in NEVER_PROVISIONED:
        edits += [
            "infra/main.bicep: a parameter, and the setting with its value in `settings` of the module `app`",
            "infra/main.parameters.json: the parameter, so that azd can set it",
            "tests/infra/parameter_sets.py: a value of the parameter that is not its default",
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
    files = [edit.partition(":")[0] for edit in missing_edits("A_NEW_SETTING", required=True)]
    assert files == [
        "infra/main.bicep",
        "infra/main.parameters.json",
        "tests/infra/parameter_sets.py",
        "README.md",
        "local.settings.json.example",
    ]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_every_setting_is_used_by_the_app() -> None:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "imagegen").rglob("*.py")]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [name for name, (attribute, _) in SETTINGS.items() if attribute not in used] == []


def test_every_provisioned_setting_is_read() -> None:
    unread = app_settings().keys() - SETTINGS.keys() - READ_BY_THE_PLATFORM.keys()
    reserved = {
        setting
        for setting, value in app_settings().items()
        if any(parameters()[name].description.startswith(RESERVED) for name in parameters_of(value))
    }
    assert unread - reserved == set(), (
        "infra/ provisions these settings, but neither the app nor the platform reads them: remove them from "
        f"infra/main.bicep, or start the description of their parameter with {RESERVED!r}"
    )
    assert reserved - unread == set(), (
        f"the app reads these settings now: remove {RESERVED!r} from the description of their parameter"
    )


def test_keys_are_never_provisioned() -> None:
    assert app_settings().keys() & NEVER_PROVISIONED.keys() == set()


def test_platform_settings_are_provisioned() -> None:
    assert READ_BY_THE_PLATFORM.keys() - app_settings().keys() == set()


def test_readme_lists_only_settings_that_exist() -> None:
    assert _documented() - SETTINGS.keys() - READ_BY_THE_PLATFORM.keys() == set()


def test_example_has_only_settings_that_exist() -> None:
    assert _example().keys() - SETTINGS.keys() - READ_BY_THE_PLATFORM.keys() - ONLY_LOCAL.keys() == set()


def test_app_accepts_the_example() -> None:
    assert read_settings(_example()).deployments


def test_limits_and_defaults_of_parameters_are_those_of_settings() -> None:
    schema = Settings.model_json_schema()["properties"]
    compared: set[str] = set()
    for setting, value in app_settings().items():
        declared = schema.get(setting, {})
        if declared.get("type") not in ("integer", "boolean"):
            continue
        [name] = parameters_of(value)
        parameter = parameters()[name]
        limits = (parameter.limit("minValue"), parameter.limit("maxValue"))
        assert limits == (declared.get("minimum"), declared.get("maximum")), setting
        assert parameter.default_value == declared["default"], setting
        compared.add(setting)
    numbers = {name for name, declared in schema.items() if declared.get("type") in ("integer", "boolean")}
    assert compared == numbers


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
