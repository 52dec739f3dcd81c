"""Promises that were broken once: each of these bills somebody, or loses something, when it is broken again."""

from __future__ import annotations

import pytest

from imagegen.errors import RequestError, StorageUnavailableError
from imagegen.generation import Generation, GenerationRequest, Status
from imagegen.idempotency import IdempotencyKey
from imagegen.upstream.protocol import Throttled, Unavailable
from tests.app.fakes import Death, Outcome, World
from tests.app.generations import seconds

KEY = IdempotencyKey("idempotency-key", "order-4711")


def work(world: World) -> None:
    while world.queue.messages:
        for generation_id in world.queue.messages.pop(0):
            world.lifecycle.work(generation_id)


def later(world: World) -> None:
    for _ in range(20):
        world.tick(seconds(60))
        work(world)


@pytest.mark.parametrize("answer", [Throttled("status 429", 5.0), Unavailable("status 503")])
@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_what_ends_during_a_call_that_must_be_repeated_is_not_paid_for_again(
    monkeypatch: pytest.MonkeyPatch, answer: Throttled | Unavailable, verb: str
) -> None:
    world = World()
    generation = world.start(model="gpt")
    calls: list[str] = []

    def ends_meanwhile(called: Generation) -> Outcome:
        calls.append(called.id)
        getattr(world.lifecycle, verb)(generation)
        return answer

    monkeypatch.setattr(world.direct, "generate", ends_meanwhile)
    work(world)
    later(world)
    assert calls == [generation.id]
    assert world.store.active == {}


def test_a_cancel_that_could_not_drop_the_record_is_not_paid_for() -> None:
    world = World()
    generation = world.start(model="gpt")
    world.steps.fail_at, world.steps.failure = len(world.steps.taken) + 1, StorageUnavailableError  # decide, then drop
    with pytest.raises(StorageUnavailableError):
        world.lifecycle.cancel(generation)
    later(world)
    assert world.direct.calls == []
    assert world.store.active == {}


def test_a_brake_that_cannot_be_written_does_not_make_a_throttled_call_a_lost_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(repeat_lost_calls=False)
    generation = world.start(model="gpt")
    world.direct.answers = [Throttled("status 429", 5.0)]
    pause = world.throttling.pause

    def away(*_: object) -> None:
        raise StorageUnavailableError("write throttling")

    monkeypatch.setattr(world.throttling, "pause", away)
    with pytest.raises(StorageUnavailableError):
        work(world)
    monkeypatch.setattr(world.throttling, "pause", pause)
    world.direct.answers = World().direct.answers
    later(world)
    found = world.store.read(generation.id)
    assert found is not None
    assert (found.status, found.lost_calls) == (Status.SUCCEEDED, 0)


def test_images_of_an_answer_that_nobody_finished_do_not_stay_behind() -> None:
    world = World(repeat_lost_calls=False)
    generation = world.start(model="gpt")
    # create, send, claim, call, and dead once the image is written
    world.steps.fail_at, world.steps.fail_after = 4, True
    with pytest.raises(Death):
        work(world)
    assert world.images.blobs, "the test must die after an image"
    later(world)
    found = world.store.read(generation.id)
    assert found is not None
    assert found.error is not None
    assert found.error.code == "outcomeUnknown"
    assert world.images.blobs == set()


def test_a_key_whose_request_was_turned_away_stands_for_nothing() -> None:
    world = World(most_active=0)
    with pytest.raises(RequestError) as refused:
        world.start(key=KEY)
    assert refused.value.status == 429
    assert world.store.keys == {}


def test_a_repetition_is_the_same_request_after_a_default_was_changed() -> None:
    world = World()
    request = GenerationRequest(prompt="a lighthouse")
    first = world.lifecycle.start(request, metadata={}, timeout=seconds(600), key=KEY)
    again = world.lifecycle.start(request, metadata={}, timeout=seconds(900), key=KEY)
    assert again.id == first.id
    with pytest.raises(RequestError):
        world.lifecycle.start(request, metadata={}, timeout=seconds(900), asked_seconds=900, key=KEY)


def test_a_message_for_many_makes_no_call_but_a_message_for_each() -> None:
    world = World()
    ids = [world.start(model="gpt", prompt=f"{number}").id for number in range(3)]
    world.queue.messages.clear()
    for generation_id in ids:
        world.lifecycle.work(generation_id, may_call=False)
    assert world.direct.calls == []
    assert world.queue.messages == [[generation_id] for generation_id in ids]
