"""The route with the deployment in its path, which gpt-image and DALL·E 3 share."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions, gpt_image
from local.emulator.auth import authorize
from local.emulator.dalle import DalleRequest
from local.emulator.direct import DirectCalls, direct_route
from local.emulator.emulator import Emulator
from local.emulator.errors import resource_not_found
from local.emulator.gpt_image import GptImageRequest
from local.emulator.validation import json_object, validate


def routes(emulator: Emulator, calls: DirectCalls) -> list[Route]:
    async def generate(request: Request) -> Response:
        authorize(request.headers, emulator.options.keys)
        deployment: str = request.path_params["deployment"]
        version = request.query_params.get("api-version")
        dalle_3 = is_dalle(deployment, version)
        if version not in (api_versions.DALLE if dalle_3 else api_versions.GPT_IMAGE):
            raise resource_not_found()
        fields = await json_object(request, DalleRequest.errors if dalle_3 else GptImageRequest.errors)
        if isinstance(fields.get("model"), str | None):  # anything else stays, and is refused
            fields["model"] = deployment
        if dalle_3:
            return await calls.respond(request, validate(DalleRequest, fields, DalleRequest.errors))
        return await gpt_image.respond(request, fields, emulator, calls)

    return [direct_route("/openai/deployments/{deployment}/images/generations", generate)]


def is_dalle(deployment: str, version: str | None) -> bool:
    """Choose by the name of the deployment. If it says nothing, choose by the api-version."""
    name = deployment.lower()
    if name.startswith(("dall", "gpt-image")):
        return name.startswith("dall")
    return version not in api_versions.GPT_IMAGE
