"""Races on one generation. Each test sets the interleaving: a hook runs one worker in the middle of another one's step.

Storage is Azurite. The image service is a fake, because most of these moments are inside a call to it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from uuid import uuid4

import pytest

from imagegen.errors import RequestError
from imagegen.generation import Generation, GenerationRequest, Status
from imagegen.idempotency import IdempotencyKey
from imagegen.upstream.protocol import ImageUrl, Working
from imagegen.web.http import as_http_error
from local.azurite import Azurite
from tests.app.fakes import Crash
from tests.app.generations import DIRECT, error_code
from tests.app.lifecycle.fake_app import KEY
from tests.app.lifecycle.race_app import URL, RaceApp


@pytest.fixture
def app(azurite: Azurite) -> Generator[RaceApp]:
    race_app = RaceApp(azurite, f"races-{uuid4().hex}")
    yield race_app
    assert race_app.hooks.waiting == {}, "the test did not reach these hooks"


def crash() -> None:
    raise Crash


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
        ("key claimed", 1),  # a key without a record: the repeated POST writes the record
        ("created", 1),  # a record without an operation: the timer submits it
        ("submitted", 2),  # an operation that no record names: submitted again with the same Operation-Id
        (None, 1),  # the start succeeded, and only the answer was lost
    ],
)
def test_repeated_post_after_a_lost_answer(app: RaceApp, place: str | None, submits: int) -> None:
    if place:
        app.hooks.at(place, crash)
    with pytest.raises(Crash) if place else nullcontext():
        app.start(KEY)
    again = app.start(KEY)
    app.sleep(60)
    app.tick()
    app.sleep(60)
    app.tick()

    assert app.status(again) is Status.SUCCEEDED
    assert set(app.service.submitted) == {again.id}
    assert len(app.service.submitted) == submits
    assert len(app.blobs("done/")) == 1


def test_repeated_post_after_success(app: RaceApp) -> None:
    first = app.start(KEY)
    app.sleep(5)
    app.tick()
    again = app.start(KEY)

    assert (again.id, again.token, again.status) == (first.id, first.token, Status.SUCCEEDED)
    assert len(app.service.submitted) == 1
    assert app.blobs("active/") == []


def test_slow_repeated_post_finds_the_finished_generation(app: RaceApp) -> None:
    app.hooks.at("key claimed", crash)
    with pytest.raises(Crash):
        app.start(KEY)
    others: list[Generation] = []

    def run_another_post_to_its_end() -> None:
        others.append(app.start(KEY))
        app.sleep(5)
        app.tick()

    app.hooks.at("admitted", run_another_post_to_its_end)
    again = app.start(KEY)

    assert (again.id, again.token) == (others[0].id, others[0].token)
    assert app.status(again) is Status.SUCCEEDED
    assert len(app.service.submitted) == 1


def test_key_with_another_request_starts_nothing(app: RaceApp) -> None:
    app.start(KEY)
    with pytest.raises(RequestError) as refused:
        app.start(KEY, GenerationRequest(prompt="something else"))
    assert (as_http_error(refused.value).status, refused.value.code) == (422, "idempotencyKeyReused")
    with pytest.raises(RequestError) as refused:
        app.start(IdempotencyKey("operation-id", KEY.value), GenerationRequest(prompt="something else"))
    assert as_http_error(refused.value).status == 400
    assert len(app.service.submitted) == 1


@pytest.mark.parametrize("place", ["fetching", "before outcome"])
def test_cancel_before_completion_leaves_no_image(app: RaceApp, place: str) -> None:
    generation = app.start()
    app.sleep(5)
    app.hooks.at(place, lambda: app.generations.cancel(generation))
    app.tick()

    assert app.status(generation) is Status.CANCELED
    assert app.image_blobs() == app.blobs("active/") == []


def test_cancel_after_completion_keeps_the_image(app: RaceApp) -> None:
    generation = app.start()
    app.sleep(5)
    app.hooks.at("before outcome", app.tick)  # the timer finishes it just before the cancel writes
    canceled = app.generations.cancel(generation)

    assert canceled is not None
    assert canceled.status is app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]
    assert app.blobs("active/") == []


@pytest.mark.parametrize("place", ["fetching", "before outcome", "after outcome"])
def test_delete_during_a_copy_leaves_nothing(app: RaceApp, place: str) -> None:
    generation = app.start(KEY)
    app.sleep(5)
    app.hooks.at(place, lambda: app.generations.delete(generation))
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == app.blobs("keys/") == []


@pytest.mark.parametrize("place", ["fetching", "before outcome"])
def test_delete_during_a_crashed_copy_leaves_nothing(app: RaceApp, place: str) -> None:
    generation = app.start()
    app.sleep(5)

    def delete_then_crash() -> None:
        app.generations.delete(generation)
        if place == "before outcome":  # a slow worker writes its image after the delete
            app.images.copy(ImageUrl(URL), generation.id, 0)
        raise Crash

    app.hooks.at(place, delete_then_crash)
    with pytest.raises(Crash):
        app.tick()
    app.sleep(600)  # the claim expires
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == []


@pytest.mark.parametrize("place", ["before outcome", "after outcome"])
def test_repeated_delete_completes_a_crashed_one(app: RaceApp, place: str) -> None:
    generation = app.start(KEY)
    app.hooks.at(place, crash)
    with pytest.raises(Crash):
        app.generations.delete(generation)
    there = app.records.read(generation.id)
    assert there is not None, "the record holds the token, which the caller needs to repeat the delete"
    app.generations.delete(there)
    app.sleep(600)
    app.tick()

    assert app.status(generation) is None
    assert app.image_blobs() == app.blobs("active/") == app.blobs("keys/") == []


def test_success_before_the_deadline_wins(app: RaceApp) -> None:
    generation = app.start()
    app.sleep(601)
    success, app.service.outcome = app.service.outcome, Working(None)

    def succeed_in_another_tick() -> None:
        app.service.outcome = success
        app.tick()

    app.hooks.at("before outcome", succeed_in_another_tick)  # this tick is about to write deadlineExceeded
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]


def test_deadline_before_success_wins(app: RaceApp) -> None:
    generation = app.start()
    stale = app.records.read_active(generation.id)
    assert stale is not None
    app.sleep(601)

    def fail_in_another_tick() -> None:
        app.service.outcome = Working(None)
        app.worker.advance(stale)

    app.hooks.at("fetching", fail_in_another_tick)
    app.tick()

    found = app.records.read(generation.id)
    assert found is not None
    assert (found.status, error_code(found)) == (Status.FAILED, "deadlineExceeded")
    assert app.image_blobs() == []


def test_second_tick_does_not_copy_again(app: RaceApp) -> None:
    generation = app.start()
    app.sleep(5)
    app.hooks.at("polled", app.tick)  # the second tick runs between the first one's poll and its claim
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.pictures.fetched == 1
    assert app.blobs("active/") == []


def test_worker_with_an_expired_claim_changes_nothing(app: RaceApp) -> None:
    generation = app.start()
    app.sleep(5)

    def finish_in_another_tick() -> None:
        app.sleep(600)
        app.tick()

    app.hooks.at("fetching", finish_in_another_tick)
    app.tick()

    assert app.status(generation) is Status.SUCCEEDED
    assert app.image_blobs() == [f"{generation.id}/0.png"]
    assert app.blobs("active/") == []


def test_wait_ends_when_another_worker_finishes(app: RaceApp) -> None:
    generation = app.start()
    app.hooks.at("polled", app.tick)
    done = app.generations.wait(generation, app.now + timedelta(seconds=20))

    assert done.status is Status.SUCCEEDED
    assert app.pictures.fetched == 1


def test_simultaneous_claims_make_one_call(app: RaceApp) -> None:
    """The records of both claims are equal but for the owner, so the loser must not take the write for its own."""
    generation = app.start(request=GenerationRequest(prompt="a lighthouse", model=DIRECT))
    stale = app.records.read_active(generation.id)
    assert stale is not None
    app.direct.during_call = lambda: app.worker.advance(stale, has_minutes=True)
    app.worker.advance_by_id(generation.id, has_minutes=True)

    assert app.direct.calls == [generation.id]
    assert app.status(generation) is Status.SUCCEEDED
    assert app.blobs("active/") == []


def test_many_deliveries_of_one_message_make_one_call(app: RaceApp) -> None:
    generation = app.start(request=GenerationRequest(prompt="a lighthouse", model=DIRECT))
    stale = app.records.read_active(generation.id)
    assert stale is not None
    together = threading.Barrier(8)

    def deliver(_: int) -> None:
        together.wait()
        app.worker.advance(stale, has_minutes=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(deliver, range(8)))
    assert app.direct.calls == [generation.id]
    assert app.status(generation) is Status.SUCCEEDED


@pytest.mark.parametrize("owner", ["this request", "an earlier request"])
@pytest.mark.parametrize("place", ["key claimed", "created"])
def test_delete_between_claim_and_read_starts_anew(app: RaceApp, owner: str, place: str) -> None:
    if owner == "an earlier request":
        app.hooks.at("key claimed", crash)
        with pytest.raises(Crash):
            app.start(KEY)

    def start_and_delete() -> None:
        app.generations.delete(app.start(KEY))

    app.hooks.at(place, start_and_delete)
    started = app.start(KEY)

    found = app.records.read(started.id)
    assert found is not None, "the URL of the answer leads nowhere"
    assert (found.token, found.status) == (started.token, Status.RUNNING)
    assert app.blobs("active/") == [f"active/{started.id}"]
    assert app.start(KEY).id == started.id
