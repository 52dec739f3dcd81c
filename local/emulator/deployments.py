"""The deployment route, which two kinds of model share."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import dalle, gpt_image
from local.emulator.auth import authorize
from local.emulator.calls import answered
from local.emulator.dalle import Dalle
from local.emulator.emulator import Emulator
from local.emulator.errors import resource_not_found
from local.emulator.gpt_image import GptImageApi


class DeploymentsApi:
    """``/openai/deployments/{deployment}/images/generations``."""

    def __init__(self, emulator: Emulator, gpt_images: GptImageApi, dalles: Dalle) -> None:
        self._emulator = emulator
        self._gpt_images = gpt_images
        self._dalles = dalles

    def routes(self) -> list[Route]:
        """What it serves."""
        path = "/openai/deployments/{deployment}/images/generations"
        return [Route(path, answered(self._generate), methods=["POST"])]

    def clear(self) -> None:
        """There is nothing to forget."""

    async def _generate(self, request: Request) -> Response:
        authorize(request.headers, self._emulator.options.keys)
        deployment: str = request.path_params["deployment"]
        version = request.query_params.get("api-version")
        if is_dalle(deployment, version):
            if version not in dalle.API_VERSIONS:
                raise resource_not_found()
            return await self._dalles.call(request, deployment)
        if version not in gpt_image.API_VERSIONS:
            raise resource_not_found()
        return await self._gpt_images.call(request, deployment)


def is_dalle(deployment: str, version: str | None) -> bool:
    """What the deployment's name says; one that says nothing is what the version was made for."""
    name = deployment.lower()
    if name.startswith(("dall", "gpt-image")):
        return name.startswith("dall")
    return version not in gpt_image.API_VERSIONS
