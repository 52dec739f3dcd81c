"""Two at once on one generation. Each test drives the interleaving: the one runs in the middle of the other.

Storage is Azurite; only the image service is played, because the moment that matters is inside a call to it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from PIL import Image

from imagegen.app import new_generation_id
from imagegen.errors import RequestError
from imagegen.generation import Generation, GenerationRequest, KeyClaim, Status, Versioned
from imagegen.idempotency import IdempotencyKey
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.ports import Ports
from imagegen.lifecycle.worker import Worker
from imagegen.storage.download import Download
from imagegen.storage.images import BlobImages
from imagegen.storage.records import BlobRecords
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Accepted, Ended, ImageUrl, Produced, Unavailable, Working
from imagegen.web.http import as_http_error
from local.azurite import Azurite
from tests.app.fakes import ANY, FakeQueue, Steps

KEY = IdempotencyKey("idempotency-key", "order-4711")
ASKED = GenerationRequest(prompt="a lighthouse in fog")


class Death(BaseException):
    """The process ends here: nothing after this line happens."""


class Hooks:
    """What runs in the middle of something else: each hook once, at the first time its place is reached."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], object]] = {}

    def at(self, place: str, run: Callable[[], object]) -> None:
        self._waiting[place] = run

    def reached(self, place: str) -> None:
        if run := self._waiting.pop(place, None):
            run()


class Service:
    """The image service: works on what it was given until it is told that it is done."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._lock = threading.Lock()
        self.submitted: list[str] = []
        self.outcome: Working | Produced | Ended = Produced((ImageUrl("https://images.example/0.png"),))
        self.limits = ANY

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return request.model_copy(update={"model": "dalle"})

    def check(self) -> str | None:
        return None

    def submit(self, generation: Generation) -> Accepted | Ended | Unavailable:
        with self._lock:
            self.submitted.append(generation.id)
        self._hooks.reached("submitted")
        return Accepted("https://service.example/operation", None)

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Unavailable:
        outcome = self.outcome
        self._hooks.reached("polled")
        return outcome


class Pictures:
    """Stands in for the network that images come over."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.fetched = 0
        png = io.BytesIO()
        Image.new("RGB", (8, 8)).save(png, "png")
        self._content = png.getvalue()

    @contextmanager
    def open(self, url: str) -> Generator[Download]:
        self.fetched += 1
        self._hooks.reached("fetching")
        yield Download(len(self._content), [self._content])


class HookedRecords(BlobRecords):
    """The real store, with a hook between any two writes."""

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
        self.hooks.reached("deciding")
        decided = super().write_outcome(generation)
        self.hooks.reached("decided")
        return decided


class RaceApp:
    def __init__(self, azurite: Azurite, container: str) -> None:
        client = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.hooks = Hooks()
        self.service = Service(self.hooks)
        self.pictures = Pictures(self.hooks)
        self.queue = FakeQueue(Steps())
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
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
        ports = Ports(
            records=self.records,
            images=self.images,
            upstreams={"dalle": self.service},
            throttling=Throttling(client, container),
            queue=self.queue,
            repeat_lost_calls=True,
            clock=lambda: self.now,
            sleep=self.later,
        )
        self.worker = Worker(ports)
        self.generations = Generations(ports, self.worker, new_id=new_generation_id, most_active=100)

    def start(self, key: IdempotencyKey | None = None, request: GenerationRequest = ASKED) -> Generation:
        return self.generations.start(request, metadata={}, timeout=timedelta(minutes=10), key=key)

    def tick(self) -> None:
        """What the timer does: advance all that is due."""
        for entry in self.records.list_active():
            if entry.due <= self.now and (current := self.records.read_active(entry.id)):
                self.worker.advance(current)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def status(self, generation: Generation) -> Status | None:
        found = self.records.read(generation.id)
        return found.status if found else None

    def blobs(self, prefix: str) -> list[str]:
        return list(self.container.list_blob_names(name_starts_with=prefix))

    def image_blobs(self) -> list[str]:
        return list(self.images_container.list_blob_names()) if self.images_container.exists() else []


@pytest.fixture
def app(azurite: Azurite, request: pytest.FixtureRequest) -> RaceApp:
    return RaceApp(azurite, f"races{abs(hash(request.node.nodeid)):x}"[:40])


def dies() -> None:
    raise Death


def test_two_posts_with_one_key_are_one_generation(app: RaceApp) -> None:
    others: list[Generation] = []
    for place in ("key claimed", "created"):
        key = IdempotencyKey("idempotency-key", place)
        app.hooks.at(place, lambda key=key: others.append(app.start(key)))
        first = app.start(key)
        assert (others[-1].id, others[-1].token) == (first.id, first.token)
    assert len(app.service.submitted) == len(set(app.service.submitted)) == 2


def test_many_posts_with_one_key_submit_once(app: RaceApp) -> None:
    app.start()  # makes the container
    together = threading.Barrier(8)

    def post(_: int) -> Generation:
        together.wait()
        return app.start(KEY)

    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(post, range(8)))
    assert len({(one.id, one.token) for one in started}) == 1
    assert app.service.submitted.count(started[0].id) == 1


@pytest.mark.parametrize(
    ("place", "submits"),
    [
        ("key claimed", 1),  # a key without a record: the repetition makes the record
        ("created", 1),  # a record without an operation: the timer submits it
        ("submitted", 2),  # an operation that nobody knows: submitted again under the same Operation-Id
        ("nowhere", 1),  # all was well, only the answer was lost
    ],
)
def test_repeated_post_after_a_lost_answer(app: RaceApp, place: str, submits: int) -> None:
    app.hooks.at(place, dies)
    try:
        app.start(KEY)
    except Death:
        assert place != "nowhere"
    again = app.start(KEY)
    app.later(60)
    app.tick()
    app.later(60)
    app.tick()

    assert app.status(again) is Status.SUCCEEDED
    assert set(app.service.submitted) == {again.id}
    assert len(app.service.submitted) == submits
    assert len(app.blobs("done/")) == 1


