"""MAI-Image of Microsoft AI, on Foundry."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions
from local.emulator.auth import authorize
from local.emulator.direct import DirectCalls, DirectRequest, direct_route
from local.emulator.drawing import Drawing
from local.emulator.emulator import Emulator
from local.emulator.errors import FoundryErrors, resource_not_found
from local.emulator.validation import json_object, validate

Side = Annotated[int, Field(ge=768)]

_MAX_PIXELS = 1024 * 1024
_MAX_PIXELS_2_6 = 1536 * 1536


class MaiRequest(DirectRequest):
    errors = FoundryErrors(
        invalid_code="unsupported_request_value",
        invalid_prefix="Model does not support request parameter value supplied: ",
        repeats_message=True,
    )

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]
    width: Side = 1024
    height: Side = 1024

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        most = _MAX_PIXELS_2_6 if self.model.lower().startswith("mai-image-2.6") else _MAX_PIXELS
        if self.width * self.height > most:
            message = "'width' x 'height' must be at most {most} pixels."
            raise PydanticCustomError("invalid_value", message, {"most": most})
        return self

    def drawing(self) -> Drawing:
        return Drawing(prompt=self.prompt, width=self.width, height=self.height)

    def response_body(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """The token counts have names of their own."""
        tokens = {
            "num_input_text_tokens": max(1, len(self.prompt) // 4),
            "num_output_tokens": self.width * self.height // 1024,
        }
        return {"created": created, "data": data, "usage": tokens}


def routes(emulator: Emulator, calls: DirectCalls) -> list[Route]:
    async def generate(request: Request) -> Response:
        authorize(request.headers, emulator.options.keys)
        if request.query_params.get("api-version") not in api_versions.MAI:
            raise resource_not_found()
        fields = await json_object(request, MaiRequest.errors)
        return await calls.respond(request, validate(MaiRequest, fields, MaiRequest.errors))

    return [direct_route("/mai/v1/images/generations", generate)]
