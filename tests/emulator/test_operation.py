"""The request of the asynchronous API, and the state of an operation over time."""

import json

import pytest

from local.emulator.errors import OperationErrors, ServiceError
from local.emulator.operation import Operation, OperationRequest
from local.emulator.validation import parse_object, validate

START = 1_700_000_000.0


def operation(prompt: str, *, n: int = 1, speed: float = 1.0) -> Operation:
    return Operation.accept("id", OperationRequest(prompt=prompt, n=n), now=START, speed=speed)


def read(body: bytes) -> OperationRequest:
    errors = OperationErrors()
    return validate(OperationRequest, parse_object(body, errors), errors)


STATES = [
    ("chair", 1, 1.0, 0.0, "notRunning", "queued at first"),
    ("chair", 1, 1.0, 0.49, "notRunning", "queued for half a second"),
    ("chair", 1, 1.0, 0.5, "running", "then it runs"),
    ("chair", 1, 1.0, 4.49, "running", "three seconds, and one for the image"),
    ("chair", 1, 1.0, 4.5, "succeeded", "then it ends"),
    ("chair", 5, 1.0, 8.49, "running", "one second more for each image"),
    ("chair", 5, 1.0, 8.5, "succeeded", "five images"),
    ("chair", 1, 0.1, 0.45, "succeeded", "--speed multiplies the delays"),
    ("chair", 1, 0.0, 0.0, "succeeded", "--speed 0: at once"),
    ("[seconds:9]", 1, 0.0, 8.9, "running", "a fixed duration, regardless of --speed"),
    ("[seconds:9]", 1, 0.0, 9.0, "succeeded", "the end of a fixed duration"),
    ("[seconds:0.2]", 1, 1.0, 0.2, "succeeded", "a duration shorter than the queue"),
    ("[never]", 1, 0.0, 1e8, "running", "never"),
    ("[contentFilter]", 1, 1.0, 4.4, "running", "a failure takes as long as a success"),
    ("[contentFilter]", 1, 1.0, 4.5, "failed", "filtered"),
    ("[failed:internalFailure]", 1, 0.0, 0.0, "failed", "failed with any code"),
]


@pytest.mark.parametrize(("prompt", "n", "speed", "after", "state", "reason"), STATES, ids=[row[5] for row in STATES])
def test_state_follows_from_the_time(prompt: str, n: int, speed: float, after: float, state: str, reason: str) -> None:
    assert operation(prompt, n=n, speed=speed).state(START + after) == state, reason


def test_defaults_are_those_of_the_swagger() -> None:
    asked = read(b'{"prompt": "An avocado chair"}')
    assert (asked.prompt, asked.n, asked.size) == ("An avocado chair", 1, "1024x1024")


REFUSED = [
    (b"", None, "no body"),
    (b"{", None, "not JSON"),
    (b"\xff{}", None, "not UTF-8"),
    (b"[" * 100_000, None, "nested too deeply"),
    (b"[]", None, "not an object"),
    (b"{}", "prompt", "no prompt"),
    (b'{"prompt": ""}', "prompt", "an empty prompt"),
    (json.dumps({"prompt": "x" * 1001}).encode(), "prompt", "a prompt of 1,001"),
    (b'{"prompt": 1}', "prompt", "prompt is not a string"),
    (b'{"prompt": null}', "prompt", "prompt is null"),
    (b'{"prompt": "\\ud800"}', "prompt", "half of a surrogate pair"),
    (b'{"prompt": "x", "n": 0}', "n", "n too small"),
    (b'{"prompt": "x", "n": 6}', "n", "n too large"),
    (b'{"prompt": "x", "n": "1"}', "n", "n is a string"),
    (b'{"prompt": "x", "n": 1.0}', "n", "n is a float"),
    (b'{"prompt": "x", "n": true}', "n", "n is a boolean"),
    (b'{"prompt": "x", "n": null}', "n", "null is not absent"),
    (b'{"prompt": "x", "size": "512"}', "size", "unknown size"),
    (b'{"prompt": "x", "size": "1024x1536"}', "size", "a size of a later API"),
    (b'{"prompt": "x", "size": ["512x512"]}', "size", "size is not a string"),
    (b'{"prompt": "x", "user": 7}', "user", "user is not a string"),
    (b'{"prompt": "x", "user": null}', "user", "user is null"),
    (b'{"prompt": "x", "model": "dall-e-2"}', "model", "unknown field"),
    (b'{"prompt": "x", "response_format": "url"}', "response_format", "a field of a later API"),
    (b'{"n": 0, "model": "dall-e-2"}', "model", "unknown fields come first"),
]


@pytest.mark.parametrize(("body", "target", "reason"), REFUSED, ids=[row[2] for row in REFUSED])
def test_invalid_body_is_an_invalid_payload(body: bytes, target: str | None, reason: str) -> None:
    with pytest.raises(ServiceError) as refused:
        read(body)
    error = refused.value
    assert (error.status, error.code, error.fields.get("target")) == (400, "invalidPayload", target), reason


ACCEPTED = [
    ({"prompt": "x"}, "the shortest prompt"),
    ({"prompt": "\N{AVOCADO}" * 1000}, "1,000 characters, not bytes"),
    ({"prompt": "x", "n": 5, "size": "256x256", "user": ""}, "every field"),
]


@pytest.mark.parametrize(("body", "reason"), ACCEPTED, ids=[row[1] for row in ACCEPTED])
def test_body_within_the_limits_is_accepted(body: dict[str, object], reason: str) -> None:
    asked = read(json.dumps(body).encode())
    assert asked.model_dump(include=set(body)) == body, reason
