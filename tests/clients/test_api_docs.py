"""docs/api.md: every command runs; every route and every error code of the app is documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from imagegen.web.route_table import ROUTES
from local.stack import ROOT, Stack
from tests.clients.conftest import COMPAT_KEY

_DOCS = (ROOT / "docs" / "api.md").read_text()
_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", _DOCS, re.DOTALL | re.MULTILINE)
_EXPECTED = re.compile(r"  # ([0-9]{3}(?: or [0-9]{3})*)$")


def test_every_command_gives_the_status_in_its_comment(stack: Stack, tmp_path: Path) -> None:
    lines = "".join(_BLOCKS).splitlines()
    script = ["set -eu"]
    for number, line in enumerate(lines):
        # curl -i prints the status line first. The marker before it tells which command it belongs to.
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


def test_every_route_is_documented() -> None:
    undocumented = [route for route in ROUTES if f"`{route.method} /{route.path}`" not in _DOCS]

    assert not undocumented


def test_error_tables_match_the_codes_of_the_app() -> None:
    documented = set(re.findall(r"`([a-zA-Z0-9]+)`", "".join(_code_cells())))
    sources = [source.read_text() for source in (ROOT / "imagegen").rglob("*.py")]
    used = {code for source in sources for pattern in _CODE_PATTERNS for code in re.findall(pattern, source)}

    assert documented == used


def _code_cells() -> list[str]:
    """The cells of the column `code` in every table that has one."""
    cells: list[str] = []
    for table in re.findall(r"(?:^\|.*\|\n)+", _DOCS.partition("\n## Errors\n")[2], re.MULTILINE):
        rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        column = rows[0].index("code")
        cells += [row[column] for row in rows[2:]]
    return [cell for cell in cells if not cell.startswith(("`http…`", "any other"))]


_MAKERS = r"RequestError|HttpError|ImageUnusableError|super\(\)\.__init__|unavailable|_failed"
_CODE_PATTERNS = [
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf'\b(?:{_MAKERS})\(\s*(?:[0-9]{{3}}, )?"(\w+)"',
        r'\b(?:default_)?code(?:: str)? ?= ?"(\w+)"',
        r'"code": "(\w+)"',
        r'^\s+[0-9]{3}: \("(\w+)", ',  # a table of upstream statuses
    )
]
"""The places where the app names an error code."""
