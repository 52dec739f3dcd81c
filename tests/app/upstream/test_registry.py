"""The table of image APIs."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from imagegen.deployments import Deployment, ImageApi
from imagegen.upstream.protocol import Accepted, Answered, Direct, Ended, ImageUrl, Polled, Upstream
from imagegen.upstream.registry import open_upstream
from tests.app.generations import new
from tests.scripted_server import ScriptedServer, http

ELSEWHERE = "https://elsewhere.example.com:443"


def opened(api: ImageApi, endpoint: str = "https://images.example.com") -> Upstream:
    deployment = Deployment(
        name="ours",
        api=api,
        endpoint=endpoint,
        deployment="gpt-image-2",
        api_version=None,
        api_key=SecretStr("key"),
        scope="",
        model_path="flux-2-pro",
    )
    return open_upstream(deployment, allowed_origins=[ELSEWHERE], max_image_bytes=1_000, connections=1)


@pytest.mark.parametrize("api", ImageApi)
def test_every_api_has_an_upstream_of_its_kind(api: ImageApi) -> None:
    assert isinstance(opened(api), Polled if api is ImageApi.OPERATIONS else Direct)


def test_polled_upstream_accepts_the_allowed_origins(server: ScriptedServer) -> None:
    server.answers(http(202, operation_location=f"{ELSEWHERE}/o/1"))
    upstream = opened(ImageApi.OPERATIONS, server.url)
    assert isinstance(upstream, Polled)
    assert upstream.submit(new()) == Accepted(f"{ELSEWHERE}/o/1", None)


@pytest.mark.parametrize(("api", "accepted"), [(ImageApi.IMAGES, True), (ImageApi.MAI, False)])
def test_response_limit_allows_for_the_most_images(server: ScriptedServer, api: ImageApi, accepted: bool) -> None:
    # A megabyte, and the base64 of 7 images of 1,000 bytes: fewer than gpt-image makes, more than MAI-Image makes.
    body = b'{"data": [{"url": "u"}]}'.ljust(2**20 + 10_000)
    server.answers(http(200, body))
    upstream = opened(api, server.url)
    assert isinstance(upstream, Direct)
    outcome = upstream.generate(new())
    assert isinstance(outcome, Answered if accepted else Ended)
    if isinstance(outcome, Answered):
        assert list(outcome.images) == [ImageUrl("u")]
