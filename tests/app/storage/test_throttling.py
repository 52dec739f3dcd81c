"""Shared throttling on a real Azurite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from imagegen.errors import StorageUnavailableError
from imagegen.storage.throttling import Throttling
from local.azurite import Azurite
from tests.app.generations import NOON, seconds

LATER = NOON + seconds(30)


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
    assert instances.new().paused_until("gpt") is None


def test_pause_of_one_instance_holds_for_all(instances: Instances) -> None:
    instances.new().pause("gpt", LATER)
    assert instances.new().paused_until("gpt") == LATER
    assert instances.new().paused_until("flux") is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (LATER, LATER + seconds(5), LATER + seconds(5)),
        (LATER + seconds(5), LATER, LATER + seconds(5)),  # the later time counts, whichever came last
        (LATER, LATER, LATER),
    ],
)
def test_later_of_two_pauses_counts(
    instances: Instances, first: datetime, second: datetime, expected: datetime
) -> None:
    one, other = instances.new(), instances.new()
    one.pause("gpt", first)
    other.pause("gpt", second)
    assert other.paused_until("gpt") == instances.new().paused_until("gpt") == expected


def test_value_is_cached_for_two_seconds(instances: Instances) -> None:
    one, other = instances.new(), instances.new()
    assert one.paused_until("gpt") is None
    other.pause("gpt", LATER)
    instances.now = 1.9
    assert one.paused_until("gpt") is None
    instances.now = 2.0
    assert one.paused_until("gpt") == LATER


def test_own_pause_is_cached(instances: Instances) -> None:
    one = instances.new()
    one.pause("gpt", LATER)
    instances.container.delete_container()
    assert one.paused_until("gpt") == LATER


def test_slow_read_does_not_hide_a_newer_pause(instances: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    one = instances.new()

    def pause_meanwhile(_: str) -> None:
        monkeypatch.undo()
        one.pause("gpt", LATER)

    monkeypatch.setattr(one, "_read", pause_meanwhile)
    assert one.paused_until("gpt") == LATER
    assert one.paused_until("gpt") == LATER


@pytest.mark.parametrize("name", ["FLUX.1-Kontext-pro", "our images/2?", "\u00fc", "a" * 128, "..", "."])
def test_deployments_of_any_name_are_paused_separately(instances: Instances, name: str) -> None:
    instances.new().pause(name, LATER)
    assert instances.new().paused_until(name) == LATER
    assert instances.new().paused_until("gpt") is None
    [blob] = instances.container.list_blob_names()
    assert blob.startswith("throttling/")  # outside of active/ and done/


@pytest.mark.parametrize("metadata", [{}, {"until": "soon"}, {"until": ""}])
def test_malformed_pause_is_ignored_and_replaced(instances: Instances, metadata: dict[str, str]) -> None:
    instances.new().pause("gpt", LATER)
    [blob] = instances.container.list_blob_names()
    instances.container.get_blob_client(blob).set_blob_metadata(metadata)
    assert instances.new().paused_until("gpt") is None
    instances.new().pause("gpt", LATER)
    assert instances.new().paused_until("gpt") == LATER


def test_parallel_pauses_agree_in_the_end(instances: Instances) -> None:
    all_at_once = Barrier(8)

    def pause(number: int) -> None:
        all_at_once.wait()
        instances.new().pause("gpt", LATER + seconds(number / 10))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pause, range(8)))
    found = instances.new().paused_until("gpt")
    assert found is not None
    assert LATER <= found <= LATER + seconds(1)  # any of these nearly equal times is good enough


def _read(throttling: Throttling) -> None:
    throttling.paused_until("gpt")


def _pause(throttling: Throttling) -> None:
    throttling.pause("gpt", LATER)


@pytest.mark.parametrize("use", [_read, _pause])
def test_unreachable_storage_is_unavailable(use: Callable[[Throttling], None]) -> None:
    service = BlobServiceClient("http://127.0.0.1:1/a", credential="c2VjcmV0", retry_total=0)
    with pytest.raises(StorageUnavailableError):
        use(Throttling(service, "b"))
