"""FLUX of Black Forest Labs, on Foundry's provider route."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions
from local.emulator.auth import authorize_bearer
from local.emulator.direct import DirectCalls, DirectRequest, direct_route
from local.emulator.drawing import Drawing
from local.emulator.emulator import Emulator
from local.emulator.errors import FoundryErrors, resource_not_found
from local.emulator.faults import Faults
from local.emulator.validation import json_object, validate

MODEL_PATHS = frozenset({"flux-pro-1.1", "flux-kontext-pro", "flux-2-pro", "flux-2-flex"})

Side = Annotated[int, Field(ge=256, le=2048, multiple_of=16)]


class FluxRequest(DirectRequest):
    errors = FoundryErrors()

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]
    width: Side = 1024
    height: Side = 1024
    output_format: Literal["png", "jpeg"] = "png"
    num_images: Annotated[int, Field(ge=1, le=4)] = 1
    seed: int | None = None

    @property
    def wants_urls(self) -> bool:
        return "url" in Faults.parse(self.prompt)

    @property
    def image_count(self) -> int:
        return self.num_images

    def drawing(self) -> Drawing:
        image_format = "JPEG" if self.output_format == "jpeg" else "PNG"
        return Drawing(prompt=self.prompt, width=self.width, height=self.height, format=image_format)

    def response_body(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        return {"created": created, "data": data}


def routes(emulator: Emulator, calls: DirectCalls) -> list[Route]:
    async def generate(request: Request) -> Response:
        authorize_bearer(request.headers, emulator.options.keys)
        version = request.query_params.get("api-version")
        if request.path_params["path"] not in MODEL_PATHS or version not in api_versions.FLUX:
            raise resource_not_found()
        if "content-length" not in request.headers:
            message = "The request must have a Content-Length header."
            raise FluxRequest.errors.error(411, "no_content_length_header", message)
        fields = await json_object(request, FluxRequest.errors)
        return await calls.respond(request, validate(FluxRequest, fields, FluxRequest.errors))

    return [direct_route("/providers/blackforestlabs/v1/{path}", generate)]
