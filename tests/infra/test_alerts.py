"""The alert rules of a deployment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.infra.bicep import Prediction
from tests.infra.queries import alert_queries
from tests.infra.rules import every_deployment, has, rule_for

ALERTS: Final = "Microsoft.Insights/scheduledQueryRules"
GROUPS: Final = "Microsoft.Insights/actionGroups"

NAMES: Final = {"failed", "poison", "silent", "unauthorized"}
"""The alerts that need a person at once. The workbook shows everything else."""


@rule_for(has(ALERTS))
def test_every_alert_is_enabled_on_the_workspace(prediction: Prediction) -> None:
    workspace = prediction.the("Microsoft.OperationalInsights/workspaces")
    for alert in prediction.of_type(ALERTS):
        properties = alert["properties"]
        assert properties["enabled"]
        assert properties["displayName"]
        assert properties["description"]
        [scope] = properties["scopes"]
        assert "monitoring" in scope or scope == workspace["id"]


def test_reader_of_the_queries_agrees_with_the_compiler(predictions: Mapping[str, Prediction]) -> None:
    compiled = {_name(alert): _criterion(alert)["query"] for alert in predictions["alerts"].of_type(ALERTS)}
    assert {name: query.text for name, query in alert_queries().items()} == compiled


@rule_for(every_deployment)
def test_alerts_exist_if_they_reach_a_person(prediction: Prediction) -> None:
    # Each rule has a monthly price.
    emails = [mail.strip() for mail in prediction.parameters.get("alertEmails", "").split(",") if mail]
    groups = prediction.of_type(GROUPS)
    alerts = prediction.of_type(ALERTS)
    mails = [receiver["emailAddress"] for group in groups for receiver in group["properties"]["emailReceivers"]]
    assert mails == emails
    assert {_name(alert) for alert in alerts} == (NAMES if emails else set())
    assert [alert for alert in alerts if _actions(alert) != [group["id"] for group in groups]] == []


@rule_for(has(ALERTS))
def test_alert_window_covers_its_interval(prediction: Prediction) -> None:
    minutes = {"PT15M": 15, "PT1H": 60, "PT2H": 120}
    for alert in prediction.of_type(ALERTS):
        properties = alert["properties"]
        assert minutes[properties["windowSize"]] >= minutes[properties["evaluationFrequency"]]


@rule_for(has(ALERTS))
def test_column_of_each_alert_is_in_its_query(prediction: Prediction) -> None:
    for alert in prediction.of_type(ALERTS):
        criterion = _criterion(alert)
        last = criterion["query"].strip().splitlines()[-1]
        assert re.match(rf"\s*\| summarize {criterion['metricMeasureColumn']} = ", last)


def test_queue_writes_are_logged_for_the_poison_alert(predictions: Mapping[str, Prediction]) -> None:
    logs = [
        {log["category"] for log in setting["properties"]["logs"]}
        for setting in predictions["defaults"].of_type("Microsoft.Insights/diagnosticSettings")
        if "/queueServices/" in setting["id"]
    ]
    assert logs == [{"StorageWrite"}]


def _name(alert: dict[str, Any]) -> str:
    return alert["name"].split("-")[1]


def _criterion(alert: dict[str, Any]) -> dict[str, Any]:
    [criterion] = alert["properties"]["criteria"]["allOf"]
    return criterion


def _actions(alert: dict[str, Any]) -> list[str]:
    return alert["properties"]["actions"]["actionGroups"]
