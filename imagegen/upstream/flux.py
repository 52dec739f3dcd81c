"""FLUX on Azure AI Foundry: Black Forest Labs' own routes."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.checks import Checks, width_and_height
from imagegen.upstream.direct import Dialect
from imagegen.upstream.protocol import Limits

_MOST_IMAGES: Final = 4
_FIELDS: Final = ("output_format",)


def flux(deployment: Deployment) -> Dialect:
    """``POST {endpoint}/providers/blackforestlabs/v1/{model-path}``; the key goes as a bearer token."""
    return Dialect(
        url=f"{deployment.endpoint}/providers/blackforestlabs/v1/{deployment.model_path}"
        f"?api-version={deployment.api_version}",
        body=partial(_body, model=deployment.deployment),
        complete=partial(_complete, name=deployment.name),
        limits=Limits(sizes=(), any_size_to=None, most_images=_MOST_IMAGES, longest_prompt=32_000, fields=_FIELDS),
        bearer_key=True,
    )


def _complete(request: GenerationRequest, *, name: str) -> GenerationRequest:
    checks = Checks(request, name).unknown("quality", "output_compression", "background", "style")
    checks.most_images(_MOST_IMAGES).one_of("output_format", ("png", "jpeg"))
    checks.raise_if_any()
    return request.model_copy(update={"size": request.size or "1024x1024"})


def _body(request: GenerationRequest, *, model: str) -> dict[str, Any]:
    # `user` is no field of this API: it is not sent, and it is no reason to refuse either.
    body: dict[str, Any] = {"model": model, "prompt": request.prompt, "num_images": request.n}
    if request.output_format:
        body["output_format"] = request.output_format
    if request.size and request.size != "auto":
        body["width"], body["height"] = width_and_height(request.size)
    return body
