"""Shared throttling on a real Azurite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from imagegen.errors import StorageUnavailableError
from imagegen.lifecycle.ports import Pace
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Throttle
from local.azurite import Azurite
from tests.app.generations import NOON, seconds, throttle

LATER = throttle(30)
PACE = Pace(9.5, 10.25, NOON + seconds(15))
LATEST = throttle(35, "quota used up: \u00e9\u2013")  # metadata are ASCII


class Instances:
    """Several instances of the app with the same storage and clock."""

    def __init__(self, azurite: Azurite) -> None:
        self._service = BlobServiceClient.from_connection_string(azurite.connection_string)
        self._container = f"b-{uuid4().hex}"
        self.now = 0.0

    def new(self) -> Throttling:
        return Throttling(self._service, self._container, monotonic=lambda: self.now)

    @property
    def container(self) -> ContainerClient:
        return self._service.get_container_client(self._container)


@pytest.fixture
def instances(azurite: Azurite) -> Instances:
    """Their container does not exist yet."""
    return Instances(azurite)


def test_no_pause_without_a_container(instances: Instances) -> None:
    assert instances.new().current("gpt") is None


def test_pause_of_one_instance_holds_for_all(instances: Instances) -> None:
    instances.new().pause("gpt", LATER)
    assert instances.new().current("gpt") == LATER
    assert instances.new().current("flux") is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (LATER, LATEST, LATEST),
        (LATEST, LATER, LATEST),  # the later time counts, whichever came last
        (LATER, LATER, LATER),
    ],
)
def test_later_of_two_pauses_counts(
    instances: Instances, first: Throttle, second: Throttle, expected: Throttle
) -> None:
    one, other = instances.new(), instances.new()
    one.pause("gpt", first)
    other.pause("gpt", second)
    assert other.current("gpt") == instances.new().current("gpt") == expected


def test_value_is_cached_for_two_seconds(instances: Instances) -> None:
    one, other = instances.new(), instances.new()
    assert one.current("gpt") is None
    other.pause("gpt", LATER)
    instances.now = 1.9
    assert one.current("gpt") is None
    instances.now = 2.0
    assert one.current("gpt") == LATER


def test_own_pause_is_cached(instances: Instances) -> None:
    one = instances.new()
    one.pause("gpt", LATER)
    instances.container.delete_container()
    assert one.current("gpt") == LATER


def test_slow_read_does_not_hide_a_newer_pause(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    one = instances.new()

    def pause_meanwhile(_: str) -> None:
        monkeypatch.undo()
        one.pause("gpt", LATER)

    monkeypatch.setattr(one, "_read", pause_meanwhile)
    assert one.current("gpt") == LATER
    assert one.current("gpt") == LATER


@pytest.mark.parametrize("name", ["FLUX.1-Kontext-pro", "our images/2?", "\u00fc", "a" * 128, "..", "."])
def test_deployments_of_any_name_are_paused_separately(instances: Instances, name: str) -> None:
    instances.new().pause(name, LATER)
    assert instances.new().current(name) == LATER
    assert instances.new().current("gpt") is None
    [blob] = instances.container.list_blob_names()
    assert blob.startswith("throttling/")  # outside of active/ and done/


@pytest.mark.parametrize("metadata", [{}, {"until": "soon"}, {"until": ""}])
def test_malformed_pause_is_ignored_and_replaced(instances: Instances, metadata: dict[str, str]) -> None:
    instances.new().pause("gpt", LATER)
    [blob] = instances.container.list_blob_names()
    instances.container.get_blob_client(blob).set_blob_metadata(metadata)
    assert instances.new().current("gpt") is None
    instances.new().pause("gpt", LATER)
    assert instances.new().current("gpt") == LATER


def test_parallel_pauses_agree_in_the_end(instances: Instances) -> None:
    all_at_once = Barrier(8)

    def pause(number: int) -> None:
        all_at_once.wait()
        instances.new().pause("gpt", throttle(30 + number / 10))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pause, range(8)))
    found = instances.new().current("gpt")
    assert found is not None
    assert LATER.until <= found.until <= throttle(31).until  # any of these nearly equal times is good enough


@pytest.mark.parametrize("pace", [PACE, Pace(0.2, None, NOON), Pace(100_000, 100_000, NOON)])
def test_pace_of_one_instance_is_read_by_all(instances: Instances, pace: Pace) -> None:
    assert instances.new().pace("gpt") is None
    instances.new().set_pace("gpt", pace)
    assert instances.new().pace("gpt") == pace
    assert instances.new().pace("flux") is None
    assert instances.new().current("gpt") is None


def test_throttle_and_pace_are_one_read(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    instances.new().pause("gpt", LATEST)
    instances.new().set_pace("gpt", PACE)
    one = instances.new()
    assert one.current("gpt") == LATEST
    monkeypatch.setattr(one, "_read", None)
    assert one.pace("gpt") == PACE


def test_later_pace_replaces_an_earlier_one(instances: Instances) -> None:
    one = instances.new()
    one.set_pace("gpt", PACE)
    slower = Pace(5, None, NOON)
    one.set_pace("gpt", slower)
    assert one.pace("gpt") == instances.new().pace("gpt") == slower


def test_pause_and_pace_of_two_instances_are_both_kept(instances: Instances) -> None:
    """Each write is conditional: an instance that lost reads again, and changes only its own part."""
    together = Barrier(2)

    def pause(_: int) -> None:
        one = instances.new()
        for number in range(10):
            together.wait()
            one.pause("gpt", throttle(30 + number))

    def pace(_: int) -> None:
        other = instances.new()
        for number in range(10):
            together.wait()
            other.set_pace("gpt", Pace(1 + number, None, NOON))
            found = instances.new()
            assert found.pace("gpt") == Pace(1 + number, None, NOON)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(pause, 0), pool.submit(pace, 0)]
        for future in futures:
            future.result()
    found = instances.new()
    assert (found.current("gpt"), found.pace("gpt")) == (throttle(39), Pace(10, None, NOON))


def test_change_by_another_instance_is_not_overwritten(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    one = instances.new()
    read = one._read  # pyright: ignore[reportPrivateUsage]
    reads: list[str] = []

    def read_before_the_other_writes(model: str) -> object:
        found = read(model)
        if not reads:
            instances.new().pause("gpt", LATER)
        reads.append(model)
        return found

    monkeypatch.setattr(one, "_read", read_before_the_other_writes)
    one.set_pace("gpt", PACE)
    assert len(reads) >= 2
    assert instances.new().current("gpt") == LATER
    assert instances.new().pace("gpt") == PACE


def test_endless_conflicts_are_an_outage(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_model: str, _state: object) -> bool:
        return False

    one = instances.new()
    monkeypatch.setattr(one, "_write", write)
    with pytest.raises(StorageUnavailableError):
        one.set_pace("gpt", PACE)


@pytest.mark.parametrize(
    ("damage", "pace"),
    [
        ({"rate": "fast"}, None),
        ({"rate": "0"}, None),
        ({"rate": "-1"}, None),
        ({"rate": "nan"}, None),
        ({"rate": "inf"}, None),
        ({"paced_until": "soon"}, None),
        ({"paced_until": "2026-11-23T12:00:15"}, PACE),  # without a time zone: UTC
        ({"ceiling": "high"}, Pace(9.5, None, PACE.until)),
        ({"ceiling": "0"}, Pace(9.5, None, PACE.until)),
        ({"ceiling": "nan"}, Pace(9.5, None, PACE.until)),
    ],
)
def test_damaged_pace_is_ignored_and_replaced(instances: Instances, damage: dict[str, str], pace: Pace | None) -> None:
    instances.new().pause("gpt", LATER)
    instances.new().set_pace("gpt", PACE)
    [name] = instances.container.list_blob_names()
    blob = instances.container.get_blob_client(name)
    blob.set_blob_metadata((blob.get_blob_properties().metadata or {}) | damage)
    assert instances.new().pace("gpt") == pace
    assert instances.new().current("gpt") == LATER  # the rest counts
    instances.new().set_pace("gpt", PACE)
    assert instances.new().pace("gpt") == PACE


def test_throttle_without_a_time_zone_is_utc(instances: Instances) -> None:
    instances.new().pause("gpt", LATER)
    [name] = instances.container.list_blob_names()
    instances.container.get_blob_client(name).set_blob_metadata(
        {"until": "2026-11-23T12:00:30", "reason": LATER.reason}
    )
    assert instances.new().current("gpt") == LATER


def _set_pace(throttling: Throttling) -> None:
    throttling.set_pace("gpt", PACE)


def _read(throttling: Throttling) -> None:
    throttling.current("gpt")


def _pause(throttling: Throttling) -> None:
    throttling.pause("gpt", LATER)


@pytest.mark.parametrize("use", [_read, _pause, _set_pace])
def test_unreachable_storage_is_unavailable(use: Callable[[Throttling], None]) -> None:
    service = BlobServiceClient("http://127.0.0.1:1/a", credential="c2VjcmV0", retry_total=0)
    with pytest.raises(StorageUnavailableError):
        use(Throttling(service, "b"))
