"""The alerts and the workbook ask for what the log really says."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from imagegen.events import log_event
from imagegen.generation import Status
from tests.infra.bicep import INFRA, ROOT, Prediction

ALERTS: Final = "Microsoft.Insights/scheduledQueryRules"

NAMES: Final = {"failed", "stuck", "poison", "oldest", "silent", "throttled", "unauthorized", "storage", "settings"}


@pytest.fixture(scope="module")
def queries(predictions: Mapping[str, Prediction]) -> dict[str, str]:
    """Every query of an alert or of the workbook."""
    alerts = {alert["name"].split("-")[1]: _query(alert) for alert in predictions["defaults"].of_type(ALERTS)}
    workbook = json.loads((INFRA / "workbook.json").read_text(encoding="utf-8"))
    pages = {item["name"]: item["content"]["query"] for item in workbook["items"] if "query" in item["content"]}
    assert not alerts.keys() & pages.keys()
    return alerts | pages


@pytest.fixture(scope="module")
def code() -> str:
    files = [ROOT / "function_app.py", *(ROOT / "imagegen").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_there_is_an_alert_for_each_thing_that_somebody_must_hear_of(predictions: Mapping[str, Prediction]) -> None:
    alerts = predictions["defaults"].of_type(ALERTS)
    assert {alert["name"].split("-")[1] for alert in alerts} == NAMES
    workspace = predictions["defaults"].the("Microsoft.OperationalInsights/workspaces")
    for alert in alerts:
        properties = alert["properties"]
        assert properties["enabled"]
        assert properties["displayName"]
        assert properties["description"]
        [scope] = properties["scopes"]
        assert "monitoring" in scope or scope == workspace["id"]


def test_alerts_can_be_left_out_and_mails_go_to_all_who_want_them(predictions: Mapping[str, Prediction]) -> None:
    assert predictions["no alerts"].of_type(ALERTS) == []
    assert predictions["defaults"].of_type("Microsoft.Insights/actionGroups") == []
    assert all(_actions(alert) == [] for alert in predictions["defaults"].of_type(ALERTS))
    everything = predictions["everything"]
    group = everything.the("Microsoft.Insights/actionGroups")
    mails = [receiver["emailAddress"] for receiver in group["properties"]["emailReceivers"]]
    assert mails == ["first@example.com", "second@example.com"]
    assert all(_actions(alert) == [group["id"]] for alert in everything.of_type(ALERTS))


def test_every_event_that_a_query_names_is_logged(queries: dict[str, str], code: str) -> None:
    logged = set(re.findall(r'"([a-z]+\.[a-z_]+)"', code)) | {f"generation.{status}" for status in Status}
    named = {event for query in queries.values() for event in re.findall(r'startswith "([a-z]+\.[a-z_]+) "', query)}
    for words in re.findall(r"generation\\\.\(([\w|]+)\)", " ".join(queries.values())):
        named |= {f"generation.{word}" for word in words.split("|")}
    assert len(named) >= 8
    assert named - logged == set()


def test_every_field_that_a_query_reads_is_logged(queries: dict[str, str], code: str) -> None:
    logged = set(re.findall(r"\b([a-z_]+)=", code))
    fields = {field for query in queries.values() for field in re.findall(r"\\b([a-z_]+)=", query)}
    assert {"code", "seconds", "left", "status", "ms"} <= fields
    assert fields - logged == set()


def test_every_extraction_finds_its_number_in_a_line_of_the_log(
    queries: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    line = _logged(caplog, "poll.done", left=17, oldest_seconds=4200, seconds=12.5, ms=830, status=401, code="noImage")
    found: dict[str, str] = {}
    for query in queries.values():
        for pattern in re.findall(r'extract\(@"([^"]+=[^"]+)", 1, Message\)', query):
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


@pytest.mark.parametrize(
    ("alert", "event", "fields", "seen"),
    [
        ("throttled", "upstream.unavailable", {"reason": "status 429"}, True),
        ("throttled", "upstream.unavailable", {"reason": "status 503"}, False),
        ("unauthorized", "upstream.polled", {"status": 401}, True),
        ("unauthorized", "upstream.submitted", {"id": "0197", "status": 403}, True),
        ("unauthorized", "upstream.polled", {"status": 404}, False),
        ("unauthorized", "storage.unavailable", {"status": 403}, False),
        ("failed", "generation.failed", {"id": "0197", "code": "deadlineExceeded"}, True),
        ("failed", "generation.failed", {"id": "0197", "code": "contentFilter"}, False),  # refused: the caller's own
        ("failed", "generation.failed", {"id": "0197", "code": "invalidPayload"}, False),
        ("failed", "generation.succeeded", {"id": "0197"}, False),
        ("stuck", "generation.stuck", {"id": "0197"}, True),
        ("storage", "storage.unavailable", {"doing": "create record"}, True),
        ("settings", "settings.invalid", {"problems": "POLL_SCHEDULE: is missing"}, True),
    ],
)
def test_alert_sees_the_line_that_it_is_for(
    queries: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    alert: str,
    event: str,
    fields: dict[str, Any],
    seen: bool,
) -> None:
    assert _passes(queries[alert], _logged(caplog, event, **fields)) is seen


def test_counts_hold_where_telemetry_is_sampled(queries: dict[str, str]) -> None:
    # A row stands for ItemCount of them then.
    for query in queries.values():
        assert "count()" not in query


def test_an_alert_looks_back_as_far_as_it_sleeps(prediction: Prediction) -> None:
    minutes = {"PT15M": 15, "PT1H": 60, "PT2H": 120}
    for alert in prediction.of_type(ALERTS):
        properties = alert["properties"]
        assert minutes[properties["windowSize"]] >= minutes[properties["evaluationFrequency"]]


def test_the_column_of_an_alert_is_in_its_query(prediction: Prediction) -> None:
    for alert in prediction.of_type(ALERTS):
        [criterion] = alert["properties"]["criteria"]["allOf"]
        last = criterion["query"].strip().splitlines()[-1]
        assert re.match(rf"\s*\| summarize {criterion['metricMeasureColumn']} = ", last)


def test_thresholds_follow_the_parameters(prediction: Prediction) -> None:
    given = prediction.parameters
    thresholds = {
        alert["name"].split("-")[1]: alert["properties"]["criteria"]["allOf"][0]["threshold"]
        for alert in prediction.of_type(ALERTS)
    }
    if thresholds:
        assert thresholds["failed"] == given.get("alertFailedGenerations", 5) - 1
        assert thresholds["throttled"] == given.get("alertThrottledCalls", 100) - 1
        assert thresholds["oldest"] > given.get("generationTimeoutSeconds", 3600)


def test_both_ways_to_see_poison_count_in_one_type(queries: dict[str, str]) -> None:
    # ItemCount of AppTraces is an int: a union with a long would have two columns, and count one.
    assert re.findall(r"ItemCount = (\S+)\),", queries["poison"]) == ["int(1)"]


def test_poison_is_seen_where_its_queue_is_logged(predictions: Mapping[str, Prediction]) -> None:
    logs = [
        {log["category"] for log in setting["properties"]["logs"]}
        for setting in predictions["defaults"].of_type("Microsoft.Insights/diagnosticSettings")
        if "/queueServices/" in setting["id"]
    ]
    assert logs == [{"StorageWrite"}]


def test_the_silent_timer_is_the_one_of_the_app(queries: dict[str, str], code: str) -> None:
    [function] = re.findall(r'OperationName == "(\w+)"', queries["silent"])
    assert f"def {function}(timer: func.TimerRequest)" in code


def _query(alert: dict[str, Any]) -> str:
    return alert["properties"]["criteria"]["allOf"][0]["query"]


def _actions(alert: dict[str, Any]) -> list[str]:
    return alert["properties"]["actions"]["actionGroups"]


def _logged(caplog: pytest.LogCaptureFixture, event: str, **fields: Any) -> str:
    """The line that the app writes for an event."""
    with caplog.at_level(logging.INFO, "imagegen"):
        log_event(event, **fields)
    return caplog.messages[-1]


def _passes(query: str, message: str) -> bool:
    """Whether the ``where`` lines of a query let a message through; just the operators that the queries use."""
    for condition in re.findall(r"\| where (.+)", query):
        for part in condition.split(" and "):
            if match := re.fullmatch(r'Message startswith "([^"]+)"', part):
                good = message.lower().startswith(match[1].lower())
            elif match := re.fullmatch(r'Message has "([^"]+)"', part):
                good = re.search(rf"(?<!\w){re.escape(match[1])}(?!\w)", message, re.IGNORECASE) is not None
            elif match := re.fullmatch(r'Message matches regex @"([^"]+)"', part):
                good = re.search(match[1], message) is not None
            elif match := re.fullmatch(r"not\(Message has_any \((.+)\)\)", part):
                terms = re.findall(r'"([^"]+)"', match[1])
                good = not any(re.search(rf"(?<!\w){re.escape(term)}(?!\w)", message, re.IGNORECASE) for term in terms)
            else:
                raise AssertionError(f"the test does not know {part}")
            if not good:
                return False
    return True
