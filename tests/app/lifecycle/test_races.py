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
from imagegen.lifecycle.generations import Lifecycle
from imagegen.lifecycle.ports import FakeApp
from imagegen.storage.download import Download
from imagegen.storage.images import BlobImages
from imagegen.storage.records import BlobStore
from imagegen.storage.throttling import Throttling
from imagegen.upstream.protocol import Accepted, Ended, ImageUrl, Produced, Unavailable, Working
from local.azurite import Azurite
from tests.app.fakes import ANY, MemoryQueue, Steps

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


class Store(BlobStore):
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

    def decide(self, generation: Generation) -> Generation | None:
        self.hooks.reached("deciding")
        decided = super().decide(generation)
        self.hooks.reached("decided")
        return decided


class House:
    def __init__(self, azurite: Azurite, container: str) -> None:
        client = BlobServiceClient.from_connection_string(azurite.connection_string)
        self.hooks = Hooks()
        self.service = Service(self.hooks)
        self.pictures = Pictures(self.hooks)
        self.queue = MemoryQueue(Steps())
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.store = Store(client, container)
        self.store.hooks = self.hooks
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
        self.lifecycle = Lifecycle(
            FakeApp(
                store=self.store,
                images=self.images,
                upstreams={"dalle": self.service},
                throttling=Throttling(client, container),
                queue=self.queue,
                repeat_lost_calls=True,
                clock=lambda: self.now,
                sleep=self.later,
            ),
            new_id=new_generation_id,
            most_active=100,
        )

    def start(self, key: IdempotencyKey | None = None, request: GenerationRequest = ASKED) -> Generation:
        return self.lifecycle.start(request, metadata={}, timeout=timedelta(minutes=10), key=key)

    def tick(self) -> None:
        """What the timer does: advance all that is due."""
        for entry in self.store.list_active():
            if entry.due <= self.now and (current := self.store.read_active(entry.id)):
                self.lifecycle.advance(current)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def status(self, generation: Generation) -> Status | None:
        found = self.store.read(generation.id)
        return found.status if found else None

    def blobs(self, prefix: str) -> list[str]:
        return list(self.container.list_blob_names(name_starts_with=prefix))

    def image_blobs(self) -> list[str]:
        return list(self.images_container.list_blob_names()) if self.images_container.exists() else []


@pytest.fixture
def house(azurite: Azurite, request: pytest.FixtureRequest) -> House:
    return House(azurite, f"races{abs(hash(request.node.nodeid)):x}"[:40])


def dies() -> None:
    raise Death


def test_two_posts_with_one_key_at_once_are_one_generation(house: House) -> None:
    others: list[Generation] = []
    for place in ("key claimed", "created"):
        key = IdempotencyKey("idempotency-key", place)
        house.hooks.at(place, lambda key=key: others.append(house.start(key)))
        first = house.start(key)
        assert (others[-1].id, others[-1].token) == (first.id, first.token)
    assert len(house.service.submitted) == len(set(house.service.submitted)) == 2


def test_many_posts_with_one_key_submit_once(house: House) -> None:
    house.start()  # makes the container
    together = threading.Barrier(8)

    def post(_: int) -> Generation:
        together.wait()
        return house.start(KEY)

    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(post, range(8)))
    assert len({(one.id, one.token) for one in started}) == 1
    assert house.service.submitted.count(started[0].id) == 1


@pytest.mark.parametrize(
    ("place", "submits"),
    [
        ("key claimed", 1),  # a key without a record: the repetition makes the record
        ("created", 1),  # a record without an operation: the timer submits it
        ("submitted", 2),  # an operation that nobody knows: submitted again under the same Operation-Id
        ("nowhere", 1),  # all was well, only the answer was lost
    ],
)
def test_a_post_that_is_repeated_after_its_answer_was_lost_is_one_generation(
    house: House, place: str, submits: int
) -> None:
    house.hooks.at(place, dies)
    try:
        house.start(KEY)
    except Death:
        assert place != "nowhere"
    again = house.start(KEY)
    house.later(60)
    house.tick()
    house.later(60)
    house.tick()

    assert house.status(again) is Status.SUCCEEDED
    assert set(house.service.submitted) == {again.id}
    assert len(house.service.submitted) == submits
    assert len(house.blobs("done/")) == 1


def test_a_post_that_is_repeated_after_success_is_the_same_generation(house: House) -> None:
    first = house.start(KEY)
    house.later(5)
    house.tick()
    again = house.start(KEY)

    assert (again.id, again.token, again.status) == (first.id, first.token, Status.SUCCEEDED)
    assert len(house.service.submitted) == 1
    assert house.blobs("active/") == []


def test_a_repetition_that_is_slower_than_the_whole_generation_is_the_same_generation(house: House) -> None:
    house.hooks.at("key claimed", dies)
    with pytest.raises(Death):
        house.start(KEY)
    others: list[Generation] = []

    def all_of_it() -> None:
        others.append(house.start(KEY))
        house.later(5)
        house.tick()

    house.hooks.at("admitted", all_of_it)
    again = house.start(KEY)

    assert (again.id, again.token) == (others[0].id, others[0].token)
    assert house.status(again) is Status.SUCCEEDED
    assert len(house.service.submitted) == 1


