"""What the emulator accepts, and how an operation gets on with time."""

import json

import pytest

from local.emulator.errors import ServiceError
from local.emulator.generation import GenerationRequest, Operation

START = 1_700_000_000.0


def operation(prompt: str, *, n: int = 1, speed: float = 1.0) -> Operation:
    return Operation.accept("id", GenerationRequest(prompt, n), now=START, speed=speed)


STATES = [
    ("chair", 1, 1.0, 0.0, "notRunning", "queued at first"),
    ("chair", 1, 1.0, 0.49, "notRunning", "for half a second"),
    ("chair", 1, 1.0, 0.5, "running", "then it runs"),
    ("chair", 1, 1.0, 4.49, "running", "three seconds, and one for the image"),
    ("chair", 1, 1.0, 4.5, "succeeded", "and is done"),
    ("chair", 5, 1.0, 8.49, "running", "one second more for each image"),
    ("chair", 5, 1.0, 8.5, "succeeded", "five images"),
    ("chair", 1, 0.1, 0.45, "succeeded", "--speed multiplies"),
    ("chair", 1, 0.0, 0.0, "succeeded", "--speed 0: at once"),
    ("[seconds:9]", 1, 0.0, 8.9, "running", "a time of its own, whatever the speed"),
    ("[seconds:9]", 1, 0.0, 9.0, "succeeded", "and is done then"),
    ("[seconds:0.2]", 1, 1.0, 0.2, "succeeded", "shorter than the queue"),
    ("[never]", 1, 0.0, 1e8, "running", "never"),
    ("[contentFilter]", 1, 1.0, 4.4, "running", "a failure takes its time"),
    ("[contentFilter]", 1, 1.0, 4.5, "failed", "and comes"),
    ("[failed:internalFailure]", 1, 0.0, 0.0, "failed", "any code"),
]


@pytest.mark.parametrize(("prompt", "n", "speed", "after", "state", "reason"), STATES, ids=[row[5] for row in STATES])
def test_state_follows_from_the_time(prompt: str, n: int, speed: float, after: float, state: str, reason: str) -> None:
    assert operation(prompt, n=n, speed=speed).state(START + after) == state, reason


def test_defaults_are_those_of_the_swagger() -> None:
    asked = GenerationRequest.from_json(b'{"prompt": "An avocado chair"}')
    assert asked == GenerationRequest("An avocado chair", 1, "1024x1024", None)


REFUSED = [
    (b"", None, "no body"),
    (b"{", None, "not JSON"),
    (b"\xff{}", None, "not UTF-8"),
    (b"[" * 100_000, None, "nested beyond reason"),
    (b"[]", None, "not an object"),
    (b"{}", "prompt", "no prompt"),
    (b'{"prompt": ""}', "prompt", "empty prompt"),
    (json.dumps({"prompt": "x" * 1001}).encode(), "prompt", "prompt of 1001"),
    (b'{"prompt": 1}', "prompt", "prompt is no string"),
    (b'{"prompt": null}', "prompt", "prompt is null"),
    (b'{"prompt": "\\ud800"}', "prompt", "half a surrogate pair"),
    (b'{"prompt": "x", "n": 0}', "n", "n too small"),
    (b'{"prompt": "x", "n": 6}', "n", "n too large"),
    (b'{"prompt": "x", "n": "1"}', "n", "n as a string"),
    (b'{"prompt": "x", "n": 1.0}', "n", "n as a float"),
    (b'{"prompt": "x", "n": true}', "n", "a bool is no integer"),
    (b'{"prompt": "x", "n": null}', "n", "null is not left out"),
    (b'{"prompt": "x", "size": "512"}', "size", "unknown size"),
    (b'{"prompt": "x", "size": "1024x1536"}', "size", "a later API's size"),
    (b'{"prompt": "x", "size": ["512x512"]}', "size", "size is no string"),
    (b'{"prompt": "x", "user": 7}', "user", "user is no string"),
    (b'{"prompt": "x", "model": "dall-e-2"}', "model", "unknown field"),
    (b'{"prompt": "x", "response_format": "url"}', "response_format", "a later API's field"),
]


@pytest.mark.parametrize(("body", "target", "reason"), REFUSED, ids=[row[2] for row in REFUSED])
def test_a_body_outside_the_api_is_an_invalid_payload(body: bytes, target: str | None, reason: str) -> None:
    with pytest.raises(ServiceError) as refused:
        GenerationRequest.from_json(body)
    assert (refused.value.status, refused.value.code) == (400, "invalidPayload"), reason
    assert refused.value.target == target


ACCEPTED = [
    ({"prompt": "x"}, "the shortest prompt"),
    ({"prompt": "\N{AVOCADO}" * 1000}, "1000 characters, not bytes"),
    ({"prompt": "x", "n": 5, "size": "256x256", "user": ""}, "every field"),
]


@pytest.mark.parametrize(("body", "reason"), ACCEPTED, ids=[row[1] for row in ACCEPTED])
def test_a_body_at_the_edge_of_the_api_is_accepted(body: dict[str, object], reason: str) -> None:
    assert GenerationRequest.from_json(json.dumps(body).encode()).prompt == body["prompt"], reason
