"""Whole generations on Azurite and the emulator, with each of the emulator's faults. Only the clock is a fake."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from azure.storage.blob import ContainerClient
from pydantic import SecretStr

from imagegen.app import new_generation_id
from imagegen.deployments import Deployment, ImageApi
from imagegen.generation import FailedImage, Generation, GenerationRequest, Status, StoredImage
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.ports import Member, Ports
from imagegen.lifecycle.worker import Worker
from imagegen.settings import read_settings
from imagegen.storage.clients import open_storage
from imagegen.storage.download import Downloader
from imagegen.storage.images import BlobImages
from imagegen.storage.records import BlobRecords
from imagegen.storage.throttling import Throttling
from imagegen.storage.work_queue import CALLS_QUEUE, WorkQueue
from imagegen.upstream.operations import OperationsUpstream
from local.azurite import Azurite
from local.stack import KEY, emulator
from tests.app.generations import error_code

LIMIT = 2 << 20


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    with emulator("--speed", "0") as (url, _):
        yield url


@dataclass
class AzuriteApp:
    """The app with a clock that jumps to the next `due`."""

    azurite: Azurite
    endpoint: str
    deployment_key: str = KEY
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __post_init__(self) -> None:
        name = uuid4().hex
        settings = read_settings(
            {
                "AzureWebJobsStorage": self.azurite.connection_string,
                "AZURE_OPENAI_ENDPOINT": self.endpoint,
                "AZURE_OPENAI_API": "operations",
                "POLL_SCHEDULE": "0 * * * * *",
            }
        )
        storage = open_storage(settings, connections=2)
        deployment = Deployment(
            name="dalle",
            api=ImageApi.OPERATIONS,
            endpoint=self.endpoint,
            deployment="dalle",
            api_version="2023-06-01-preview",
            api_key=SecretStr(self.deployment_key),
            scope="",
        )
        self.container: ContainerClient = storage.get_container_client(f"i-{name}")
        self.records = BlobRecords(storage, f"g-{name}")
        ports = Ports(
            records=self.records,
            images=BlobImages(
                storage,
                self.container.container_name,
                downloader=Downloader(allowed_hosts=[], endpoints=[self.endpoint], connections=2, seconds=30),
                limit=LIMIT,
                link_lifetime=timedelta(hours=1),
                clock=self.clock,
            ),
            models={
                "dalle": [Member(None, "dalle", OperationsUpstream(deployment, allowed_origins=[], connections=2))]
            },
            throttling=Throttling(storage, f"g-{name}", monotonic=lambda: self.now.timestamp()),
            queue=WorkQueue(settings, CALLS_QUEUE, connections=2),
            repeat_lost_calls=True,
            clock=self.clock,
        )
        self.worker = Worker(ports)
        self.generations = Generations(ports, self.worker, new_id=new_generation_id, most_active=10)

    def clock(self) -> datetime:
        return self.now

    def generate(self, prompt: str, n: int = 1) -> Generation:
        """Start a generation, and tick until it ends."""
        request = GenerationRequest(prompt=prompt, n=n, size="256x256")
        started = self.generations.start(request, metadata={}, timeout=timedelta(seconds=60))
        for _ in range(100):
            for entry in self.records.list_active():
                self.now = max(self.now, entry.due)
                if current := self.records.read_active(entry.id):
                    after = self.worker.advance(current)
                    self.now = max(self.now, after.generation.due if after else self.now)
            found = self.records.read(started.id)
            assert found is not None
            if found.status.is_terminal:
                assert self.records.list_active() == []
                return found
        pytest.fail(f"did not end after 100 ticks: {prompt}")

    def blobs(self) -> list[str]:
        return list(self.container.list_blob_names()) if self.container.exists() else []


@pytest.fixture
def app(azurite: Azurite, endpoint: str) -> AzuriteApp:
    return AzuriteApp(azurite, endpoint)


def emulator_counts(endpoint: str, generation: Generation) -> dict[str, Any]:
    """The emulator's counters of this generation. Its id is the ``Operation-Id``."""
    return requests.get(f"{endpoint}/_emulator/stats", timeout=10).json()["by_operation"][generation.id]


