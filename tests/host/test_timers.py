"""Timers in real hosts: leases, and the end of a host. test_schedules.py has the tests with a fake clock."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient, ContainerClient

from local.azurite import Azurite
from local.processes import Child
from tests.host.conftest import RunHost

BEGINS = "tick begins"


@pytest.fixture
def env(azurite: Azurite) -> dict[str, str]:
    """Each test has its own host id, and so its own leases and last runs."""
    return {
        "AzureWebJobsStorage": azurite.connection_string,
        "AzureFunctionsWebHost__hostid": uuid4().hex,
        "SCHEDULE": "* * * * * *",
    }


@pytest.fixture
def container(azurite: Azurite) -> Generator[ContainerClient]:
    with ContainerClient.from_connection_string(azurite.connection_string, "azure-webjobs-hosts") as container:
        yield container


def until_ticks(child: Child, count: int, *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while child.output.count(BEGINS) < count:
        assert time.monotonic() < deadline, f"no {count} ticks within {within} s:\n{child.output}"
        time.sleep(0.05)


def test_timer_ticks_by_its_schedule(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env) as (child, _):
        until_ticks(child, 2)
        child.wait_for(r"tick \(timer\) ok \d+ ms")
    assert "past due: True" not in child.output


def test_timer_does_not_overlap_itself(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env, TICK_TAKES="1.5") as (child, _):
        until_ticks(child, 3)
    words = re.findall(r"tick (begins|ends)", child.output)
    assert words[:4] == ["begins", "ends", "begins", "ends"]


def test_second_host_ticks_after_first_is_killed(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env) as (first, _):
        until_ticks(first, 1)
        with run_host("timers", **env) as (second, _):
            until_ticks(first, 4)
            assert BEGINS not in second.output
            first.kill()
            until_ticks(second, 1, within=30)


def test_stopping_host_hands_its_timers_over(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env) as (first, _):
        until_ticks(first, 1)
        with run_host("timers", **env) as (second, _):
            until_ticks(first, 2)
            assert first.terminate() == 0
            until_ticks(second, 1, within=8)  # well before the lease would expire


def test_stopping_host_keeps_lease_while_function_runs(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env, TICK_TAKES="8") as (first, _):
        until_ticks(first, 1)
        with run_host("timers", **env) as (second, _):
            first.process.terminate()
            first.wait_for("tick ends")
            assert BEGINS not in second.output
            assert first.wait() == 0
            assert first.output.count(BEGINS) == 1
            until_ticks(second, 1, within=8)


def test_timer_pauses_while_its_lease_is_lost(
    run_host: RunHost, env: dict[str, str], container: ContainerClient
) -> None:
    blob = container.get_blob_client(f"locks/{env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick.Listener")
    with run_host("timers", **env) as (child, _):
        until_ticks(child, 1)
        other = BlobLeaseClient(blob)
        other.break_lease(lease_break_period=0)
        other.acquire(lease_duration=-1)
        ticks = _until_quiet(child)
        other.release()
        until_ticks(child, ticks + 1)


def test_missed_occurrence_ticks_at_start_as_past_due(
    run_host: RunHost, env: dict[str, str], container: ContainerClient
) -> None:
    env |= {"SCHEDULE": "0 0 0 1 1 *"}
    name = f"timers/{env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick/status"
    _create(container)
    container.upload_blob(name, json.dumps({"last": "2020-01-01T00:00:00Z", "next": "2021-01-01T00:00:00Z"}))
    started = datetime.now(UTC)
    with run_host("timers", **env) as (child, _):
        child.wait_for("tick begins, past due: True")
        child.wait_for(r"tick \(timer, past due\) ok")
        assert child.terminate() == 0
    last_run = datetime.fromisoformat(json.loads(container.download_blob(name).readall())["last"])
    assert last_run > started
    assert child.output.count(BEGINS) == 1


def _until_quiet(child: Child) -> int:
    """Wait until the timer has paused for three of its periods. Return its ticks. A renewal comes every 5 s."""
    deadline = time.monotonic() + 20
    count, since = child.output.count(BEGINS), time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < deadline, "the timer ticks without its lease"
        time.sleep(0.05)
        if child.output.count(BEGINS) != count:
            count, since = child.output.count(BEGINS), time.monotonic()
    return count


def _create(container: ContainerClient) -> None:
    try:
        container.create_container()
    except HttpResponseError as error:
        assert error.status_code == 409  # noqa: PT017 - the host of another test has created it
