"""MAI-Image (preview): one image a call, its size in numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.checks import Checks, width_and_height
from imagegen.upstream.direct import Dialect
from imagegen.upstream.protocol import Limits


def mai(deployment: Deployment) -> Dialect:
    """``POST {endpoint}/mai/v1/images/generations``."""
    return Dialect(
        url=f"{deployment.endpoint}/mai/v1/images/generations",
        body=partial(_body, model=deployment.deployment),
        complete=partial(_complete, name=deployment.name),
        limits=Limits(sizes=(), any_size_to=None, most_images=1, longest_prompt=32_000, fields=()),
    )


def _complete(request: GenerationRequest, *, name: str) -> GenerationRequest:
    checks = Checks(request, name).most_images(1)
    checks.unknown("quality", "output_format", "output_compression", "background", "style").raise_if_any()
    return request.model_copy(update={"size": request.size or "1024x1024"})


def _body(request: GenerationRequest, *, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "prompt": request.prompt}
    if request.size and request.size != "auto":
        body["width"], body["height"] = width_and_height(request.size)
    return body
