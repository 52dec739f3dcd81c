"""Routes, request bodies and limits of each direct API."""

from __future__ import annotations

from typing import Any

import pytest

from imagegen.deployments import Deployment, ImageApi
from imagegen.errors import RequestError
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import DirectApi, DirectUpstream
from imagegen.upstream.flux import flux
from imagegen.upstream.mai import mai
from imagegen.upstream.openai_images import openai_images
from imagegen.web.http import as_http_error

E = "https://images.example.com"
MODEL = "ours"


def deployment(api: ImageApi, name: str, version: str | None, path: str | None = None, endpoint: str = E) -> Deployment:
    return Deployment(
        name=MODEL,
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
MAI_2_6 = mai(deployment(ImageApi.MAI, "MAI-Image-2.6", None))
EVERY = {"v1": V1, "small": SMALL, "preview": PREVIEW, "dated": DATED, "dalle": DALLE, "flux": FLUX, "mai": MAI}


@pytest.mark.parametrize(
    ("api", "url"),
    [
        (V1, f"{E}/openai/v1/images/generations"),
        (PREVIEW, f"{E}/openai/v1/images/generations?api-version=preview"),
        (
            openai_images(deployment(ImageApi.IMAGES, "a", "latest")),
            f"{E}/openai/v1/images/generations?api-version=latest",
        ),
        (DATED, f"{E}/openai/deployments/gpt-image-2/images/generations?api-version=2025-04-01-preview"),
        (DALLE, f"{E}/openai/deployments/dall-e-3/images/generations?api-version=2024-10-21"),
        # A deployment name cannot change the path or add a query.
        (
            openai_images(deployment(ImageApi.IMAGES, "our images/2?", "2025-04-01-preview")),
            f"{E}/openai/deployments/our%20images%2F2%3F/images/generations?api-version=2025-04-01-preview",
        ),
        (FLUX, f"{E}/providers/blackforestlabs/v1/flux-2-pro?api-version=preview"),
        (MAI, f"{E}/mai/v1/images/generations"),
        # The path of a gateway comes first.
        (
            openai_images(deployment(ImageApi.IMAGES, "a", None, endpoint=f"{E}/gateway")),
            f"{E}/gateway/openai/v1/images/generations",
        ),
    ],
)
def test_route(api: DirectApi, url: str) -> None:
    assert api.url == url


def complete(api: DirectApi, **fields: Any) -> GenerationRequest:
    upstream = DirectUpstream(deployment(ImageApi.IMAGES, "any", None), api, connections=1, max_image_bytes=1)
    return upstream.complete(GenerationRequest.model_validate({"prompt": "x"} | fields))


def body(api: DirectApi, **fields: Any) -> dict[str, Any]:
    return api.body(complete(api, **fields))


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
    ("api", "fields", "expected"),
    [
        # Always with quality: the default of the service may be its most expensive.
        (V1, {}, {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),
        (PREVIEW, {}, {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),
        (DATED, {}, {"prompt": "x", "n": 1, "size": "auto", "quality": "auto"}),  # the route names the model
        (V1, ALL_OF_GPT, {"model": "gpt-image-2", "prompt": "x", **ALL_OF_GPT}),
        (DATED, ALL_OF_GPT, {"prompt": "x", **ALL_OF_GPT}),
        (V1, {"output_compression": 0, "output_format": "jpeg", "size": "1024x1024", "quality": "low"},
            {"model": "gpt-image-2", "prompt": "x", "n": 1, "size": "1024x1024", "quality": "low",
             "output_format": "jpeg", "output_compression": 0}),  # zero is a value
        (DALLE, {}, {"prompt": "x", "n": 1, "size": "1024x1024"}),
        (DALLE, {"size": "1792x1024", "quality": "hd", "style": "natural", "user": "someone"},
            {"prompt": "x", "n": 1, "size": "1792x1024", "quality": "hd", "style": "natural", "user": "someone"}),
        (FLUX, {}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1, "width": 1024, "height": 1024}),
        (FLUX, {"n": 4, "size": "1024x1536", "output_format": "png"},
            {"model": "FLUX.2-pro", "prompt": "x", "num_images": 4, "width": 1024, "height": 1536,
             "output_format": "png"}),
        (FLUX, {"size": "auto"}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1}),  # the model chooses
        # FLUX and MAI have no `user`. It is left out, not refused.
        (FLUX, {"user": "someone", "size": "auto"}, {"model": "FLUX.2-pro", "prompt": "x", "num_images": 1}),
        (MAI, {}, {"model": "MAI-Image-2.5", "prompt": "x", "width": 1024, "height": 1024}),
        (MAI, {"size": "768x1365", "user": "someone"},
            {"model": "MAI-Image-2.5", "prompt": "x", "width": 768, "height": 1365}),
        (MAI, {"size": "auto"}, {"model": "MAI-Image-2.5", "prompt": "x"}),
    ],
)  # fmt: skip
def test_request_body(api: DirectApi, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(api, **fields) == expected


@pytest.mark.parametrize("api", EVERY.values(), ids=EVERY)
def test_body_has_no_field_that_an_api_answers_with_400(api: DirectApi) -> None:
    sent = body(api, user="someone")
    assert not {"response_format", "stream", "partial_images", "moderation", "metadata", "style"} & sent.keys()
    assert None not in sent.values()


@pytest.mark.parametrize(
    ("api", "fields"),
    [
        (V1, {"size": "3840x2160"}),
        (V1, {"size": "480x1440"}),  # 1:3
        (SMALL, {"size": "1024x1536"}),
        (SMALL, {"size": "auto"}),
        (V1, {"n": 10}),
        (V1, {"prompt": "x" * 32_000}),
        (V1, {"background": "transparent", "output_format": "png"}),
        (V1, {"background": "transparent"}),
        (DALLE, {"prompt": "x" * 4_000}),
        (FLUX, {"n": 4}),
        (FLUX, {"size": "256x2048"}),
        (MAI, {"size": "1000x777"}),  # no step
        (MAI, {"size": "768x1365"}),
        (MAI_2_6, {"size": "1536x1536"}),
    ],
)
def test_valid_request_is_accepted_unchanged(api: DirectApi, fields: dict[str, Any]) -> None:
    assert complete(api, **fields).model_dump(include=set(fields)) == fields


@pytest.mark.parametrize(
    ("api", "fields", "wrong"),
    [
        (V1, {"style": "vivid"}, ["style"]),  # DALL·E 3 only
        (V1, {"quality": "hd"}, ["quality"]),
        (V1, {"quality": "standard"}, ["quality"]),
        (V1, {"output_format": "webp"}, ["output_format"]),  # not on Azure
        (V1, {"background": "red"}, ["background"]),
        (V1, {"output_compression": 50}, ["output_compression"]),  # PNG has no lossy compression
        (V1, {"output_compression": 50, "output_format": "png"}, ["output_compression"]),
        (V1, {"background": "transparent", "output_format": "jpeg"}, ["background"]),  # JPEG has no transparency
        (V1, {"size": "1024x1025"}, ["size"]),
        (V1, {"size": "3856x1024"}, ["size"]),  # a multiple of 16, but too long
        (V1, {"size": "1024x3856"}, ["size"]),
        (V1, {"size": "16x16"}, ["size"]),  # too few pixels
        (V1, {"size": "3840x3840"}, ["size"]),  # too many
        (V1, {"size": "3840x1264"}, ["size"]),  # longer than 3:1
        (SMALL, {"size": "512x512"}, ["size"]),  # the first models have three sizes
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
        (FLUX, {"size": "100x100"}, ["size"]),
        (FLUX, {"size": "1000x777"}, ["size"]),
        (FLUX, {"size": "2064x1024"}, ["size"]),
        (FLUX, {"n": 5}, ["n"]),
        (FLUX, {"quality": "high"}, ["quality"]),
        (FLUX, {"output_format": "webp"}, ["output_format"]),
        (FLUX, {"output_compression": 1, "background": "auto", "style": "vivid"},
            ["output_compression", "background", "style"]),
        (MAI, {"n": 2}, ["n"]),
        (MAI, {"size": "767x1000"}, ["size"]),
        (MAI, {"size": "1025x1024"}, ["size"]),
        (MAI_2_6, {"size": "1537x1536"}, ["size"]),
        (MAI, {"quality": "auto", "output_format": "png", "output_compression": 1, "background": "auto",
               "style": "vivid"}, ["quality", "output_format", "output_compression", "background", "style"]),
    ],
)  # fmt: skip
def test_invalid_fields_are_refused_before_the_call(api: DirectApi, fields: dict[str, Any], wrong: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        complete(api, **fields)
    assert as_http_error(caught.value).status == 400
    assert [problem.field for problem in caught.value.problems] == wrong
    assert all(problem.message.endswith(".") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("api", "fields", "message"),
    [
        (V1, {"style": "vivid"}, "style: 'ours' does not have this field. Leave it out."),
        (DALLE, {"prompt": "x" * 4_001}, "prompt: 4,001 characters; 'ours' accepts 4,000. Shorten it."),
        (FLUX, {"n": 5}, "n: 5 images; 'ours' accepts at most 4. Lower it."),
        (DALLE, {"quality": "high"}, "quality: high; 'ours' accepts standard, hd. Use one of these."),
        (DALLE, {"size": "auto"}, "size: auto; 'ours' accepts 1024x1024, 1792x1024, 1024x1792. Use one of these."),
        (V1, {"size": "10x17"}, ("size: 10x17; 'ours' accepts auto, 1024x1024, 1024x1536, 1536x1024, or WIDTHxHEIGHT "
            "with each side 16 to 3,840 pixels, a multiple of 16, the long side at most 3 times the short one, "
            "655,360 to 8,294,400 pixels in all. Use one of these.")),
        (FLUX, {"size": "100x100"}, ("size: 100x100; 'ours' accepts auto, or WIDTHxHEIGHT with each side 256 to 2,048 "
            "pixels, a multiple of 16. Use one of these.")),
        (V1, {"size": "800x800"}, ("size: 800x800 has 640,000 pixels; at least 655,360 are needed. 'ours' accepts "
            "auto, 1024x1024, 1024x1536, 1536x1024, or WIDTHxHEIGHT with each side 16 to 3,840 pixels, a multiple of "
            "16, the long side at most 3 times the short one, 655,360 to 8,294,400 pixels in all. Use one of these.")),
        (MAI, {"size": "512x512"}, ("size: 512x512 has a side of 512 pixels; at least 768 are needed. 'ours' accepts "
            "auto, or WIDTHxHEIGHT with each side 768 to 1,365 "
            "pixels, at most 1,048,576 pixels in all. Use one of these.")),
        (V1, {"output_compression": 50},
            "output_compression: needs output_format 'jpeg'. Set output_format, or leave this out."),
        (V1, {"background": "transparent", "output_format": "jpeg"},
            "background: JPEG has no transparency. Use output_format 'png', or another background."),
    ],
)  # fmt: skip
def test_message_says_what_is_wrong_and_what_to_do(api: DirectApi, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        complete(api, **fields)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("api", "sizes", "has_rule", "most_images", "fields"),
    [
        (V1, 4, True, 10, ("quality", "output_format", "output_compression", "background", "user")),
        (SMALL, 4, False, 10, ("quality", "output_format", "output_compression", "background", "user")),
        (DALLE, 3, False, 1, ("quality", "style", "user")),
        (FLUX, 1, True, 4, ("output_format",)),
        (MAI, 1, True, 1, ()),
    ],
)
def test_published_limits_are_accepted(
    api: DirectApi, sizes: int, has_rule: bool, most_images: int, fields: tuple[str, ...]
) -> None:
    limits = api.limits
    assert (len(limits.sizes), limits.size_rule is not None, limits.most_images) == (sizes, has_rule, most_images)
    assert limits.fields == fields
    complete(api, prompt="x" * limits.longest_prompt, n=limits.most_images)
    for size in limits.sizes:
        assert complete(api, size=size).size == size
