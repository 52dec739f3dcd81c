"""The log queries of the alerts and of the workbook, read as text, and what each reads of the log of the app."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from tests.infra.bicep import INFRA


@dataclass(frozen=True, slots=True)
class Query:
    """A query in KQL."""

    text: str

    @property
    def events(self) -> set[str]:
        """Names of the events that the query selects; ``upstream.*`` for all that start with ``upstream.``."""
        found = re.findall(r'Message startswith "([\w.]+ ?)"', self.text)
        events = {name.strip() if name.endswith(" ") else f"{name}*" for name in found}
        for prefix, names in re.findall(r'matches regex @"\^(\w+)\\\.\(([\w|]+)\) "', self.text):
            events |= {f"{prefix}.{name}" for name in names.split("|")}
        return events

    @property
    def fields(self) -> set[str]:
        """Fields that the query reads: ``\\bstatus=`` in a pattern, ``code=`` in a word."""
        return set(re.findall(r'(?:\\b|")([a-z_]+)=', self.text))

    @property
    def words(self) -> set[str]:
        """Values and texts that the query compares with: the code in ``"code=contentFilter"``, ``"status 429"``."""
        words = {word.rpartition("=")[2] for word in re.findall(r'"(\w+=\w+)"', self.text)}
        return words | set(re.findall(r'Message has "([^"=]+)"', self.text))

    def passes(self, message: str) -> bool:
        """Whether the ``where`` lines let a message through. Knows only the operators that the queries use."""
        conditions = [part for where in re.findall(r"\| where (.+)", self.text) for part in where.split(" and ")]
        assert conditions
        return all(_passes(condition, message) for condition in conditions)


@cache
def alert_queries() -> dict[str, Query]:
    """Queries in alerts.bicep, by the name of the alert."""
    text = (INFRA / "modules" / "alerts.bicep").read_text(encoding="utf-8")
    found = re.findall(r"^    name: '(\w+)'$.*?^    query: '''\n(.*?)'''$", text, re.MULTILINE | re.DOTALL)
    return {name: Query(query) for name, query in found}


@cache
def queries() -> dict[str, Query]:
    """Queries of the alerts and of the workbook, by name."""
    workbook = json.loads((INFRA / "workbook.json").read_text(encoding="utf-8"))
    pages = {item["name"]: Query(item["content"]["query"]) for item in workbook["items"] if "query" in item["content"]}
    assert pages
    assert not alert_queries().keys() & pages.keys()
    return alert_queries() | pages


def _passes(condition: str, message: str) -> bool:
    if match := re.fullmatch(r'Message startswith "([^"]+)"', condition):
        return message.lower().startswith(match[1].lower())
    if match := re.fullmatch(r'Message has "([^"]+)"', condition):
        return _has(message, match[1])
    if match := re.fullmatch(r'Message matches regex @"([^"]+)"', condition):
        return re.search(match[1], message) is not None
    if match := re.fullmatch(r"not\(Message has_any \((.+)\)\)", condition):
        return not any(_has(message, term) for term in re.findall(r'"([^"]+)"', match[1]))
    raise AssertionError(f"tests/infra/queries.py does not know the condition {condition!r}: add it")


def _has(message: str, term: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(term)}(?!\w)", message, re.IGNORECASE) is not None