@pytest.mark.parametrize(
    "fault",
    [
        "",
        "[submit-429:2]",
        "[submit-500:3]",
        "[submit-drop:1]",  # accepted, but the response is lost
        "[poll-404:1]",
        "[poll-429:3]",
        "[poll-500:3]",
        "[poll-garbage:3]",
        "[poll-drop:3]",
        "[poll-retry-date]",
        "[poll-no-retry-after]",
        "[retry-after:soon]",
        "[retry-after:99999999999999999999]",
        "[no-created]",
        "[image-404:2]",
        "[image-403:2]",
        "[image-500:2]",
        "[image-truncated:2]",
        "[image-html:2]",
        "[image-empty:2]",
    ],
)
def test_temporary_fault_only_delays_success(app: AzuriteApp, endpoint: str, fault: str) -> None:
    done = app.generate(f"a lighthouse {fault}", n=2)
    assert (done.status, done.error) == (Status.SUCCEEDED, None)
    assert [image.blob for image in done.images if isinstance(image, StoredImage)] == app.blobs()
    assert len(app.blobs()) == 2
    counted = emulator_counts(endpoint, done)
    assert counted["operation_id_header"] == done.id
    assert counted["image_gets"] == (2 if "image" not in fault else 6)  # a stored image is not fetched again


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("[contentFilter]", Status.FAILED, "contentFilter"),
        ("[failed:internalFailure]", Status.FAILED, "internalFailure"),
        ("[status:canceled]", Status.CANCELED, None),
        ("[status:deleted]", Status.FAILED, "operationDeleted"),
        ("[submit-400]", Status.FAILED, "invalidPayload"),
        ("[submit-401]", Status.FAILED, "upstreamUnauthorized"),
        ("[submit-403]", Status.FAILED, "upstreamForbidden"),
        ("[submit-no-location]", Status.FAILED, "operationLocationMissing"),
        ("[location-elsewhere]", Status.FAILED, "operationLocationNotAllowed"),
        ("[submit-500]", Status.FAILED, "deadlineExceeded"),
        ("[never]", Status.FAILED, "deadlineExceeded"),
        ("[poll-500]", Status.FAILED, "deadlineExceeded"),
        ("[poll-404]", Status.FAILED, "operationNotFound"),
        ("[image-404]", Status.FAILED, "imageUnavailable"),
        ("[image-truncated]", Status.FAILED, "imageUnavailable"),
        ("[image-html]", Status.FAILED, "notAnImage"),
        ("[image-huge]", Status.FAILED, "imageTooLarge"),
        ("[image-redirect:https://169.254.169.254/metadata]", Status.FAILED, "imageUrlNotAllowed"),
        ("[image-redirect:http://example.com/]", Status.FAILED, "imageUrlNotAllowed"),
    ],
)
def test_permanent_fault_ends_with_its_code(app: AzuriteApp, fault: str, status: Status, code: str | None) -> None:
    done = app.generate(f"a lighthouse {fault}")
    assert (done.status, error_code(done)) == (status, code)
    assert app.blobs() == []


def test_refused_image_does_not_fail_the_others(app: AzuriteApp) -> None:
    done = app.generate("a lighthouse [image-error:1]", n=3)
    assert done.status is Status.SUCCEEDED
    assert [type(image) for image in done.images] == [StoredImage, FailedImage, StoredImage]
    assert app.blobs() == [f"{done.id}/0.png", f"{done.id}/2.png"]


@pytest.mark.parametrize(("fault", "extension"), [("[image-jpeg]", "jpg"), ("[image-webp]", "webp")])
def test_file_extension_matches_the_image_format(app: AzuriteApp, fault: str, extension: str) -> None:
    done = app.generate(f"a lighthouse {fault}")
    assert app.blobs() == [f"{done.id}/0.{extension}"]


def test_wrong_key_error_names_the_setting(azurite: Azurite, endpoint: str) -> None:
    done = AzuriteApp(azurite, endpoint, deployment_key="wr0ng").generate("a lighthouse")
    assert done.error is not None
    assert "AZURE_OPENAI_API_KEY" in done.error.message
    assert "wr0ng" not in done.model_dump_json()


def test_log_has_no_secret(app: AzuriteApp, endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        done = app.generate("a private prompt [poll-500:1] [image-403:1]")
    assert done.status is Status.SUCCEEDED
    assert "generation.succeeded" in caplog.text
    for secret in ("private", KEY, done.token, "sig=", "AccountKey", endpoint):
        assert secret not in caplog.text
    assert requests.get(f"{endpoint}/_emulator/stats", timeout=10).json()["leaked_credentials"] == 0
