"""The monitor: every declared field is filled; ``Retry-After`` follows the state and the backlog."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.generation import Generation, JsonModel, Status
from imagegen.web.monitor import Monitor, MonitorImage, MonitorUrls
from tests.app.generations import NOON, failed, new, running, seconds, stored
from tests.app.web.monitors import BASE, monitors


def declared(model: type[JsonModel]) -> set[str | None]:
    return {field.serialization_alias for field in model.model_fields.values()}


def test_every_declared_field_is_filled() -> None:
    """A field that is declared, but that no state of a generation fills, is forgotten in ``Monitors.build``."""
    succeeded = running(status=Status.SUCCEEDED, images=(stored(), stored(1), failed("contentFilter")))
    ended = running(status=Status.FAILED, error=failed("outcomeUnknown").error)
    build = monitors(unsigned=frozenset({stored(1).blob})).build
    shown = [build(record, BASE).to_json() for record in (new(), succeeded, ended)]
    assert {name for monitor in shown for name in monitor} == declared(Monitor)
    assert shown[0]["urls"].keys() == declared(MonitorUrls)
    linked, unlinked, _ = shown[1]["result"]["data"]
    assert linked.keys() | unlinked.keys() == declared(MonitorImage)


def test_link_that_cannot_be_signed_hides_no_result() -> None:
    succeeded = running(status=Status.SUCCEEDED, images=(stored(), stored(1)))
    shown = monitors(unsigned=frozenset({stored(1).blob})).build(succeeded, BASE).to_json()
    linked, unlinked = shown["result"]["data"]
    assert "urlError" not in linked
    assert linked["url"] == f"{linked['blobUrl']}?sig=1"
    assert "url" not in unlinked
    assert unlinked["blobUrl"].endswith(stored(1).blob)
    assert unlinked["urlError"].keys() == {"code", "message"}
    assert unlinked["urlError"]["code"] == "linkUnavailable"
    assert unlinked["sha256"] == stored(1).sha256


def retry_after(generation: Generation, backlog: int = 0) -> str | None:
    return monitors(backlog).retry_after(generation).get("Retry-After")


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        (0, "5"),
        (3, "5"),
        (4, "6"),  # one second for each four active generations
        (40, "15"),
        (200, "55"),  # the burst of 200
        (220, "60"),
        (100_000, "60"),  # one minute at most, or callers assume a failure
    ],
)
def test_retry_after_of_queued_generation_grows_with_backlog(backlog: int, expected: str) -> None:
    assert (
        retry_after(new(queued=True, due=NOON + seconds(600)), backlog) == expected
    )  # due counts only if the message is lost


@pytest.mark.parametrize(
    ("changes", "backlog", "expected"),
    [
        ({"due": NOON + seconds(30)}, 0, "30"),  # throttled until then
        ({"due": NOON + seconds(30)}, 200, "55"),
        ({"due": NOON + seconds(17.4)}, 0, "17"),
        ({"due": NOON - seconds(100)}, 0, "5"),  # overdue
        ({"due": NOON + seconds(3_600)}, 0, "60"),
    ],
)
def test_retry_after_reaches_due(changes: dict[str, Any], backlog: int, expected: str) -> None:
    assert retry_after(new(**changes), backlog) == expected


@pytest.mark.parametrize("backlog", [0, 1_000])
def test_retry_after_of_running_generation_ignores_backlog(backlog: int) -> None:
    assert retry_after(running(due=NOON + seconds(40)), backlog) == "5"


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_ended_generation_has_no_retry_after(status: Status) -> None:
    assert retry_after(running(status=status), 1_000) is None
