"""The start of a generation: what it refuses, and that it succeeds once the record is written."""

from __future__ import annotations

import pytest

from imagegen.errors import RequestError, StorageUnavailableError, TooManyActiveError
from imagegen.generation import GenerationRequest, Status
from imagegen.web.http import as_http_error
from tests.app.generations import DIRECT, ID
from tests.app.lifecycle.fake_app import KEY, FakeApp


def test_tokens_are_random_and_have_128_bits(app: FakeApp) -> None:
    tokens = {app.start().token for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) >= 22 for token in tokens)


def test_refused_request_writes_nothing(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: GenerationRequest) -> GenerationRequest:
        raise RequestError("invalidPayload", "no")

    monkeypatch.setattr(app.polled, "complete", refuse)
    with pytest.raises(RequestError):
        app.start(key=KEY)
    assert (app.steps.taken, app.records.keys) == ([], {})


def test_unknown_model_lists_the_configured_ones(app: FakeApp) -> None:
    with pytest.raises(RequestError) as caught:
        app.start("other", key=KEY)
    [problem] = caught.value.problems
    assert (as_http_error(caught.value).status, problem.field) == (400, "model")
    assert problem.message.endswith("use one of 'dalle', 'gpt'")
    assert "other" not in problem.message
    assert (app.steps.taken, app.records.keys) == ([], {})


def test_start_succeeds_when_the_write_after_submit_fails(app: FakeApp) -> None:
    app.steps.fail_at, app.steps.failure = 2, StorageUnavailableError
    assert app.start().status is Status.NOT_RUNNING
    app.settle()
    assert app.polled.operations == [ID]


def test_start_succeeds_while_the_queue_is_down(app: FakeApp) -> None:
    app.steps.fail_at, app.steps.failure = 1, StorageUnavailableError
    assert app.start(DIRECT).status is Status.NOT_RUNNING
    app.settle()
    assert app.direct.calls == [ID]


def test_limit_refuses_new_starts_but_not_repeated_ones() -> None:
    app = FakeApp(most_active=1)
    app.start(key=KEY)
    with pytest.raises(RequestError) as caught:
        app.start()
    assert isinstance(caught.value, TooManyActiveError)
    assert app.start(key=KEY).id == ID
    app.settle()
    app.start()
