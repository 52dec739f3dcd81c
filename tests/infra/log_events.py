"""The events and fields that the app logs, read from its `log_event(...)` calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from imagegen.generation import Status
from tests.infra.bicep import ROOT

SOURCES = [ROOT / "function_app.py", *sorted((ROOT / "imagegen").rglob("*.py"))]


@dataclass(frozen=True, slots=True)
class LogCall:
    """One `log_event(...)` call. An f-string of a status, or of a parameter, stands for several events."""

    place: str
    events: frozenset[str]
    fields: frozenset[str]


@cache
def log_calls() -> tuple[LogCall, ...]:
    """Every `log_event(...)` call of the app."""
    found = [
        LogCall(f"{file.relative_to(ROOT)}:{call.lineno}", _events(call, file), _fields(call, file))
        for file, tree in _trees().items()
        for call in _calls(tree, "log_event")
    ]
    assert found, "imagegen/ calls log_event(...) nowhere: adapt tests/infra/log_events.py"
    return tuple(found)


def calls_of(event: str) -> list[LogCall]:
    """The calls that log an event; ``upstream.*`` matches every event that starts so."""
    return [call for call in log_calls() if any(fnmatchcase(name, event) for name in call.events)]


def is_text_of_the_app(text: str) -> bool:
    """Whether a string of the app is this text, or an f-string starts with its first words."""
    nodes = [node for tree in _trees().values() for node in ast.walk(tree)]
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    first_parts = [node.values[0] for node in nodes if isinstance(node, ast.JoinedStr) and node.values]
    starts = [part.value for part in first_parts if isinstance(part, ast.Constant)]
    # Shorter starts would fit any text.
    return text in constants or any(len(str(start)) > 3 and text.startswith(str(start)) for start in starts)


@cache
def _trees() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in SOURCES}


def _calls(tree: ast.AST, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function:
            yield node


def _events(call: ast.Call, file: Path) -> frozenset[str]:
    name = call.args[0] if call.args else None
    events = _possible_values(name) if name else frozenset[str]()
    assert events, (
        f"{file.relative_to(ROOT)}:{call.lineno}: the name of the event cannot be read from the source, so no alert "
        "can be checked. Write it as a literal, as an f-string of a status, or pass it on from a keyword argument."
    )
    return events


def _fields(call: ast.Call, file: Path) -> frozenset[str]:
    assert all(keyword.arg for keyword in call.keywords), (
        f"{file.relative_to(ROOT)}:{call.lineno}: log_event(**fields) hides the names of the fields from the tests of "
        "the alerts. Write the fields as keyword arguments."
    )
    return frozenset(keyword.arg for keyword in call.keywords if keyword.arg) - {"level"}


def _possible_values(node: ast.expr) -> frozenset[str]:
    """The strings that an expression can be; empty if the source does not say."""
    if isinstance(node, ast.Constant):
        return frozenset({str(node.value)})
    if isinstance(node, ast.JoinedStr):
        values: frozenset[str] = frozenset({""})
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            values = frozenset(start + end for start in values for end in _possible_values(inner))
        return values
    if isinstance(node, ast.Name):
        # A parameter: its values are the literals that calls pass under its name.
        passed = (
            keyword.value
            for tree in _trees().values()
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            for keyword in call.keywords
            if keyword.arg == node.id
        )
        literals = frozenset(str(value.value) for value in passed if isinstance(value, ast.Constant))
        if literals:
            return literals
    return frozenset(Status) if "status" in ast.unparse(node) else frozenset()
