"""OpenAI's ``images/generations``: gpt-image, and DALL·E 3 behind gateways.

Source: Azure OpenAI reference, v1 and 2025-04-01-preview; for DALL·E 3 the versions before 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from imagegen.deployments import Deployment
from imagegen.errors import FieldProblem
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import DirectApi
from imagegen.upstream.limits import Limits, SizeRule
from imagegen.upstream.not_found import NotFoundCauses, deployment_cause, endpoint_cause, version_cause

_FIRST_GPT_VERSION: Final = "2025"
_GPT_IMAGE_2_SIZES: Final = SizeRule(
    shortest=16, longest=3840, step=16, fewest_pixels=655_360, most_pixels=3840 * 2160, most_ratio=3
)


def openai_images(deployment: Deployment) -> DirectApi:
    """The v1 route without an API version or with a named one, else the route of the deployment."""
    version = deployment.api_version
    if version in (None, "preview", "latest"):
        url = f"{deployment.endpoint}/openai/v1/images/generations"
        return _gpt_image(deployment, url if version is None else f"{url}?api-version={version}", named=True)
    name = quote(deployment.deployment, safe="")
    url = f"{deployment.endpoint}/openai/deployments/{name}/images/generations?api-version={version}"
    return _dalle(deployment, url) if version < _FIRST_GPT_VERSION else _gpt_image(deployment, url, named=False)


def _gpt_image(deployment: Deployment, url: str, *, named: bool) -> DirectApi:
    """`named`: the body names the model, because the route does not."""
    # gpt-image-1, 1-mini and 1.5 have three sizes. A deployment with a name of its own may be any later model.
    any_size = not deployment.deployment.lower().startswith("gpt-image-1")
    limits = Limits(
        sizes=("auto", "1024x1024", "1024x1536", "1536x1024"),
        size_rule=_GPT_IMAGE_2_SIZES if any_size else None,
        most_images=10,
        longest_prompt=32_000,
        accepted={
            "quality": ("auto", "low", "medium", "high"),
            "output_format": ("png", "jpeg"),
            "output_compression": None,
            "background": ("auto", "opaque", "transparent"),
            "user": None,
        },
    )
    return DirectApi(
        url=url,
        fields=lambda request: _fields(request, limits, model=deployment.deployment if named else None),
        limits=limits,
        # Without `quality` the service chooses one, which may be the most expensive.
        defaults={"size": "auto", "quality": "auto"},
        not_found=_not_found(deployment),
        rules=_gpt_image_rules,
    )


def _gpt_image_rules(request: GenerationRequest) -> Iterator[FieldProblem]:
    if request.output_compression is not None and request.output_format != "jpeg":
        yield FieldProblem("output_compression", "needs output_format 'jpeg'. Set output_format, or leave this out.")
    if request.background == "transparent" and request.output_format == "jpeg":
        yield FieldProblem("background", "JPEG has no transparency. Use output_format 'png', or another background.")


def _dalle(deployment: Deployment, url: str) -> DirectApi:
    limits = Limits(
        sizes=("1024x1024", "1792x1024", "1024x1792"),
        most_images=1,
        longest_prompt=4_000,
        accepted={"quality": ("standard", "hd"), "style": ("natural", "vivid"), "user": None},
    )
    return DirectApi(
        url=url,
        fields=lambda request: _fields(request, limits, model=None),
        limits=limits,
        defaults={"size": "1024x1024"},
        not_found=_not_found(deployment),
    )


def _not_found(deployment: Deployment) -> NotFoundCauses:
    endpoint = endpoint_cause(deployment, example="https://RESOURCE.openai.azure.com")
    version = version_cause(deployment, examples="2025-04-01-preview (with its suffix)", optional=True)
    dated = deployment.api_version not in (None, "preview", "latest")
    return NotFoundCauses(
        route=(version, endpoint) if dated else (endpoint, version),
        deployment=deployment_cause(deployment, more=" A new deployment needs up to five minutes."),
    )


def _fields(request: GenerationRequest, limits: Limits, *, model: str | None) -> dict[str, Any]:
    # Only what the model accepts: the service answers 400 to any other field.
    optional = {name: getattr(request, name) for name in limits.fields}
    return {"model": model, "prompt": request.prompt, "n": request.n, "size": request.size, **optional}