def test_repeated_post_after_success(app: RaceApp) -> None:
    first = app.start(KEY)
    app.later(5)
    app.tick()
    again = app.start(KEY)

    assert (again.id, again.token, again.status) == (first.id, first.token, Status.SUCCEEDED)
    assert len(app.service.submitted) == 1
    assert app.blobs("active/") == []


def test_slow_repetition_finds_the_finished_generation(app: RaceApp) -> None:
    app.hooks.at("key claimed", dies)
    with pytest.raises(Death):
        app.start(KEY)
    others: list[Generation] = []

    def all_of_it() -> None:
        others.append(app.start(KEY))
        app.later(5)
        app.tick()

    app.hooks.at("admitted", all_of_it)
    again = app.start(KEY)

    assert (again.id, again.token) == (others[0].id, others[0].token)
    assert app.status(again) is Status.SUCCEEDED
    assert len(app.service.submitted) == 1


def test_key_with_another_body_starts_nothing(app: RaceApp) -> None:
    app.start(KEY)
    with pytest.raises(RequestError) as refused:
        app.start(KEY, GenerationRequest(prompt="something else"))
    assert (as_http_error(refused.value).status, refused.value.code) == (422, "idempotencyKeyReused")
    with pytest.raises(RequestError) as refused:
        app.start(IdempotencyKey("operation-id", KEY.value), GenerationRequest(prompt="something else"))
    assert as_http_error(refused.value).status == 400
    assert len(app.service.submitted) == 1


@pytest.mark.parametrize("place", ["fetching", "deciding"])
def test_cancel_before_completion_wins_completely(app: RaceApp, place: str) -> None:
    generation = app.start()
    app.later(5)
    app.hooks.at(place, lambda: app.generations.cancel(generation))
    app.tick()

    assert app.status(generation) is Status.CANCELED
    assert app.image_blobs() == app.blobs("active/") == []


def test_cancel_after_completion_loses_completely(app: RaceApp) -> None:
    generation = app.start()
    app.later(5)
    app.hooks.at("deciding", app.tick)  # the timer completes it while cancel makes up its mind
    canceled = app.generations.cancel(generation)

    assert canceled is not None
    assert canceled.status is app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]
    assert app.blobs("active/") == []


@pytest.mark.parametrize("place", ["fetching", "deciding", "decided"])
def test_delete_during_a_copy_leaves_nothing(app: RaceApp, place: str) -> None:
    generation = app.start(KEY)
    app.later(5)
    app.hooks.at(place, lambda: app.generations.delete(generation))
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == app.blobs("keys/") == []


@pytest.mark.parametrize("place", ["fetching", "deciding"])
def test_delete_during_a_crashed_copy_leaves_nothing(app: RaceApp, place: str) -> None:
    generation = app.start()
    app.later(5)

    def delete_then_die() -> None:
        app.generations.delete(generation)
        if place == "deciding":  # its image is written after the DELETE, by a worker that was slow
            app.images.copy(ImageUrl("https://images.example/0.png"), generation.id, 0)
        raise Death

    app.hooks.at(place, delete_then_die)
    with pytest.raises(Death):
        app.tick()
    app.later(600)  # its claim runs out
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == []


@pytest.mark.parametrize("place", ["deciding", "decided"])
def test_repetition_completes_a_crashed_delete(app: RaceApp, place: str) -> None:
    generation = app.start(KEY)
    app.hooks.at(place, dies)
    with pytest.raises(Death):
        app.generations.delete(generation)
    there = app.records.read(generation.id)
    assert there is not None, "the token must still open it, or nobody can delete it"
    app.generations.delete(there)
    app.later(600)
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == app.blobs("keys/") == []


def test_success_before_the_deadline_wins(app: RaceApp) -> None:
    generation = app.start()
    app.later(601)
    success, app.service.outcome = app.service.outcome, Working(None)

    def completes() -> None:
        app.service.outcome = success
        app.tick()

    app.hooks.at("deciding", completes)  # one tick is about to write deadlineExceeded, another one copies
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]


def test_deadline_before_success_wins(app: RaceApp) -> None:
    generation = app.start()
    stale = app.records.read_active(generation.id)
    assert stale is not None
    app.later(601)

    def runs_out() -> None:
        app.service.outcome = Working(None)
        app.worker.advance(stale)

    app.hooks.at("fetching", runs_out)
    app.tick()

    found = app.records.read(generation.id)
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.code) == (Status.FAILED, "deadlineExceeded")
    assert app.image_blobs() == []


def test_second_tick_does_not_copy_again(app: RaceApp) -> None:
    generation = app.start()
    app.later(5)
    app.hooks.at("polled", app.tick)  # the second tick runs between the first one's poll and its claim
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.pictures.fetched == 1
    assert app.blobs("active/") == []


def test_worker_with_an_expired_claim_does_no_harm(app: RaceApp) -> None:
    generation = app.start()
    app.later(5)

    def is_overtaken() -> None:
        app.later(600)
        app.tick()

    app.hooks.at("fetching", is_overtaken)
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]
    assert app.blobs("active/") == []


def test_wait_ends_when_another_worker_finishes(app: RaceApp) -> None:
    generation = app.start()
    polls: list[Any] = []
    app.hooks.at("polled", lambda: (polls.append(1), app.tick()))
    done = app.generations.wait(generation, app.now + timedelta(seconds=20))

    assert done.status is Status.SUCCEEDED
    assert app.pictures.fetched == 1
