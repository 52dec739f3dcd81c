"""The log: its events, and no prompt, token, key or URL among them."""

from __future__ import annotations

import logging

import pytest

from imagegen.errors import ImageUnusableError
from imagegen.generation import Status
from imagegen.upstream.protocol import Answered, ImageBytes, ImageUrl, Lost, Throttled, Unavailable
from tests.app.fakes import TWO_URLS
from tests.app.generations import DIRECT, PROMPT, seconds
from tests.app.lifecycle.fake_app import KEY, FakeApp


def events(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage().split()[0] for record in caplog.records if record.levelno >= level]


def test_log_of_a_polled_generation_has_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app.images.unusable = {1: ImageUnusableError("imageTruncated", "cut", again=True)}
    app.polled.poll_outcome = Unavailable("status 503")
    started = app.start(key=KEY)
    app.tick(seconds(5))
    app.polled.poll_outcome = TWO_URLS
    app.settle()
    assert events(caplog, logging.DEBUG) == [
        "generation.started",
        "upstream.unavailable",
        *["image.unusable"] * 5,
        "generation.succeeded",
    ]
    for secret in (PROMPT, started.token, KEY.value, "s3cret", "example.com"):
        assert secret not in caplog.text


def test_log_of_a_direct_generation_has_no_secret(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app.direct.outcomes = [
        Lost("no answer"),
        Throttled("status 429", 1),
        Answered((ImageUrl("https://x?sig=s3cret"),)),
    ]
    started = app.start(DIRECT, key=KEY)
    app.settle()
    assert app.read().status is Status.SUCCEEDED
    for secret in (PROMPT, started.token, KEY.value, "s3cret"):
        assert secret not in caplog.text


def test_repeated_call_is_logged_as_maybe_billed_twice(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app.direct.outcomes = [Lost("status 504"), Answered((ImageBytes(b"0"),))]
    app.start(DIRECT)
    app.settle()
    assert (app.read().status, app.read().lost_calls) == (Status.SUCCEEDED, 1)
    assert events(caplog, logging.WARNING) == ["generation.call_lost", "generation.call_repeated"]
    assert "billed twice" in caplog.text
