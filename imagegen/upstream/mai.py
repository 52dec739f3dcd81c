"""MAI-Image (preview): one image for each call, with the size in numbers."""

from __future__ import annotations

from typing import Any

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import DirectApi
from imagegen.upstream.limits import Limits, width_and_height
from imagegen.upstream.not_found import NotFoundCauses, deployment_cause, endpoint_cause


def mai(deployment: Deployment) -> DirectApi:
    """``POST {endpoint}/mai/v1/images/generations``."""

    def fields(request: GenerationRequest) -> dict[str, Any]:
        width, height = width_and_height(request.size)
        # This API has no `user`. The field changes no image, so it is not sent and not refused.
        return {"model": deployment.deployment, "prompt": request.prompt, "width": width, "height": height}

    return DirectApi(
        url=f"{deployment.endpoint}/mai/v1/images/generations",
        fields=fields,
        limits=Limits(sizes=(), most_images=1, longest_prompt=32_000),
        defaults={"size": "1024x1024"},
        not_found=NotFoundCauses(
            route=(endpoint_cause(deployment, example="https://RESOURCE.services.ai.azure.com"),),
            deployment=deployment_cause(deployment, more=" MAI-Image is in some regions only."),
        ),
    )