def test_a_key_with_another_body_is_refused_and_starts_nothing(house: House) -> None:
    house.start(KEY)
    with pytest.raises(RequestError) as refused:
        house.start(KEY, GenerationRequest(prompt="something else"))
    assert (refused.value.status, refused.value.code) == (422, "idempotencyKeyReused")
    with pytest.raises(RequestError) as refused:
        house.start(IdempotencyKey("operation-id", KEY.value), GenerationRequest(prompt="something else"))
    assert refused.value.status == 400
    assert len(house.service.submitted) == 1


@pytest.mark.parametrize("place", ["fetching", "deciding"])
def test_cancel_that_comes_before_completion_wins_as_a_whole(house: House, place: str) -> None:
    generation = house.start()
    house.later(5)
    house.hooks.at(place, lambda: house.lifecycle.cancel(generation))
    house.tick()

    assert house.status(generation) is Status.CANCELED
    assert house.image_blobs() == house.blobs("active/") == []


def test_cancel_that_comes_after_completion_loses_as_a_whole(house: House) -> None:
    generation = house.start()
    house.later(5)
    house.hooks.at("deciding", house.tick)  # the timer completes it while cancel makes up its mind
    canceled = house.lifecycle.cancel(generation)

    assert canceled is not None
    assert canceled.status is house.status(generation) is Status.SUCCEEDED
    assert house.image_blobs() == [f"{generation.id}/0.png"]
    assert house.blobs("active/") == []


@pytest.mark.parametrize("place", ["fetching", "deciding", "decided"])
def test_delete_during_the_copy_leaves_nothing_behind(house: House, place: str) -> None:
    generation = house.start(KEY)
    house.later(5)
    house.hooks.at(place, lambda: house.lifecycle.delete(generation))
    house.tick()

    assert house.status(generation) is None
    assert house.image_blobs() == house.blobs("active/") == house.blobs("keys/") == []


@pytest.mark.parametrize("place", ["fetching", "deciding"])
def test_delete_during_a_copy_whose_worker_dies_leaves_nothing_behind(house: House, place: str) -> None:
    generation = house.start()
    house.later(5)

    def delete_then_die() -> None:
        house.lifecycle.delete(generation)
        if place == "deciding":  # its image is written after the DELETE, by a worker that was slow
            house.images.copy(ImageUrl("https://images.example/0.png"), generation.id, 0)
        raise Death

    house.hooks.at(place, delete_then_die)
    with pytest.raises(Death):
        house.tick()
    house.later(600)  # its claim runs out
    house.tick()

    assert house.status(generation) is None
    assert house.image_blobs() == house.blobs("active/") == []


@pytest.mark.parametrize("place", ["deciding", "decided"])
def test_delete_that_dies_half_way_is_completed_by_its_repetition(house: House, place: str) -> None:
    generation = house.start(KEY)
    house.hooks.at(place, dies)
    with pytest.raises(Death):
        house.lifecycle.delete(generation)
    there = house.store.read(generation.id)
    assert there is not None, "the token must still open it, or nobody can delete it"
    house.lifecycle.delete(there)
    house.later(600)
    house.tick()

    assert house.status(generation) is None
    assert house.image_blobs() == house.blobs("active/") == house.blobs("keys/") == []


def test_a_success_that_is_there_first_stands_against_the_deadline(house: House) -> None:
    generation = house.start()
    house.later(601)
    success, house.service.outcome = house.service.outcome, Working(None)

    def completes() -> None:
        house.service.outcome = success
        house.tick()

    house.hooks.at("deciding", completes)  # one tick is about to write deadlineExceeded, another one copies
    house.tick()

    assert house.status(generation) is Status.SUCCEEDED
    assert house.image_blobs() == [f"{generation.id}/0.png"]


def test_a_deadline_that_is_there_first_stands_against_success(house: House) -> None:
    generation = house.start()
    stale = house.store.read_active(generation.id)
    assert stale is not None
    house.later(601)

    def runs_out() -> None:
        house.service.outcome = Working(None)
        house.lifecycle.advance(stale)

    house.hooks.at("fetching", runs_out)
    house.tick()

    found = house.store.read(generation.id)
    assert found is not None
    assert found.error is not None
    assert (found.status, found.error.code) == (Status.FAILED, "deadlineExceeded")
    assert house.image_blobs() == []


def test_of_two_ticks_on_one_generation_one_copies(house: House) -> None:
    generation = house.start()
    house.later(5)
    house.hooks.at("polled", house.tick)  # the second tick runs between the first one's poll and its claim
    house.tick()

    assert house.status(generation) is Status.SUCCEEDED
    assert house.pictures.fetched == 1
    assert house.blobs("active/") == []


def test_a_worker_whose_claim_ran_out_does_no_harm(house: House) -> None:
    generation = house.start()
    house.later(5)

    def is_overtaken() -> None:
        house.later(600)
        house.tick()

    house.hooks.at("fetching", is_overtaken)
    house.tick()

    assert house.status(generation) is Status.SUCCEEDED
    assert house.image_blobs() == [f"{generation.id}/0.png"]
    assert house.blobs("active/") == []


def test_a_waiting_caller_moves_on_when_somebody_else_finishes(house: House) -> None:
    generation = house.start()
    polls: list[Any] = []
    house.hooks.at("polled", lambda: (polls.append(1), house.tick()))
    done = house.lifecycle.wait(generation, house.now + timedelta(seconds=20))

    assert done.status is Status.SUCCEEDED
    assert house.pictures.fetched == 1
