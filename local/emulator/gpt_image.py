"""gpt-image: the v1 route, and what the deployment route does for these models."""

import math
import re
from dataclasses import dataclass
from typing import Any, Self

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.emulator.auth import authorize
from local.emulator.calls import Calls, Order, answered
from local.emulator.emulator import Emulator
from local.emulator.errors import resource_not_found
from local.emulator.fields import Fields
from local.emulator.pictures import Rendering
from local.emulator.spelling import Spelling

API_VERSIONS = frozenset({"2025-04-01-preview"})
"""Dated versions of the deployment route that know these models."""
V1_VERSIONS = frozenset({None, "preview", "v1"})
SPELLING = Spelling(rate_limited="RateLimitReached")
SIZES = ("1024x1024", "1024x1536", "1536x1024", "auto")
QUALITIES = ("low", "medium", "high", "auto")
MOST_PROMPT = 32_000
MOST_IMAGES = 10

_FIELDS = ("model", "prompt", "n", "size", "quality", "output_format", "output_compression", "background", "user")
_MODEL_NAME = 256
_ANY_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_LONG_EDGE = 3840
_PIXELS = (655_360, 8_294_400)
# Output tokens of a square of 1024, of a long edge of 1536: OpenAI's table for gpt-image-1.
_TOKENS = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}


@dataclass(frozen=True, kw_only=True)
class GptImageOrder(Order):
    """The body, checked."""

    quality: str
    background: str

    @classmethod
    def read(cls, fields: Fields, deployment: str | None) -> Self:
        """``deployment`` is None where the body's ``model`` names it."""
        fields.only(*_FIELDS)
        if deployment is None:
            deployment = fields.text("model", most=_MODEL_NAME)
        fields.any_text("model")
        fields.any_text("user")
        prompt = fields.text("prompt", most=MOST_PROMPT)
        n = fields.integer("n", 1, least=1, most=MOST_IMAGES)
        width, height = _size(fields, deployment)
        quality = fields.choice("quality", "auto", QUALITIES)
        background = fields.choice("background", "auto", ("transparent", "opaque", "auto"))
        return cls(
            deployment=deployment,
            prompt=prompt,
            spelling=SPELLING,
            n=n,
            width=width,
            height=height,
            rendering=_rendering(fields, background),
            quality="high" if quality == "auto" else quality,
            background="opaque" if background == "auto" else background,
        )

    def document(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """As OpenAI's schema has it: what was chosen where ``auto`` was asked for, and the tokens."""
        text, drawn = max(1, len(self.prompt) // 4), self.n * self._tokens()
        return {
            "created": created,
            "background": self.background,
            "output_format": self.rendering.form.lower(),
            "quality": self.quality,
            "size": f"{self.width}x{self.height}",
            "data": data,
            "usage": {
                "total_tokens": text + drawn,
                "input_tokens": text,
                "output_tokens": drawn,
                "input_tokens_details": {"text_tokens": text, "image_tokens": 0},
            },
        }

    def _tokens(self) -> int:
        square, oblong = _TOKENS[self.quality]
        pixels = self.width * self.height
        return square if pixels == 1024 * 1024 else math.ceil(oblong * pixels / (1024 * 1536))


def _size(fields: Fields, deployment: str) -> tuple[int, int]:
    """Width and height; ``auto`` is a square here."""
    if deployment.lower().startswith("gpt-image-2") and (asked := _ANY_SIZE.fullmatch(fields.any_text("size"))):
        return _any_size(int(asked[1]), int(asked[2]))
    size = fields.choice("size", "auto", SIZES)
    width, _, height = ("1024x1024" if size == "auto" else size).partition("x")
    return int(width), int(height)


def _any_size(width: int, height: int) -> tuple[int, int]:
    long, short = max(width, height), min(width, height)
    for wrong, rule in (
        (width % 16 or height % 16, "both edges must be multiples of 16"),
        (long > _LONG_EDGE, f"the long edge must be at most {_LONG_EDGE} pixels"),
        (long > 3 * short, "the aspect ratio must be at most 3:1"),
        (not _PIXELS[0] <= width * height <= _PIXELS[1], f"there must be {_PIXELS[0]} to {_PIXELS[1]} pixels"),
    ):
        if wrong:
            raise SPELLING.invalid("invalid_value", f"Invalid size '{width}x{height}': {rule}.", "size")
    return width, height


def _rendering(fields: Fields, background: str) -> Rendering:
    form = fields.choice("output_format", "png", ("png", "jpeg"))
    if form == "jpeg":
        if background == "transparent":
            message = "Transparent background is not supported for JPEG output format"
            raise SPELLING.invalid("invalid_value", message, "background")
        return Rendering("JPEG", fields.integer("output_compression", 100, least=0, most=100))
    if fields.given("output_compression"):
        fields.integer("output_compression", 100, least=0, most=100)
        message = "Compression less than 100 is not supported for PNG output format"
        kind = "image_generation_user_error"
        raise SPELLING.error(400, "invalid_png_output_compression", message, kind=kind)
    return Rendering("PNG", transparent=background == "transparent")


class GptImageApi:
    """``/openai/v1/images/generations``."""

    def __init__(self, emulator: Emulator, calls: Calls) -> None:
        self._emulator = emulator
        self._calls = calls

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/openai/v1/images/generations", answered(self._v1), methods=["POST"])]

    def clear(self) -> None:
        """There is nothing to forget."""

    async def _v1(self, request: Request) -> Response:
        authorize(request.headers, self._emulator.options.keys)
        if request.query_params.get("api-version") not in V1_VERSIONS:
            raise resource_not_found()
        return await self.call(request, None)

    async def call(self, request: Request, deployment: str | None) -> Response:
        """A call whose caller and version are known to be right."""
        fields = await Fields.of(request, SPELLING)
        order = GptImageOrder.read(fields, deployment)
        if not fields.given("quality"):
            self._emulator.stats.missing_quality += 1
        return await self._calls.answer(request, order)
