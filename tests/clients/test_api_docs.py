"""docs/api.md: every line of shell runs, and every error code of the app is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from imagegen.web.routes import ROUTES
from local.stack import ROOT, Stack
from tests.clients.conftest import COMPAT_KEY

_DOCS = (ROOT / "docs" / "api.md").read_text()
_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", _DOCS, re.DOTALL | re.MULTILINE)
_EXPECTED = re.compile(r"  # ([0-9]{3}(?: or [0-9]{3})*)$")


def test_every_line_of_shell_gives_the_status_that_it_says(stack: Stack, tmp_path: Path) -> None:
    lines = "".join(_BLOCKS).splitlines()
    script = ["set -eu"]
    for number, line in enumerate(lines):
        # The status line is the first that curl prints, whatever else follows.
        script += [f"printf '\\n@@{number}\\n'", line]
    text = "\n".join(script).replace("http://127.0.0.1:7071/api", stack.base_url).replace("local-key", COMPAT_KEY)
    done = subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    printed = dict(re.findall(r"^@@(\d+)\n(?:HTTP/1\.1 (\d+))?", done.stdout, re.MULTILINE))
    wrong = {
        line: printed.get(str(number))
        for number, line in enumerate(lines)
        if (expected := _EXPECTED.search(line)) and printed.get(str(number)) not in expected[1].split(" or ")
    }
    assert not wrong
    assert (tmp_path / "lighthouse.png").read_bytes().startswith(b"\x89PNG")


def test_every_route_is_there() -> None:
    declared = {f"`{method} /{route}`" for route, methods in ROUTES.items() for method in methods}

    assert not [line for line in declared if line not in _DOCS]


def test_the_tables_have_every_error_code_of_the_app_and_no_other() -> None:
    written = set(re.findall(r"`([a-zA-Z0-9]+)`", "".join(_code_cells())))
    made = {code for source in (ROOT / "imagegen").rglob("*.py") for code in _codes(source.read_text())}

    assert written == made


def _code_cells() -> list[str]:
    """The column `code` of each table that has one."""
    cells: list[str] = []
    for table in re.findall(r"(?:^\|.*\|\n)+", _DOCS.partition("\n## Errors\n")[2], re.MULTILINE):
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        column = rows[0].index("code")
        cells += [row[column] for row in rows[2:]]
    return [cell for cell in cells if not cell.startswith(("`http…`", "any other"))]


def _codes(source: str) -> set[str]:
    """Where the app names one: ``code="…"``, or the first argument of what makes an error."""
    named = re.findall(r'\bcode(?:: str)? ?= ?"(\w+)"', source)
    first = re.findall(r'\b(?:_failed|ImageUnusableError|unavailable)\(\s*"(\w+)"', source)
    paired = re.findall(r'^\s+\d{3}: \("(\w+)", ', source, re.MULTILINE)
    others = re.findall(r'"code": "(\w+)"|default_code: str = "(\w+)"|"code": "(\w+)"\}', source)
    return {*named, *first, *paired, *(code for found in others for code in found if code)}
