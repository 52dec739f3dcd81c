"""Alerts, workbook and docs agree with the log of the app. Read from the sources, without a Bicep compiler."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import pytest

from imagegen.events import log_event
from tests.infra.bicep import INFRA, ROOT
from tests.infra.log_events import SOURCES, calls_of, is_text_of_the_app
from tests.infra.queries import Query, alert_queries, queries

WITHOUT_EVENTS: Final = {
    "poison": "reads the storage log and the messages of the host",
    "silent": "reads the runs of a function",
}

LINES: Final = [
    ("unauthorized", "upstream.polled", {"status": 401}, True),
    ("unauthorized", "upstream.submitted", {"id": "0197", "status": 403}, True),
    ("unauthorized", "upstream.polled", {"status": 404}, False),
    ("unauthorized", "storage.unavailable", {"status": 403}, False),
    ("failed", "generation.failed", {"id": "0197", "code": "deadlineExceeded"}, True),
    # Refused prompts are no fault of the app.
    ("failed", "generation.failed", {"id": "0197", "code": "contentFilter"}, False),
    ("failed", "generation.failed", {"id": "0197", "code": "invalidPayload"}, False),
    ("failed", "generation.succeeded", {"id": "0197"}, False),
]

TABLES: Final = {"AppTraces", "AppRequests", "StorageQueueLogs"}
"""Tables of Azure Monitor for the log, the runs of functions, and the diagnostic setting of the queues.

An alert rule skips the validation of its query: a misspelt table would only keep the alert silent.
"""


def test_every_query_reads_a_table_of_azure_monitor() -> None:
    tables = {name: set(re.findall(r"^\s*\(?(\w+)$", query.text, re.MULTILINE)) for name, query in queries().items()}
    assert [name for name, found in tables.items() if not found or found - TABLES] == []
    assert set[str]().union(*tables.values()) == TABLES


def test_query_selects_only_events_that_the_app_logs() -> None:
    selected = {name: query.events for name, query in queries().items() if name not in WITHOUT_EVENTS}
    assert [name for name, events in selected.items() if not events] == []
    unknown = {name: event for name, events in selected.items() for event in events if not calls_of(event)}
    assert unknown == {}, "no log_event(...) call logs these events"


def test_every_field_that_a_query_reads_is_logged() -> None:
    read = [
        (name, event, field) for name, query in queries().items() for event in query.events for field in query.fields
    ]
    assert {field for _, _, field in read} == {"code", "left", "ms", "oldest_seconds", "seconds", "status"}
    missing = [
        f"{name}: {call.place} logs {event} without {field}="
        for name, event, field in read
        if not event.endswith("*")
        for call in calls_of(event)
        if field not in call.fields
    ]
    # Of all events under a prefix, some have the field.
    missing += [
        f"{name}: no event {event} has {field}="
        for name, event, field in read
        if event.endswith("*") and not any(field in call.fields for call in calls_of(event))
    ]
    assert missing == []


def test_query_compares_with_texts_that_the_app_writes() -> None:
    words = {word for name, query in queries().items() if name not in WITHOUT_EVENTS for word in query.words}
    assert words == {"contentFilter", "invalidPayload"}
    assert [word for word in words if not is_text_of_the_app(word)] == []


def test_descriptions_and_docs_name_only_logged_events() -> None:
    texts = [(INFRA / "modules" / "alerts.bicep"), (ROOT / "docs" / "deploy.md")]
    named = {
        event
        for file in texts
        for event in re.findall(
            r"(?<![\w/-])((?:generation|poll|upstream|storage|settings)\.(?:[a-z_]+|\*))(?![\w./(])",
            file.read_text(encoding="utf-8"),
        )
    }
    assert len(named) >= 6
    assert [event for event in named if not calls_of(event)] == []


def test_docs_explain_and_price_every_alert() -> None:
    bicep = (INFRA / "modules" / "alerts.bicep").read_text(encoding="utf-8")
    docs = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    names = re.findall(r"displayName: '(.+)'", bicep)
    assert len(names) == len(alert_queries())
    assert [name for name in names if not re.search(rf"^\| {name}[ (]", docs, re.MULTILINE)] == []
    assert f"| {len(names)} x A |" in docs


def test_every_extraction_matches_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    line = _logged(caplog, "poll.done", left=17, oldest_seconds=4200, seconds=12.5, ms=830, status=401, code="noImage")
    found: dict[str, str] = {}
    for query in queries().values():
        for pattern in re.findall(r'extract\(@"([^"]+=[^"]+)", 1, Message\)', query.text):
            match = re.search(pattern, line)
            assert match, pattern
            found[pattern.partition("=")[0].removeprefix(r"\b")] = match[1]
    assert found == {
        "left": "17",
        "oldest_seconds": "4200",
        "seconds": "12.5",
        "ms": "830",
        "status": "401",
        "code": "noImage",
    }


def test_alert_fires_on_its_event_only(caplog: pytest.LogCaptureFixture) -> None:
    for alert, event, fields, fires in LINES:
        line = _logged(caplog, event, **fields)
        assert any(fields.keys() <= call.fields for call in calls_of(event)), f"the app does not log {line}"
        assert alert_queries()[alert].passes(line) is fires, line


def test_counts_allow_for_sampling() -> None:
    # One row of sampled telemetry stands for ItemCount events.
    counting = [query for query in queries().values() if "ItemCount" in query.text]
    assert counting
    assert [query for query in queries().values() if "count()" in query.text] == []


def test_both_sources_of_poison_messages_count_in_int() -> None:
    # ItemCount of AppTraces is an int: a union with a long would have two columns, and the sum would miss one.
    assert re.findall(r"ItemCount = (\S+)\),", queries()["poison"].text) == ["int(1)"]


def test_silent_alert_watches_the_timer_of_the_app() -> None:
    [function] = re.findall(r'OperationName == "(\w+)"', queries()["silent"].text)
    code = "\n".join(file.read_text(encoding="utf-8") for file in SOURCES)
    assert f"def {function}(timer: func.TimerRequest)" in code


def test_reader_of_the_queries_finds_fields_and_words() -> None:
    query = Query('AppTraces\n| where Message startswith "a.b " and Message has "status 1"\n| where Message has "c=d"')
    assert (query.events, query.fields, query.words) == ({"a.b"}, {"c"}, {"status 1", "d"})


def _logged(caplog: pytest.LogCaptureFixture, event: str, **fields: Any) -> str:
    """The line that the app writes for an event."""
    with caplog.at_level(logging.INFO, "imagegen"):
        log_event(event, **fields)
    return caplog.messages[-1]
