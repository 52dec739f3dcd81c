"""The lists of models and deployments: requests that cost nothing, for a look whether the credential is right."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import dalle, gpt_image
from local.emulator.auth import authorize, authorize_bearer
from local.emulator.calls import answered
from local.emulator.emulator import Emulator
from local.emulator.errors import json_answer, resource_not_found

NAMES = (
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "dall-e-3",
    "FLUX-1.1-pro",
    "FLUX.1-Kontext-pro",
    "FLUX.2-pro",
    "FLUX.2-flex",
    "MAI-Image-2.5",
    "MAI-Image-2.6",
)
_CREATED = 1_750_000_000
_LISTING_VERSIONS = dalle.API_VERSIONS | {"2022-12-01", "2023-03-15-preview", "2023-05-15"}


class ModelsApi:
    """Three ways to ask, one for each generation of the service."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def routes(self) -> list[Route]:
        """What it serves."""
        return [
            Route("/openai/v1/models", answered(self._v1), methods=["GET"]),
            Route("/openai/models", answered(self._models), methods=["GET"]),
            Route("/openai/deployments", answered(self._deployments), methods=["GET"]),
        ]

    def clear(self) -> None:
        """There is nothing to forget."""

    async def _v1(self, request: Request) -> Response:
        self._check(request, gpt_image.V1_VERSIONS)
        entries = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "azure"} for name in NAMES]
        return _listed(entries)

    async def _models(self, request: Request) -> Response:
        self._check(request, _LISTING_VERSIONS)
        return _listed([{"id": name, "object": "model", "status": "succeeded"} for name in NAMES])

    async def _deployments(self, request: Request) -> Response:
        self._check(request, _LISTING_VERSIONS)
        return _listed([{"id": name, "model": name, "object": "deployment", "status": "succeeded"} for name in NAMES])

    def _check(self, request: Request, versions: frozenset[str | None] | frozenset[str]) -> None:
        """Stricter than a call is with tokens: a key that is wrong is to be seen here."""
        keys = self._emulator.options.keys
        if "api-key" in request.headers:
            authorize(request.headers, keys)
        else:
            authorize_bearer(request.headers, keys)
        if request.query_params.get("api-version") not in versions:
            raise resource_not_found()


def _listed(entries: list[dict[str, Any]]) -> Response:
    return json_answer({"object": "list", "data": entries})
