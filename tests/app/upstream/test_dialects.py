"""What each of the live APIs is sent, byte for byte, and what it is never sent."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.deployments import Deployment, ImageApi
from imagegen.errors import RequestError
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import Dialect
from imagegen.upstream.flux import flux
from imagegen.upstream.mai import mai
from imagegen.upstream.openai_images import openai_images
from imagegen.web.http import as_http_error

E = "https://images.example.com"


def deployment(api: ImageApi, name: str, version: str | None, path: str | None = None, endpoint: str = E) -> Deployment:
    return Deployment(
        name="ours",
        api=api,
        endpoint=endpoint,
        deployment=name,
        api_version=version,
        api_key=None,
        scope="",
        model_path=path,
    )


V1 = openai_images(deployment(ImageApi.IMAGES, "gpt-image-2", None))
SMALL = openai_images(deployment(ImageApi.IMAGES, "gpt-image-1-mini", None))
PREVIEW = openai_images(deployment(ImageApi.IMAGES, "gpt-image-2", "preview"))
DATED = openai_images(deployment(ImageApi.IMAGES, "gpt-image-2", "2025-04-01-preview"))
DALLE = openai_images(deployment(ImageApi.IMAGES, "dall-e-3", "2024-10-21"))
FLUX = flux(deployment(ImageApi.FLUX, "FLUX.2-pro", "preview", "flux-2-pro"))
MAI = mai(deployment(ImageApi.MAI, "MAI-Image-2.5", None))
EVERY = {"v1": V1, "small": SMALL, "preview": PREVIEW, "dated": DATED, "dalle": DALLE, "flux": FLUX, "mai": MAI}


@pytest.mark.parametrize(
    ("dialect", "url"),
    [
        (V1, f"{E}/openai/v1/images/generations"),
        (PREVIEW, f"{E}/openai/v1/images/generations?api-version=preview"),
        (
            openai_images(deployment(ImageApi.IMAGES, "a", "latest")),
            f"{E}/openai/v1/images/generations?api-version=latest",
        ),
        (DATED, f"{E}/openai/deployments/gpt-image-2/images/generations?api-version=2025-04-01-preview"),
        (DALLE, f"{E}/openai/deployments/dall-e-3/images/generations?api-version=2024-10-21"),
        # The name is part of a path: it must not become another one, or a query.
        (
            openai_images(deployment(ImageApi.IMAGES, "our images/2?", "2025-04-01-preview")),
            f"{E}/openai/deployments/our%20images%2F2%3F/images/generations?api-version=2025-04-01-preview",
        ),
        (FLUX, f"{E}/providers/blackforestlabs/v1/flux-2-pro?api-version=preview"),
        (MAI, f"{E}/mai/v1/images/generations"),
        # A gateway's path stays before it.
        (
            openai_images(deployment(ImageApi.IMAGES, "a", None, endpoint=f"{E}/gateway")),
            f"{E}/gateway/openai/v1/images/generations",
        ),
    ],
)
def test_each_route_is_that_of_the_api_reference(dialect: Dialect, url: str) -> None:
    assert dialect.url == url


def sent(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    return dialect.body(dialect.complete(GenerationRequest(prompt="x", **fields)))


ALL_OF_GPT = {
    "n": 3,
    "size": "1536x1024",
    "quality": "high",
    "output_format": "jpeg",
    "output_compression": 80,
    "background": "opaque",
    "user": "someone",
}


@pytest.mark.parametrize(
    ("dialect", "fields", "body"),
    [
        # Quality always: left out, the service takes its most expensive.
        (V1, {}, {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),
        (PREVIEW, {}, {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),
        (DATED, {}, {"prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),  # its route names the model
        (V1, ALL_OF_GPT, {"model": "gpt-image-2", "prompt": "x", **ALL_OF_GPT}),
        (DATED, ALL_OF_GPT, {"prompt": "x", **ALL_OF_GPT}),
        (V1, {"output_compression": 0, "output_format": "jpeg", "size": "1024x1024", "quality": "low"},
            {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "1024x1024", "quality": "low",
             "output_format": "jpeg", "output_compression": 0}),  # nought is a value
        (DALLE, {}, {"prompt": "x", "n": 1, "size": "1024x1024"}),
        (DALLE, {"size": "1792x1024", "quality": "hd", "style": "natural", "user": "someone"},
            {"prompt": "x", "n": 1, "size": "1792x1024", "quality": "hd", "style": "natural", "user": "someone"}),
        (FLUX, {}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1, "width": 1024, "height": 1024}),
        (FLUX, {"n": 4, "size": "1024x1536", "output_format": "png"},
            {"model": "FLUX.2-pro", "prompt": "x", "num_images": 4, "width": 1024, "height": 1536,
             "output_format": "png"}),
        (FLUX, {"size": "auto"}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1}),  # it chooses
        # The end user's id is no field of theirs, and no reason to refuse.
        (FLUX, {"user": "someone", "size": "auto"}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1}),
        (MAI, {}, {"model": "MAI-Image-2.5", "prompt": "x", "width": 1024, "height": 1024}),
        (MAI, {"size": "768x1365", "user": "someone"},
            {"model": "MAI-Image-2.5", "prompt": "x", "width": 768, "height": 1365}),
        (MAI, {"size": "auto"}, {"model": "MAI-Image-2.5", "prompt": "x"}),
    ],
)  # fmt: skip
def test_exactly_this_is_sent(dialect: Dialect, fields: dict[str, Any], body: dict[str, Any]) -> None:
    assert sent(dialect, **fields) == body


@pytest.mark.parametrize("dialect", EVERY.values(), ids=EVERY)
def test_what_the_apis_answer_with_400_is_never_sent(dialect: Dialect) -> None:
    body = sent(dialect, user="someone")
    assert not {"response_format", "stream", "partial_images", "moderation", "metadata"} & body.keys()
    assert None not in body.values()
    assert ("style" in body) is False


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (V1, {"size": "3840x2160"}),  # multiples of 16 up to 3840
        (V1, {"size": "16x16"}),
        (SMALL, {"size": "1024x1536"}),
        (SMALL, {"size": "auto"}),
        (V1, {"n": 10}),
        (V1, {"prompt": "x" * 32_000}),
        (V1, {"background": "transparent", "output_format": "png"}),
        (V1, {"background": "transparent"}),
        (DALLE, {"prompt": "x" * 4_000}),
        (FLUX, {"n": 4}),
        (FLUX, {"size": "1000x777"}),
        (MAI, {"size": "1000x777"}),
    ],
)
def test_what_a_model_can_do_is_taken(dialect: Dialect, fields: dict[str, Any]) -> None:
    request = GenerationRequest.model_validate({"prompt": "x"} | fields)
    completed = dialect.complete(request)
    assert completed.model_dump(include=set(fields)) == fields


@pytest.mark.parametrize(
    ("dialect", "fields", "wrong"),
    [
        (V1, {"style": "vivid"}, ["style"]),  # DALL·E's own
        (V1, {"quality": "hd"}, ["quality"]),
        (V1, {"quality": "standard"}, ["quality"]),
        (V1, {"output_format": "webp"}, ["output_format"]),  # not on Azure
        (V1, {"background": "red"}, ["background"]),
        (V1, {"output_compression": 50}, ["output_compression"]),  # png is not compressed with loss
        (V1, {"output_compression": 50, "output_format": "png"}, ["output_compression"]),
        (V1, {"background": "transparent", "output_format": "jpeg"}, ["background"]),  # it has no transparency
        (V1, {"size": "1024x1025"}, ["size"]),
        (V1, {"size": "3856x1024"}, ["size"]),  # too long an edge, and a multiple of 16
        (V1, {"size": "1024x3856"}, ["size"]),
        (SMALL, {"size": "512x512"}, ["size"]),  # the first ones know three sizes
        (SMALL, {"size": "2048x2048"}, ["size"]),
        (DATED, {"style": "vivid", "quality": "hd", "size": "17x17"}, ["style", "quality", "size"]),  # all at once
        (DALLE, {"n": 2}, ["n"]),
        (DALLE, {"size": "auto"}, ["size"]),
        (DALLE, {"size": "512x512"}, ["size"]),
        (DALLE, {"quality": "high"}, ["quality"]),
        (DALLE, {"style": "bold"}, ["style"]),
        (DALLE, {"output_format": "png"}, ["output_format"]),
        (DALLE, {"output_compression": 1, "background": "auto"}, ["output_compression", "background"]),
        (DALLE, {"prompt": "x" * 4_001}, ["prompt"]),
        (FLUX, {"n": 5}, ["n"]),
        (FLUX, {"quality": "high"}, ["quality"]),
        (FLUX, {"output_format": "webp"}, ["output_format"]),
        (FLUX, {"output_compression": 1, "background": "auto", "style": "vivid"},
            ["output_compression", "background", "style"]),
        (MAI, {"n": 2}, ["n"]),
        (MAI, {"quality": "auto", "output_format": "png", "output_compression": 1, "background": "auto",
               "style": "vivid"}, ["quality", "output_format", "output_compression", "background", "style"]),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_is_refused_by_name_before_it_costs(
    dialect: Dialect, fields: dict[str, Any], wrong: list[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        dialect.complete(GenerationRequest.model_validate({"prompt": "x"} | fields))
    assert as_http_error(caught.value).status == 400
    assert [problem.field for problem in caught.value.problems] == wrong
    assert all("'ours'" in problem.message or "alone" in problem.message or "does not go" in problem.message
               for problem in caught.value.problems)  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "sizes", "any_size_to", "most_images", "fields"),
    [
        (V1, 4, 3840, 10, ("quality", "output_format", "output_compression", "background", "user")),
        (SMALL, 4, None, 10, ("quality", "output_format", "output_compression", "background", "user")),
        (DALLE, 3, None, 1, ("quality", "style", "user")),
        (FLUX, 0, None, 4, ("output_format",)),
        (MAI, 0, None, 1, ()),
    ],
)
def test_the_limits_that_are_shown_are_those_that_are_kept(
    dialect: Dialect, sizes: int, any_size_to: int | None, most_images: int, fields: tuple[str, ...]
) -> None:
    limits = dialect.limits
    assert (len(limits.sizes), limits.any_size_to, limits.most_images) == (sizes, any_size_to, most_images)
    assert limits.fields == fields
    dialect.complete(GenerationRequest(prompt="x" * limits.longest_prompt, n=limits.most_images))
    for size in limits.sizes:
        assert dialect.complete(GenerationRequest(prompt="x", size=size)).size == size
