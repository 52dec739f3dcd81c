"""Shared throttling on a real Azurite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from imagegen.errors import StorageUnavailableError
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Throttle
from local.azurite import Azurite
from tests.app.generations import throttle

LATER = throttle(30)
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


def _read(throttling: Throttling) -> None:
    throttling.current("gpt")


def _pause(throttling: Throttling) -> None:
    throttling.pause("gpt", LATER)


@pytest.mark.parametrize("use", [_read, _pause])
def test_unreachable_storage_is_unavailable(use: Callable[[Throttling], None]) -> None:
    service = BlobServiceClient("http://127.0.0.1:1/a", credential="c2VjcmV0", retry_total=0)
    with pytest.raises(StorageUnavailableError):
        use(Throttling(service, "b"))
