"""docs/security.md names tests that exist, and the credential of every route."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

from imagegen.web.route_table import ROUTES

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
CREDENTIALS: Final = {"functionKey": "function key", "token": "token", "apiKey": "`api-key` header", None: "none"}


@cache
def functions_in(path: str) -> set[str]:
    file = ROOT / path
    body = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 50
    assert [f"{path}::{name}" for path, name in named if name not in functions_in(path)] == []


def test_every_row_of_a_threat_names_a_test() -> None:
    rows = [
        row
        for table in re.findall(r"^\| threat .*\n\|[ -|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
        for row in table.splitlines()
    ]
    assert len(rows) > 50
    assert [row for row in rows if not re.search(r"\| `tests/[\w/]+\.py::test_\w+` \|$", row)] == []


def test_every_route_has_its_credential() -> None:
    documented = {
        route: credential
        for credential in CREDENTIALS.values()
        for row in re.findall(rf"^\| {re.escape(credential)}[^|]*\|([^|]*)\|", PAGE, re.MULTILINE)
        for route in re.findall(r"`([A-Z]+ [^`]+)`", row)
    }
    assert documented == {f"{route.method} {route.path}": CREDENTIALS[route.auth] for route in ROUTES}
