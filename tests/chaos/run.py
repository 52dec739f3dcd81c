"""One run: chaos, then calm, then the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import requests

from imagegen.crash_points import CrashPoint
from local.azurite import azurite
from local.stack import EVERY_MODEL, ROOT, app_environment, emulator
from tests.chaos.account import Account
from tests.chaos.client import Accepted, Client
from tests.chaos.hosts import Fleet
from tests.chaos.scenario import Ending, Kill, Options, Scenario, plan
from tests.chaos.storage_proxy import Faults, storage_proxy
from tests.chaos.verdict import Evidence, counted, figures, problems

LOGS: Final = ROOT / ".local" / "chaos"

_SPEED: Final = "0.2"
_CLIENTS: Final = 48
_TICK: Final = 0.1


@dataclass(frozen=True)
class Report:
    figures: list[str]
    problems: list[str]
    """What was lost or doubled. Empty: the run passed."""


def run(options: Options, *, say: Callable[[str], None] = lambda _: None, logs: Path = LOGS) -> Report:
    """Run one scenario on a stack of its own."""
    scenario, faults, began = plan(options), Faults(options.seed), time.monotonic()
    with ExitStack() as stack:
        storage = stack.enter_context(azurite())
        emulator_url, _ = stack.enter_context(emulator("--speed", _SPEED))
        through_proxy = storage.connection_string
        for endpoint in (storage.blob_endpoint, storage.queue_endpoint):
            through_proxy = through_proxy.replace(endpoint, stack.enter_context(storage_proxy(endpoint, faults)))
        env = app_environment(
            through_proxy,
            emulator_url,
            IMAGE_DEPLOYMENTS=EVERY_MODEL,
            POLL_SCHEDULE="*/2 * * * * *",
            REPEAT_LOST_CALLS=str(options.repeat_lost_calls).lower(),
        )
        account = Account(storage.connection_string)
        after_end = (lambda: None) if options.real_time else account.break_timer_lease
        fleet = Fleet(options.hosts, env, crash_points=scenario.crash_points, after_end=after_end, logs=logs)
        stack.callback(fleet.stop)
        fleet.start()
        accepted, errors, client = _chaos(options, scenario, fleet)
        say(f"chaos ended after {time.monotonic() - began:.0f} s: {len(accepted)} accepted")

        _calm(options, fleet, faults, account)
        _await_the_end(options, fleet, account)
        say(f"the generations ended after {time.monotonic() - began:.0f} s")

        calm_client = Client(fleet.base_urls, until=time.monotonic() + options.patience)
        accepted = [_deleted(one, calm_client) for one in accepted]
        counters = requests.get(f"{emulator_url}/_emulator/stats", timeout=30).json()
        evidence = Evidence(scenario.starts, accepted, account.read(), counters, options.repeat_lost_calls)
        found = problems(evidence, calm_client.monitor)
        fleet.stop()
        lines = [*figures(evidence), *_weather(fleet, faults, client)]
    return Report([*lines, f"{time.monotonic() - began:.0f} s"], [*errors, *found])


def _chaos(options: Options, scenario: Scenario, fleet: Fleet) -> tuple[list[Accepted], list[str], Client]:
    """Start the generations while hosts are killed. Return the accepted ones and the errors of clients."""
    began = time.monotonic()
    deadline = began + options.seconds + options.patience
    client = Client(fleet.base_urls, seconds=options.seconds, until=deadline)
    with ThreadPoolExecutor(_CLIENTS) as pool:
        running = [pool.submit(client.run, start, began) for start in scenario.starts]
        kills = list(scenario.kills)
        while not _all_done(running) or (kills and time.monotonic() < deadline):
            kills = _kill_due(kills, fleet, time.monotonic() - began)
            fleet.tend()
    errors = [f"a client failed: {error!r}" for one in running if (error := one.exception())]
    results = [one.result() for one in running if not one.exception()]
    return [one for one in results if one], errors, client


def _kill_due(kills: Sequence[Kill], fleet: Fleet, seconds: float) -> list[Kill]:
    """Carry out the kills whose time has come. Return the others, and those whose host has not started yet."""
    return [kill for kill in kills if kill.at > seconds or not fleet.kill(kill.host, kill.grace)]


def _all_done(running: Sequence[Future[Accepted | None]]) -> bool:
    return not wait(running, timeout=_TICK).not_done


def _calm(options: Options, fleet: Fleet, faults: Faults, account: Account) -> None:
    """End the faults, and kill every host once more."""
    faults.stop()
    fleet.stop()
    if not options.real_time:
        account.break_timer_lease()
        account.expire_claims()
    fleet.start_calm()


def _await_the_end(options: Options, fleet: Fleet, account: Account) -> None:
    deadline = time.monotonic() + options.patience
    while account.active() and time.monotonic() < deadline:
        fleet.tend()
        time.sleep(5 * _TICK)


def _deleted(accepted: Accepted, client: Client) -> Accepted:
    """Delete a generation that ended too late to be deleted during the faults."""
    if accepted.start.ending is not Ending.DELETE or accepted.deleted:
        return accepted
    return replace(accepted, deleted=client.delete(accepted.path))


def _weather(fleet: Fleet, faults: Faults, client: Client) -> list[str]:
    """What happened to the hosts and to storage."""
    missing = [point.value for point in CrashPoint if not fleet.crashed[point]]
    hit = f"{len(CrashPoint) - len(missing)} of {len(CrashPoint)} hit, {fleet.crashed.total()} crashes"
    return [
        f"hosts: {fleet.killed} killed, {fleet.drained} drained ({fleet.drained_in_time} ended in the grace period)",
        f"crash points: {hit}; not hit: {', '.join(missing) or 'none'}",
        f"hosts that ended by themselves: {len(fleet.ended_by_itself)}",
        *(f"  {one}" for one in fleet.ended_by_itself),
        f"answers to the clients during the chaos (0: none): {counted(client.statuses)}",
        f"storage requests: {counted(faults.counts)}",
        f"in the output of the hosts: {counted(fleet.events)}",
    ]
