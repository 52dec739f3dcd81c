"""Requirements are compiled from their .in files, and no file of the tooling names a registry."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from tests.infra.bicep import ROOT

COMPILED: Final = {"requirements.txt": "requirements.in", "requirements-dev.txt": "requirements-dev.in"}


def pins(name: str) -> dict[str, str]:
    """The packages of a requirements file and their versions; without the lines of files it includes."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([a-z0-9-]+)==(\S+)(?:\s+#.*)?", line) for line in lines if line[:1] not in ("", "#", "-")]
    assert found
    assert all(found), f"{name}: write each line as name==version"
    return {match[1]: match[2] for match in found if match}


def test_compiled_files_have_the_packages_of_their_sources() -> None:
    for compiled, source in COMPILED.items():
        assert pins(source).items() - pins(compiled).items() == set(), "run `make requirements`"
        text = (ROOT / compiled).read_text(encoding="utf-8")
        direct = re.findall(rf"^([a-z0-9-]+)==.*# via .*-r {re.escape(source)}\b", text, re.MULTILINE)
        assert set(direct) == pins(source).keys(), "run `make requirements`"


def test_development_installs_the_packages_of_the_app() -> None:
    assert "-r requirements.txt" in (ROOT / "requirements-dev.in").read_text(encoding="utf-8").splitlines()
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


def test_readme_explains_every_package_of_the_app() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"^\| *package *\|.*\n\|[ :|-]+\|\n((?:\|.*\n)+)", readme, re.MULTILINE | re.IGNORECASE)
    assert table, "README.md: no table with the heading `| package |`"
    explained = {name for row in table[1].splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert explained == pins("requirements.in").keys()


def test_tooling_names_no_registry() -> None:
    names = [".pre-commit-config.yaml", ".github/dependabot.yml", "Makefile", "pyproject.toml"]
    for name in [*COMPILED, *COMPILED.values(), *names]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        options = [
            line for line in lines if re.match(r"\s*(-i|--(extra-)?index-url|--find-links|--trusted-host)\b", line)
        ]
        assert options == [], name
        assert [line for line in lines if re.search(r"https?://(?!nodejs\.org)", line)] == [], name


def test_pre_commit_hooks_are_the_tools_of_the_lint_target() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    hooks = set(re.findall(r"entry: \.venv/bin/([\w-]+(?: \w+)?)", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+(?: \w+)?)", lint))
    assert len(tools) >= 3
    assert hooks == tools


def test_dependabot_watches_every_folder_with_dependencies() -> None:
    text = (ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8")
    watched = {
        ecosystem: set(re.findall(r'"(/[\w/-]*)"', block))
        for ecosystem, block in re.findall(r"package-ecosystem: ([\w-]+)\n((?: {4}.*\n)+)", text)
    }
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    npm = {f"/{folder}" for folder in re.findall(r"^(.+)/package\.json$", tracked, re.MULTILINE)}
    assert watched.keys() == {"pip", "npm", "github-actions"}
    assert watched["npm"] == npm
    # The clients of tests/clients stay at the versions that they test.
    assert watched["pip"] == {"/", "/infra"}
