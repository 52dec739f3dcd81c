"""The Bicep files compile, and pass the linter and the formatter, without a warning."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.bicep import INFRA, ROOT, Bicep

FILES = sorted(INFRA.rglob("*.bicep"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A writable copy of infra/, next to the host.json that it reads."""
    shutil.copy(ROOT / "host.json", tmp_path)
    return shutil.copytree(INFRA, tmp_path / "infra")


def test_compiler_gives_no_warning(template: dict[str, Any]) -> None:
    # The fixture fails on the first word of the compiler.
    assert template["resources"]


def test_linter_gives_no_warning(bicep: Bicep) -> None:
    linted = bicep.run("lint", "--pattern", INFRA / "**" / "*.bicep")
    assert (linted.stdout, linted.stderr, linted.returncode) == ("", "", 0)


def test_linter_finds_a_wrong_property_in_each_file(bicep: Bicep, copy: Path) -> None:
    files = sorted(copy.rglob("*.bicep"))
    for file in files:
        with file.open("a", encoding="utf-8") as end:
            end.write(
                "resource wrong 'Microsoft.Network/networkSecurityGroups@2025-05-01' = "
                "{ name: 'wrong', properties: { flushConection: true } }\n"
            )
    linted = bicep.run("lint", "--pattern", copy / "**" / "*.bicep")
    for file in files:
        assert re.search(rf'{re.escape(str(file))}\(.*The property "flushConection" is not allowed', linted.stderr), (
            file
        )


def test_files_are_formatted(bicep: Bicep, copy: Path) -> None:
    formatted = bicep.run("format", "--pattern", copy / "**" / "*.bicep")
    assert (formatted.stderr, formatted.returncode) == ("", 0)
    for file in FILES:
        assert (copy / file.relative_to(INFRA)).read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), file


SILENCED: Final = {
    # The newest version of this API is a preview from 2021.
    "use-recent-api-versions": "Microsoft.Insights/diagnosticSettings@2021-05-01-preview",
    # An existing account outlives the identity: the names of its roles must depend on the principal.
    "what-if-short-circuiting": "appPrincipalId: identity.outputs.principalId",
    # Azure accepts the property; the types of Bicep do not have it yet.
    "BCP037": "siteUpdateStrategy: {",
}


def test_only_known_warnings_are_silenced() -> None:
    silenced = [
        found
        for file in FILES
        for found in re.finditer(
            r"#disable(?:-next-line|-diagnostics)?\s+([\w-]+)[^\n]*\n([^\n]*)", file.read_text(encoding="utf-8")
        )
    ]
    assert {found[1] for found in silenced} == SILENCED.keys()
    assert [found[0] for found in silenced if SILENCED[found[1]] not in found[2]] == []


def test_old_api_versions_are_errors() -> None:
    config = re.sub(r"^\s*//.*$", "", (INFRA / "bicepconfig.json").read_text(encoding="utf-8"), flags=re.MULTILINE)
    rules = json.loads(config)["analyzers"]["core"]["rules"]
    assert rules["use-recent-api-versions"] == {"level": "error", "maxAllowedAgeInDays": 730}
    assert {rule["level"] for rule in rules.values()} == {"error"}


def test_every_module_is_a_local_file() -> None:
    modules = [
        (file.parent / path).resolve()
        for file in FILES
        for path in re.findall(r"^module \w+ '([^']+)'", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert modules
    assert [module for module in modules if not module.is_relative_to(ROOT) or not module.is_file()] == []
