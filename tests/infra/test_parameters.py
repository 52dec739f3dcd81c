"""The parameters of main.bicep: documented, limited, settable with azd. Read as text, without a Bicep compiler."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tests.infra.bicep import INFRA, ROOT
from tests.infra.bicep_source import Parameter, outputs, parameters, tuning_settings
from tests.infra.parameter_sets import PARAMETER_SETS

ENVIRONMENT_NAMES: Final = {
    "environmentName": "AZURE_ENV_NAME",
    "location": "AZURE_LOCATION",
    "principalId": "AZURE_PRINCIPAL_ID",
    "principalType": "AZURE_PRINCIPAL_TYPE",
    "resourceGroupName": "AZURE_RESOURCE_GROUP",
}
"""Parameters with a variable name that azd defines. The variable of any other parameter is its name in capitals."""


def environment_name(parameter: str) -> str:
    return ENVIRONMENT_NAMES.get(parameter) or re.sub(r"(?<!^)([A-Z]+)", r"_\1", parameter).upper()


NOT_FOR_AZD: Final = {"currentMonth": "its default reads the clock"}


def azd_value(name: str, parameter: Parameter) -> Any:
    """The value in main.parameters.json that lets azd set the parameter and keeps its default."""
    if name == "extraSettings":
        # azd falls back to the variables of the shell, where a developer may have AZURE_OPENAI_ENDPOINT for other apps.
        return {setting: f"${{{setting.replace('AZURE_OPENAI_', 'IMAGE_')}}}" for setting in tuning_settings()}
    default = parameter.default_value
    if isinstance(default, (list, dict)):
        return default  # pyright: ignore[reportUnknownVariableType]
    text = "" if default is None else json.dumps(default).strip('"')
    return f"${{{environment_name(name)}{f'={text}' if text else ''}}}"


def test_reader_of_the_text_agrees_with_the_compiler(template: dict[str, Any]) -> None:
    assert outputs() == template["outputs"].keys()
    read = parameters()
    assert read.keys() == template["parameters"].keys()
    for name, compiled in template["parameters"].items():
        default = compiled.get("defaultValue")
        calculated = isinstance(default, str) and default.startswith("[")
        assert read[name].default_value == (None if calculated else default), name
        assert read[name].description == compiled["metadata"]["description"], name
        assert read[name].limit("minValue") == compiled.get("minValue"), name
        assert read[name].limit("maxValue") == compiled.get("maxValue"), name


def test_every_parameter_has_a_description() -> None:
    assert [name for name, parameter in parameters().items() if not parameter.description] == []


def test_every_number_has_limits() -> None:
    numbers = {name: parameter for name, parameter in parameters().items() if parameter.type == "int"}
    assert len(numbers) > 10
    limited = re.compile(r"@minValue\(|@allowed\(")
    assert [name for name, parameter in numbers.items() if not limited.search(parameter.decorators)] == []


def test_only_environment_and_location_are_required() -> None:
    required = {name for name, parameter in parameters().items() if parameter.default is None}
    assert required == {"environmentName", "location"}


def test_some_parameter_set_changes_each_default() -> None:
    unchanged = [
        name
        for name, parameter in parameters().items()
        if parameter.default is not None
        and name not in NOT_FOR_AZD
        and all(
            given.get(name, parameter.default_value) == parameter.default_value for given in PARAMETER_SETS.values()
        )
    ]
    assert unchanged == [], "add a value to tests/infra/parameter_sets.py"


def test_azd_can_set_every_parameter() -> None:
    file = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))
    expected = {name: {"value": azd_value(name, parameter)} for name, parameter in parameters().items()}
    expected = {name: value for name, value in expected.items() if name not in NOT_FOR_AZD}
    assert file["parameters"] == expected, "make infra/main.parameters.json agree with infra/main.bicep"


def test_no_output_overwrites_an_input_of_azd() -> None:
    # azd stores outputs next to the variables of the user: it would read an output of the same name as the parameter.
    assert len(outputs()) > 10
    # azd shall keep the month of the budget, and forget it after `azd down`.
    kept = {"AZURE_LOCATION", "AZURE_RESOURCE_GROUP", "BUDGET_START_DATE"}
    assert {environment_name(name) for name in parameters()} & outputs() == kept


def test_every_update_strategy_is_documented() -> None:
    strategies = re.findall(r"'(\w+)'", parameters()["updateStrategy"].decorators.partition("@allowed")[2])
    rows = re.findall(r"^\| `(\w+)`( \(default\))? \|", (ROOT / "docs" / "deploy.md").read_text("utf-8"), re.MULTILINE)
    documented = {name: bool(default) for name, default in rows}
    assert {name: documented.get(name) for name in strategies} == {
        name: name == parameters()["updateStrategy"].default_value for name in strategies
    }
    assert len(strategies) == 2
