"""FLUX of Black Forest Labs, on Foundry's provider route."""

from dataclasses import dataclass
from typing import Any, Self

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator.auth import authorize_bearer
from local.emulator.calls import Calls, Order, answered
from local.emulator.emulator import Emulator
from local.emulator.errors import resource_not_found
from local.emulator.faults import Faults
from local.emulator.fields import Fields
from local.emulator.pictures import Rendering
from local.emulator.spelling import FoundrySpelling

MODEL_PATHS = frozenset({"flux-pro-1.1", "flux-kontext-pro", "flux-2-pro", "flux-2-flex"})
SPELLING = FoundrySpelling()
SIDES = (256, 2048)
MOST_IMAGES = 4
MOST_PROMPT = 32_000

_FIELDS = ("model", "prompt", "width", "height", "output_format", "num_images", "seed")


@dataclass(frozen=True, kw_only=True)
class FluxOrder(Order):
    """The body, checked."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """``model`` names the deployment."""
        fields.only(*_FIELDS)
        deployment = fields.text("model", most=256)
        prompt = fields.text("prompt", most=MOST_PROMPT)
        fields.whole("seed")
        return cls(
            deployment=deployment,
            prompt=prompt,
            spelling=SPELLING,
            n=fields.integer("num_images", 1, least=1, most=MOST_IMAGES),
            width=fields.integer("width", 1024, least=SIDES[0], most=SIDES[1]),
            height=fields.integer("height", 1024, least=SIDES[0], most=SIDES[1]),
            rendering=Rendering("JPEG" if fields.choice("output_format", "png", ("png", "jpeg")) == "jpeg" else "PNG"),
            by_url="url" in Faults.parse(prompt),
        )

    def document(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """The pictures and when they were made."""
        return {"created": created, "data": data}


class FluxApi:
    """``/providers/blackforestlabs/v1/{model path}``."""

    def __init__(self, emulator: Emulator, calls: Calls) -> None:
        self._emulator = emulator
        self._calls = calls

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/providers/blackforestlabs/v1/{path}", answered(self._generate), methods=["POST"])]

    def clear(self) -> None:
        """There is nothing to forget."""

    async def _generate(self, request: Request) -> Response:
        authorize_bearer(request.headers, self._emulator.options.keys)
        version = request.query_params.get("api-version")
        if request.path_params["path"] not in MODEL_PATHS or version != "preview":
            raise resource_not_found()
        if "content-length" not in request.headers:
            message = "The request must have a Content-Length header."
            raise SPELLING.error(411, "no_content_length_header", message)
        order = FluxOrder.read(await Fields.of(request, SPELLING))
        return await self._calls.answer(request, order)
