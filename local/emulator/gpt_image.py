"""gpt-image: the v1 route, and the request of the deployment route."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator import api_versions
from local.emulator.auth import authorize
from local.emulator.direct import DirectCalls, DirectRequest, direct_route
from local.emulator.drawing import Drawing
from local.emulator.emulator import Emulator
from local.emulator.errors import OpenAIErrors, resource_not_found
from local.emulator.validation import json_object, validate

_SIZES = ("1024x1024", "1024x1536", "1536x1024", "auto")
_ANY_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_LONG_EDGE = 3840
_MIN_PIXELS, _MAX_PIXELS = 655_360, 8_294_400
# Output tokens of a square of 1024, and of a long edge of 1536: OpenAI's table for gpt-image-1.
_TOKENS = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}


class GptImageRequest(DirectRequest):
    errors = OpenAIErrors()

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: str = "auto"
    quality: Literal["low", "medium", "high", "auto"] = "auto"
    output_format: Literal["png", "jpeg"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    background: Literal["transparent", "opaque", "auto"] = "auto"
    user: str | None = None

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: str, info: ValidationInfo) -> str:
        model: str = info.data.get("model", "")
        if model.lower().startswith("gpt-image-2") and (sides := _ANY_SIZE.fullmatch(size)):
            if rule := _broken_rule(int(sides[1]), int(sides[2])):
                raise PydanticCustomError(
                    "invalid_value", "Invalid size '{size}': {rule}.", {"size": size, "rule": rule}
                )
        elif size not in _SIZES:
            raise PydanticKnownError("literal_error", {"expected": "'1024x1024', '1024x1536', '1536x1024' or 'auto'"})
        return size

    @field_validator("background")
    @classmethod
    def _check_background(cls, background: str, info: ValidationInfo) -> str:
        if background == "transparent" and info.data.get("output_format") == "jpeg":
            message = "Transparent background is not supported for JPEG output format"
            raise PydanticCustomError("invalid_value", message)
        return background

    @model_validator(mode="after")
    def _check_compression(self) -> "GptImageRequest":
        if self.output_format == "png" and self.output_compression is not None:
            message = "Compression less than 100 is not supported for PNG output format"
            raise PydanticCustomError("invalid_png_output_compression", message)
        return self

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height. ``auto`` is a square here."""
        width, _, height = ("1024x1024" if self.size == "auto" else self.size).partition("x")
        return int(width), int(height)

    @property
    def image_count(self) -> int:
        return self.n

    def drawing(self) -> Drawing:
        width, height = self.sides
        return Drawing(
            prompt=self.prompt,
            width=width,
            height=height,
            format="JPEG" if self.output_format == "jpeg" else "PNG",
            quality=100 if self.output_compression is None else self.output_compression,
            transparent=self.background == "transparent",
        )

    def response_body(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """As in OpenAI's schema: the choices made for ``auto``, and the tokens."""
        quality = "high" if self.quality == "auto" else self.quality
        width, height = self.sides
        square, oblong = _TOKENS[quality]
        tokens = square if width == height == 1024 else math.ceil(oblong * width * height / (1024 * 1536))
        text_tokens, image_tokens = max(1, len(self.prompt) // 4), self.n * tokens
        return {
            "created": created,
            "background": "opaque" if self.background == "auto" else self.background,
            "output_format": self.output_format,
            "quality": quality,
            "size": f"{width}x{height}",
            "data": data,
            "usage": {
                "total_tokens": text_tokens + image_tokens,
                "input_tokens": text_tokens,
                "output_tokens": image_tokens,
                "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": 0},
            },
        }


def _broken_rule(width: int, height: int) -> str | None:
    """Return the first rule of gpt-image-2 that the size breaks."""
    long, short = max(width, height), min(width, height)
    rules = (
        (width % 16 == height % 16 == 0, "both edges must be multiples of 16"),
        (long <= _LONG_EDGE, f"the long edge must be at most {_LONG_EDGE} pixels"),
        (long <= 3 * short, "the aspect ratio must be at most 3:1"),
        (_MIN_PIXELS <= width * height <= _MAX_PIXELS, f"there must be {_MIN_PIXELS} to {_MAX_PIXELS} pixels"),
    )
    return next((rule for kept, rule in rules if not kept), None)


async def respond(request: Request, fields: dict[str, Any], emulator: Emulator, calls: DirectCalls) -> Response:
    """Answer a call whose credential and api-version are valid."""
    asked = validate(GptImageRequest, fields, GptImageRequest.errors)
    if "quality" not in asked.model_fields_set:
        emulator.stats.missing_quality += 1
    return await calls.respond(request, asked)


def routes(emulator: Emulator, calls: DirectCalls) -> list[Route]:
    async def generate(request: Request) -> Response:
        authorize(request.headers, emulator.options.keys)
        if request.query_params.get("api-version") not in api_versions.V1:
            raise resource_not_found()
        return await respond(request, await json_object(request, GptImageRequest.errors), emulator, calls)

    return [direct_route("/openai/v1/images/generations", generate)]
