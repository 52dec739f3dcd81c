"""The app on Azurite, with hooks in the middle of its steps. The image service and the download of images are fakes."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta

from azure.storage.blob import BlobServiceClient
from PIL import Image

from imagegen.app import new_generation_id
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.ports import Member, Ports
from imagegen.lifecycle.worker import Worker
from imagegen.storage.download import Download
from imagegen.storage.images import BlobImages
from imagegen.storage.records import BlobRecords
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Accepted, Answered, ImageBytes, ImageUrl, Produced, Upstream
from local.azurite import Azurite
from tests.app.fakes import ANY, FakeDirect, FakeQueue, PollOutcome, Steps, SubmitOutcome
from tests.app.generations import DIRECT, NOON, POLLED

REQUEST = GenerationRequest(prompt="a lighthouse in fog")
URL = "https://images.example/0.png"


class Hooks:
    """Functions that run in the middle of a step. Each runs once, when its place is first reached."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], object]] = {}

    def at(self, place: str, run: Callable[[], object]) -> None:
        self.waiting[place] = run

    def reached(self, place: str) -> None:
        if run := self.waiting.pop(place, None):
            run()


class Service:
    """The image service. It accepts each submit, and answers each poll with `outcome`."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._lock = threading.Lock()
        self.submitted: list[str] = []
        self.outcome: PollOutcome = Produced((ImageUrl(URL),))
        self.limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"model": POLLED})

    def check(self) -> None:
        pass

    def submit(self, generation: Generation) -> SubmitOutcome:
        with self._lock:
            self.submitted.append(generation.id)
        self._hooks.reached("submitted")
        return Accepted("https://service.example/operation", None)

    def poll(self, generation: Generation, now: datetime) -> PollOutcome:
        outcome = self.outcome
        self._hooks.reached("polled")
        return outcome


class Pictures:
    """The download of images: each URL is a small PNG."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.fetched = 0
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "png")
        self.content = png.getvalue()

    @contextmanager
    def open(self, url: str) -> Generator[Download]:
        self.fetched += 1
        self._hooks.reached("fetching")
        yield Download(len(self.content), [self.content])


class HookedRecords(BlobRecords):
    """The real store, with hooks between its writes."""

    hooks: Hooks

    def claim_key(self, key: str, claim: KeyClaim) -> KeyClaim:
        claimed = super().claim_key(key, claim)
        self.hooks.reached("key claimed")
        return claimed

    def create(self, generation: Generation) -> Versioned | None:
        created = super().create(generation)
        self.hooks.reached("created")
        return created

    def count_active(self) -> int:
        counted = super().count_active()
        self.hooks.reached("admitted")
        return counted

    def write_outcome(self, generation: Generation) -> Generation | None:
        self.hooks.reached("before outcome")
        winner = super().write_outcome(generation)
        self.hooks.reached("after outcome")
        return winner


class RaceApp:
    def __init__(self, azurite: Azurite, container: str) -> None:
        client = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.hooks = Hooks()
        self.service = Service(self.hooks)
        self.pictures = Pictures(self.hooks)
        self.queue = FakeQueue(Steps())
        self.now = NOON
        self.records = HookedRecords(client, container)
        self.records.hooks = self.hooks
        self.container = client.get_container_client(container)
        self.images_container = client.get_container_client(f"{container}-images")
        self.images = BlobImages(
            client,
            f"{container}-images",
            downloader=self.pictures,  # pyright: ignore[reportArgumentType] - only open() is used
            limit=1 << 20,
            link_lifetime=timedelta(hours=1),
            clock=lambda: self.now,
        )
        self.direct = FakeDirect(Steps(), outcomes=[Answered((ImageBytes(self.pictures.content),))])
        services: dict[str, Upstream] = {POLLED: self.service, DIRECT: self.direct}
        ports = Ports(
            records=self.records,
            images=self.images,
            models={name: [Member(None, name, one)] for name, one in services.items()},
            throttling=Throttling(client, container),
            queue=self.queue,
            repeat_lost_calls=True,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        self.worker = Worker(ports)
        self.generations = Generations(ports, self.worker, new_id=new_generation_id, most_active=100)

    def start(self, key: IdempotencyKey | None = None, request: GenerationRequest = REQUEST) -> Generation:
        return self.generations.start(request, metadata={}, timeout=timedelta(minutes=10), key=key)

    def tick(self) -> None:
        """Advance each due record, as the timer does."""
        for entry in self.records.list_active():
            if entry.due <= self.now and (current := self.records.read_active(entry.id)):
                self.worker.advance(current)

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def status(self, generation: Generation) -> Status | None:
        found = self.records.read(generation.id)
        return found.status if found else None

    def blobs(self, prefix: str) -> list[str]:
        return list(self.container.list_blob_names(name_starts_with=prefix))

    def image_blobs(self) -> list[str]:
        return list(self.images_container.list_blob_names()) if self.images_container.exists() else []
