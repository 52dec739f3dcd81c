from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient, ContainerClient

from local.host.schedules import ScheduleStatus

if TYPE_CHECKING:
    from collections.abc import Generator

    from local.azurite import Azurite
    from local.processes import Child
    from tests.host.conftest import RunHost

BEGINS = "tick begins"


@pytest.fixture
def env(azurite: Azurite) -> dict[str, str]:
    """A host id of the test's own, so its locks and schedules are."""
    return {
        "AzureWebJobsStorage": azurite.connection_string,
        "AzureFunctionsWebHost__hostid": uuid4().hex,
        "SCHEDULE": "* * * * * *",
    }


@pytest.fixture
def hosts(azurite: Azurite) -> Generator[ContainerClient]:
    with ContainerClient.from_connection_string(azurite.connection_string, "azure-webjobs-hosts") as container:
        yield container


def until_ticks(child: Child, count: int, *, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while child.output.count(BEGINS) < count:
        assert time.monotonic() < deadline, f"no {count} ticks within {within} s:\n{child.output}"
        time.sleep(0.05)


def test_a_timer_runs_at_its_times_and_on_startup_if_it_says_so(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env) as (child, _):
        until_ticks(child, 2)
        child.wait_for(r"tick \(timer\) ok \d+ ms")
        child.wait_for("yearly ran")
    assert "past due: True" not in child.output


def test_a_timer_never_overlaps_itself(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env, TICK_TAKES="1.5") as (child, _):
        until_ticks(child, 3)
    words = re.findall(r"tick (begins|ends)", child.output)
    assert words[:4] == ["begins", "ends", "begins", "ends"]


def test_of_two_hosts_one_runs_the_timer_and_the_other_takes_over_from_a_killed_one(
    run_host: RunHost, env: dict[str, str]
) -> None:
    with run_host("timers", **env) as (first, _):
        until_ticks(first, 1)
        with run_host("timers", **env) as (second, _):
            until_ticks(first, 4)
            assert BEGINS not in second.output
            first.kill()
            until_ticks(second, 1, within=30)


def test_a_host_that_stops_hands_its_timers_over_at_once(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env) as (first, _):
        until_ticks(first, 1)
        with run_host("timers", **env) as (second, _):
            until_ticks(first, 2)
            assert first.terminate() == 0
            until_ticks(second, 1, within=8)  # well before the lease would have expired


def test_a_timer_stops_when_its_lock_is_lost_and_goes_on_when_it_is_free(
    run_host: RunHost, env: dict[str, str], hosts: ContainerClient
) -> None:
    lock = hosts.get_blob_client(f"locks/{env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick.Listener")
    with run_host("timers", **env) as (child, _):
        until_ticks(child, 1)
        thief = BlobLeaseClient(lock)
        thief.break_lease(lease_break_period=0)
        thief.acquire(lease_duration=-1)
        quiet_since = _until_quiet(child)
        thief.release()
        until_ticks(child, quiet_since + 1)


def test_a_missed_occurrence_runs_at_once_and_is_past_due(
    run_host: RunHost, env: dict[str, str], hosts: ContainerClient
) -> None:
    env |= {"SCHEDULE": "0 0 * * * *"}
    name = f"timers/{env['AzureFunctionsWebHost__hostid']}/Host.Functions.tick/status"
    last = datetime(2020, 1, 1, tzinfo=UTC)
    missed = ScheduleStatus(last=last, next=datetime(2020, 1, 1, 1, tzinfo=UTC), last_updated=last)
    _create(hosts)
    hosts.upload_blob(name, missed.to_json())
    with run_host("timers", **env) as (child, _):
        child.wait_for("tick begins, past due: True")
        child.wait_for(r"tick \(timer, past due\) ok")
        assert child.terminate() == 0
    written = ScheduleStatus.from_json(hosts.download_blob(name).readall())
    assert written.next > datetime.now(UTC)
    assert child.output.count(BEGINS) == 1


def test_a_timer_can_be_started_by_hand(run_host: RunHost, env: dict[str, str]) -> None:
    with run_host("timers", **env | {"SCHEDULE": "0 0 0 1 1 *"}) as (child, base):
        url = f"{base.removesuffix('/api')}/admin/functions/tick"
        assert requests.post(url, json={"input": ""}, timeout=10).status_code == 202
        child.wait_for(r"tick \(by hand\) ok")


def _until_quiet(child: Child) -> int:
    """Wait until there was no tick for three of its periods; the renewal that notices comes every 5 s."""
    deadline = time.monotonic() + 20
    count, since = child.output.count(BEGINS), time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < deadline, "the timer runs without its lock"
        time.sleep(0.05)
        if child.output.count(BEGINS) != count:
            count, since = child.output.count(BEGINS), time.monotonic()
    return count


def _create(container: ContainerClient) -> None:
    try:
        container.create_container()
    except HttpResponseError as error:
        assert error.status_code == 409  # noqa: PT017 - another test's host was first
