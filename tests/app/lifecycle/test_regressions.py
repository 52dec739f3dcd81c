"""Promises that were broken once: each of these bills somebody, or loses something, when it is broken again."""

from __future__ import annotations

import pytest

from imagegen.errors import RequestError, StorageUnavailableError
from imagegen.generation import Generation, GenerationRequest, Status
from imagegen.idempotency import IdempotencyKey
from imagegen.upstream.protocol import Throttled, Unavailable
from imagegen.web.http import as_http_error
from tests.app.fakes import Death, FakeApp, Outcome
from tests.app.generations import seconds

KEY = IdempotencyKey("idempotency-key", "order-4711")


def work(app: FakeApp) -> None:
    while app.queue.messages:
        for generation_id in app.queue.messages.pop(0):
            app.worker.advance_by_id(generation_id, has_minutes=True)


def later(app: FakeApp) -> None:
    for _ in range(20):
        app.tick(seconds(60))
        work(app)


@pytest.mark.parametrize("answer", [Throttled("status 429", 5.0), Unavailable("status 503")])
@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_generation_ended_during_a_call_is_not_called_again(
    monkeypatch: pytest.MonkeyPatch, answer: Throttled | Unavailable, verb: str
) -> None:
    app = FakeApp()
    generation = app.start(model="gpt")
    calls: list[str] = []

    def ends_meanwhile(called: Generation) -> Outcome:
        calls.append(called.id)
        getattr(app.generations, verb)(generation)
        return answer

    monkeypatch.setattr(app.direct, "generate", ends_meanwhile)
    work(app)
    later(app)
    assert calls == [generation.id]
    assert app.records.active == {}


def test_half_done_cancel_prevents_the_call() -> None:
    app = FakeApp()
    generation = app.start(model="gpt")
    app.steps.fail_at, app.steps.failure = len(app.steps.taken) + 1, StorageUnavailableError  # write_outcome, then drop
    with pytest.raises(StorageUnavailableError):
        app.generations.cancel(generation)
    later(app)
    assert app.direct.calls == []
    assert app.records.active == {}


def test_throttled_call_is_not_lost_when_the_pause_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = FakeApp(repeat_lost_calls=False)
    generation = app.start(model="gpt")
    app.direct.answers = [Throttled("status 429", 5.0)]
    pause = app.throttling.pause

    def away(*_: object) -> None:
        raise StorageUnavailableError("write throttling")

    monkeypatch.setattr(app.throttling, "pause", away)
    with pytest.raises(StorageUnavailableError):
        work(app)
    monkeypatch.setattr(app.throttling, "pause", pause)
    app.direct.answers = FakeApp().direct.answers
    later(app)
    found = app.records.read(generation.id)
    assert found is not None
    assert (found.status, found.lost_calls) == (Status.SUCCEEDED, 0)


def test_images_of_a_crashed_call_are_removed() -> None:
    app = FakeApp(repeat_lost_calls=False)
    generation = app.start(model="gpt")
    # create, send, claim, call, and dead once the image is written
    app.steps.fail_at, app.steps.fail_after = 4, True
    with pytest.raises(Death):
        work(app)
    assert app.images.blobs, "the test must die after an image"
    later(app)
    found = app.records.read(generation.id)
    assert found is not None
    assert found.error is not None
    assert found.error.code == "outcomeUnknown"
    assert app.images.blobs == set()


def test_key_of_a_refused_start_is_free() -> None:
    app = FakeApp(most_active=0)
    with pytest.raises(RequestError) as refused:
        app.start(key=KEY)
    assert as_http_error(refused.value).status == 429
    assert app.records.keys == {}


def test_changed_default_does_not_break_a_repetition() -> None:
    app = FakeApp()
    request = GenerationRequest(prompt="a lighthouse")
    first = app.generations.start(request, metadata={}, timeout=seconds(600), key=KEY)
    again = app.generations.start(request, metadata={}, timeout=seconds(900), key=KEY)
    assert again.id == first.id
    with pytest.raises(RequestError):
        app.generations.start(request, metadata={}, timeout=seconds(900), asked_seconds=900, key=KEY)


def test_message_for_many_queues_each_call() -> None:
    app = FakeApp()
    ids = [app.start(model="gpt", prompt=f"{number}").id for number in range(3)]
    app.queue.messages.clear()
    for generation_id in ids:
        app.worker.advance_by_id(generation_id, has_minutes=False)
    assert app.direct.calls == []
    assert app.queue.messages == [[generation_id] for generation_id in ids]
