"""MAI-Image (preview): one image for each call, with the size in numbers."""

from __future__ import annotations

from typing import Any, Final

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import DirectApi
from imagegen.upstream.limits import Limits, SizeRule, width_and_height
from imagegen.upstream.not_found import NotFoundCauses, deployment_cause, endpoint_cause

_SHORTEST_SIDE: Final = 768
_MOST_PIXELS: Final = 1024 * 1024
_MOST_PIXELS_2_6: Final = 1536 * 1536


def mai(deployment: Deployment) -> DirectApi:
    """``POST {endpoint}/mai/v1/images/generations``."""

    def fields(request: GenerationRequest) -> dict[str, Any]:
        width, height = width_and_height(request.size)
        # This API has no `user`. The field changes no image, so it is not sent and not refused.
        return {"model": deployment.deployment, "prompt": request.prompt, "width": width, "height": height}

    most_pixels = _MOST_PIXELS_2_6 if deployment.deployment.lower().startswith("mai-image-2.6") else _MOST_PIXELS
    rule = SizeRule(shortest=_SHORTEST_SIDE, longest=most_pixels // _SHORTEST_SIDE, most_pixels=most_pixels)
    return DirectApi(
        url=f"{deployment.endpoint}/mai/v1/images/generations",
        fields=fields,
        limits=Limits(sizes=("auto",), size_rule=rule, most_images=1, longest_prompt=32_000),
        defaults={"size": "1024x1024"},
        not_found=NotFoundCauses(
            route=(endpoint_cause(deployment, example="https://RESOURCE.services.ai.azure.com"),),
            deployment=deployment_cause(deployment, more=" MAI-Image is in some regions only."),
        ),
    )
