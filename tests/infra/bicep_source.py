"""The parameters and app settings in the text of the Bicep files: readable without a Bicep compiler.

`bicep format` fixes the layout that these patterns rely on, and test_parameters.py compares them with the compiler.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.infra.bicep import INFRA

MAIN = (INFRA / "main.bicep").read_text(encoding="utf-8")
FUNCTION_APP = (INFRA / "modules" / "function-app.bicep").read_text(encoding="utf-8")

_PARAMETER = re.compile(r"^((?:@.+\n)*)param (\w+) ([^=\n]+?)(?: = (.+))?$", re.MULTILINE)
_NAMED_SETTING = re.compile(r"((?:\w+ \? \[)?)\{\s*name: '(\w+)',?\s+value: (.+?)\s*\}(?=[\]\n])", re.DOTALL)
_KEYED_SETTING = re.compile(r"^ {8}(\w+): (.+(?:\n {10}.+)*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of main.bicep."""

    type: str
    default: str | None
    """A Bicep expression; None if the parameter is required."""
    decorators: str

    @property
    def description(self) -> str:
        found = re.search(r"^@description\('(.*)'\)$", self.decorators, re.MULTILINE)
        return found[1] if found else ""

    def limit(self, decorator: str) -> int | None:
        """Argument of ``@minValue`` or ``@maxValue``."""
        found = re.search(rf"^@{decorator}\((-?\d+)\)$", self.decorators, re.MULTILINE)
        return int(found[1]) if found else None

    @property
    def default_value(self) -> Any:
        """The default as JSON; None if the parameter is required or Azure computes its default."""
        if self.default is None or self.default.endswith(")"):
            return None
        return json.loads(self.default.replace("'", '"'))


def parameters() -> dict[str, Parameter]:
    """Parameters of main.bicep, by name."""
    return {
        name: Parameter(type_, default or None, decorators)
        for decorators, name, type_, default in _PARAMETER.findall(MAIN)
    }


def app_settings() -> dict[str, str]:
    """App settings of the deployed app: the name and the Bicep expression of each value."""
    platform = _between(FUNCTION_APP, "var platformSettings appSetting[] = [", "\n]\n")
    from_resources = _between(MAIN, "settingsFromResources: concat(", "\n    settings: union(\n")
    settings = _between(MAIN, "\n    settings: union(\n      {\n", "\n      }")
    named = _NAMED_SETTING.findall(platform + from_resources)
    computed = {name: condition + value for condition, name, value in named} | dict(_KEYED_SETTING.findall(settings))
    return {name: f"extraSettings.{name}" for name in tuning_settings()} | computed


def tuning_settings() -> list[str]:
    """Settings that the parameter extraSettings accepts."""
    types = (INFRA / "types.bicep").read_text(encoding="utf-8")
    return re.findall(r"^  (\w+): string\?$", _between(types, "type tuning = {", "\n}\n"), re.MULTILINE)


def outputs() -> set[str]:
    """Names of the outputs of main.bicep."""
    return set(re.findall(r"^output (\w+)", MAIN, re.MULTILINE))


def _between(text: str, start: str, end: str) -> str:
    _, found, rest = text.partition(start)
    inside, ended, _ = rest.partition(end)
    assert found, f"no {start!r} in infra/: adapt tests/infra/bicep_source.py"
    assert ended, f"no {end!r} after {start!r} in infra/: adapt tests/infra/bicep_source.py"
    return inside + "\n"
