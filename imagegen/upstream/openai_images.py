"""gpt-image, and DALL·E 3 behind gateways: ``images/generations``, on the v1 route and on the deployment route.

Source: Azure OpenAI reference, v1 and 2025-04-01-preview; for DALL·E 3 the versions before 2025.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from urllib.parse import quote

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.checks import Checks, width_and_height
from imagegen.upstream.direct import Dialect
from imagegen.upstream.protocol import Limits

_GPT_SIZES: Final = ("auto", "1024x1024", "1024x1536", "1536x1024")
_GPT_QUALITIES: Final = ("auto", "low", "medium", "high")
_LONGEST_EDGE: Final = 3840
_DALLE_SIZES: Final = ("1024x1024", "1792x1024", "1024x1792")
_FIRST_GPT_VERSION: Final = "2025"


def openai_images(deployment: Deployment) -> Dialect:
    """By the API version: none or ``preview`` is the v1 route; a date is the deployment route, before 2025 DALL·E 3."""
    version = deployment.api_version
    if version in (None, "preview", "latest"):
        url = f"{deployment.endpoint}/openai/v1/images/generations"
        return _gpt(deployment, url if version is None else f"{url}?api-version={version}", named=True)
    name = quote(deployment.deployment, safe="")
    url = f"{deployment.endpoint}/openai/deployments/{name}/images/generations?api-version={version}"
    return _dalle(deployment, url) if version < _FIRST_GPT_VERSION else _gpt(deployment, url, named=False)


def _gpt(deployment: Deployment, url: str, *, named: bool) -> Dialect:
    # gpt-image-1 and its mini and 1.5 have three sizes. A deployment may have any name: one that does not say which
    # model it is may be any later one, which the service knows better.
    any_size = not deployment.deployment.lower().startswith("gpt-image-1")
    return Dialect(
        url=url,
        body=partial(_gpt_body, model=deployment.deployment if named else None),
        complete=partial(_gpt_complete, name=deployment.name, any_size=any_size),
        limits=Limits(
            sizes=_GPT_SIZES,
            any_size_to=_LONGEST_EDGE if any_size else None,
            most_images=10,
            longest_prompt=32_000,
            fields=("quality", "output_format", "output_compression", "background", "user"),
        ),
    )


def _gpt_complete(request: GenerationRequest, *, name: str, any_size: bool) -> GenerationRequest:
    checks = Checks(request, name).unknown("style")
    checks.one_of("quality", _GPT_QUALITIES).one_of("output_format", ("png", "jpeg"))
    checks.one_of("background", ("auto", "opaque", "transparent"))
    if any_size and request.size not in (None, *_GPT_SIZES):
        edges = width_and_height(request.size)
        if any(edge % 16 for edge in edges) or max(edges) > _LONGEST_EDGE:
            checks.problem("size", f"must be 'auto' or multiples of 16 up to {_LONGEST_EDGE} for '{name}'")
    elif not any_size:
        checks.one_of("size", _GPT_SIZES)
    if request.output_compression is not None and request.output_format != "jpeg":
        checks.problem("output_compression", "goes with output_format 'jpeg' alone")
    if request.background == "transparent" and request.output_format == "jpeg":
        checks.problem("background", "'transparent' does not go with output_format 'jpeg'")
    checks.raise_if_any()
    return request.model_copy(update={"size": request.size or "auto", "quality": request.quality or "auto"})


def _gpt_body(request: GenerationRequest, *, model: str | None) -> dict[str, Any]:
    # Never response_format or style: 400. Always quality: left out, the service chooses, and what it chooses costs.
    body = {
        "model": model,
        "prompt": request.prompt,
        "n": request.n,
        "size": request.size,
        "quality": request.quality,
        "output_format": request.output_format,
        "output_compression": request.output_compression,
        "background": request.background,
        "user": request.user,
    }
    return {name: value for name, value in body.items() if value is not None}


def _dalle(deployment: Deployment, url: str) -> Dialect:
    return Dialect(
        url=url,
        body=_dalle_body,
        complete=partial(_dalle_complete, name=deployment.name),
        limits=Limits(sizes=_DALLE_SIZES, most_images=1, longest_prompt=4_000, fields=("quality", "style", "user")),
    )


def _dalle_complete(request: GenerationRequest, *, name: str) -> GenerationRequest:
    checks = Checks(request, name).unknown("output_format", "output_compression", "background")
    checks.longest_prompt(4_000).most_images(1).one_of("size", _DALLE_SIZES)
    checks.one_of("quality", ("standard", "hd")).one_of("style", ("natural", "vivid"))
    checks.raise_if_any()
    return request.model_copy(update={"size": request.size or _DALLE_SIZES[0]})


def _dalle_body(request: GenerationRequest) -> dict[str, Any]:
    body = {
        "prompt": request.prompt,
        "n": request.n,
        "size": request.size,
        "quality": request.quality,
        "style": request.style,
        "user": request.user,
    }
    return {name: value for name, value in body.items() if value is not None}
