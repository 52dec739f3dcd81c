"""The lists of models and deployments. They cost nothing, so clients use them to check their credential."""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions
from local.emulator.auth import authorize, authorize_bearer
from local.emulator.direct import direct_route
from local.emulator.emulator import Emulator
from local.emulator.errors import json_response, resource_not_found

_MODELS = (
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


def routes(emulator: Emulator) -> list[Route]:
    """Return three routes, one for each generation of the service."""

    def listing(
        versions: AbstractSet[str | None], entry: Callable[[str], dict[str, Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            _authorize(request, emulator)
            if request.query_params.get("api-version") not in versions:
                raise resource_not_found()
            return json_response({"object": "list", "data": [entry(name) for name in _MODELS]})

        return answer

    return [
        direct_route("/openai/v1/models", listing(api_versions.V1, _v1_model), method="GET"),
        direct_route("/openai/models", listing(api_versions.LISTS, _model), method="GET"),
        direct_route("/openai/deployments", listing(api_versions.LISTS, _deployment), method="GET"),
    ]


def _v1_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "azure"}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "status": "succeeded"}


def _deployment(name: str) -> dict[str, Any]:
    return {"id": name, "model": name, "object": "deployment", "status": "succeeded"}


def _authorize(request: Request, emulator: Emulator) -> None:
    """Be stricter with tokens than a call: a wrong key must show here."""
    if "api-key" in request.headers:
        authorize(request.headers, emulator.options.keys)
    else:
        authorize_bearer(request.headers, emulator.options.keys)
