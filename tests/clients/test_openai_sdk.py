"""The openai SDK 0.28.1 with its polling of ``operation-location``; only the endpoint is changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
import requests

from local.stack import Stack
from tests.clients.conftest import COMPAT_KEY, in_parallel
from tests.clients.installed import HERE, python_client


def _create(stack: Stack, prompt: str, *, key: str = COMPAT_KEY, end: str = "", n: int | None = 2) -> dict[str, Any]:
    command = [str(python_client("openai")), "-I", str(HERE / "openai_image_create.py")]
    command += [f"{stack.base_url}{end}", key, prompt, json.dumps(n)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


_GOOD = "a lighthouse in fog"
_FAILURES = {
    "a thing [contentFilter]": "contentFilter",  # refused while the operation ran
    "a thing [submit-400]": "invalidPayload",  # refused upstream at the submit; the operation reports it
    "a thing [failed:internalFailure]": "internalFailure",
}

type Created = Mapping[str, Future[dict[str, Any]]]


@pytest.fixture(scope="module")
def created(stack: Stack) -> Generator[Created]:
    """By prompt."""
    with in_parallel({prompt: partial(_create, stack, prompt) for prompt in (_GOOD, *_FAILURES)}) as running:
        yield running


def test_image_create_returns_images(created: Created) -> None:
    urls = created[_GOOD].result()["urls"]

    assert len(urls) == 2
    for url in urls:
        image = requests.get(url, timeout=30)
        assert (image.status_code, image.headers["Content-Type"]) == (200, "image/png")


def test_endpoint_with_a_slash_and_no_n_work(stack: Stack) -> None:
    """The SDK then calls `//openai/…`, and sends `"n": null`."""
    [url] = _create(stack, _GOOD, end="/", n=None)["urls"]
    assert requests.get(url, timeout=30).status_code == 200


@pytest.mark.parametrize(("prompt", "code"), _FAILURES.items())
def test_image_create_raises_when_generation_fails(created: Created, prompt: str, code: str) -> None:
    assert created[prompt].result() == {"raised": "OpenAIError", "code": code, "status": None}


@pytest.mark.parametrize(
    ("key", "prompt", "expected"),
    [
        ("wrong", "a thing", {"raised": "AuthenticationError", "code": None, "status": 401}),
        (COMPAT_KEY, "", {"raised": "InvalidRequestError", "code": "invalidPayload", "status": 400}),
    ],
)
def test_image_create_raises_the_class_of_the_status(
    stack: Stack, key: str, prompt: str, expected: dict[str, Any]
) -> None:
    assert _create(stack, prompt, key=key) == expected
