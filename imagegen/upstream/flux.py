"""FLUX on Azure AI Foundry, at the routes of Black Forest Labs."""

from __future__ import annotations

from typing import Any

from imagegen.deployments import Deployment
from imagegen.generation import GenerationRequest
from imagegen.upstream.direct import DirectApi
from imagegen.upstream.limits import Limits, SizeRule, width_and_height
from imagegen.upstream.not_found import NotFoundCauses, deployment_cause, endpoint_cause, version_cause


def flux(deployment: Deployment) -> DirectApi:
    """``POST {endpoint}/providers/blackforestlabs/v1/{model-path}``, with the key as a bearer token."""

    def fields(request: GenerationRequest) -> dict[str, Any]:
        width, height = width_and_height(request.size)
        # This API has no `user`. The field changes no image, so it is not sent and not refused.
        return {
            "model": deployment.deployment,
            "prompt": request.prompt,
            "num_images": request.n,
            "output_format": request.output_format,
            "width": width,
            "height": height,
        }

    return DirectApi(
        url=f"{deployment.endpoint}/providers/blackforestlabs/v1/{deployment.model_path}"
        f"?api-version={deployment.api_version}",
        fields=fields,
        limits=Limits(
            sizes=("auto",),
            size_rule=SizeRule(shortest=256, longest=2048, step=16),
            most_images=4,
            longest_prompt=32_000,
            accepted={"output_format": ("png", "jpeg")},
        ),
        defaults={"size": "1024x1024"},
        not_found=NotFoundCauses(
            route=(
                endpoint_cause(deployment, example="https://RESOURCE.services.ai.azure.com"),
                f"The model path: '{deployment.model_path}' must be the model's own (modelPath in IMAGE_DEPLOYMENTS).",
                version_cause(deployment, examples="preview"),
            ),
            deployment=deployment_cause(deployment),
        ),
        bearer_key=True,
    )
