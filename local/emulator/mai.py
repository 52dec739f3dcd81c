"""MAI-Image of Microsoft AI, on Foundry."""

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
from local.emulator.spelling import FoundrySpelling

SPELLING = FoundrySpelling(
    invalid_code="unsupported_request_value",
    invalid_prefix="Model does not support request parameter value supplied: ",
    repeats=True,
)
SHORTEST_SIDE = 768
MOST_PROMPT = 32_000

_MOST_PIXELS = 1024 * 1024
_MOST_PIXELS_2_6 = 1536 * 1536
_FIELDS = ("model", "prompt", "width", "height")


@dataclass(frozen=True, kw_only=True)
class MaiOrder(Order):
    """The body, checked."""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """``model`` names the deployment."""
        fields.only(*_FIELDS)
        deployment = fields.text("model", most=256)
        prompt = fields.text("prompt", most=MOST_PROMPT)
        width, height = (_side(fields, name) for name in ("width", "height"))
        most = _MOST_PIXELS_2_6 if deployment.lower().startswith("mai-image-2.6") else _MOST_PIXELS
        if width * height > most:
            raise SPELLING.invalid("", f"'width' x 'height' must be at most {most} pixels.", None)
        return cls(deployment=deployment, prompt=prompt, spelling=SPELLING, width=width, height=height)

    def document(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """The picture, and the tokens under names of their own."""
        tokens = {
            "num_input_text_tokens": max(1, len(self.prompt) // 4),
            "num_output_tokens": self.width * self.height // 1024,
        }
        return {"created": created, "data": data, "usage": tokens}


def _side(fields: Fields, name: str) -> int:
    side = fields.whole(name)
    if side is not None and side < SHORTEST_SIDE:
        raise SPELLING.invalid("", f"'{name}' must be at least {SHORTEST_SIDE} pixels.", name)
    return 1024 if side is None else side


class MaiApi:
    """``/mai/v1/images/generations``."""

    def __init__(self, emulator: Emulator, calls: Calls) -> None:
        self._emulator = emulator
        self._calls = calls

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/mai/v1/images/generations", answered(self._generate), methods=["POST"])]

    def clear(self) -> None:
        """There is nothing to forget."""

    async def _generate(self, request: Request) -> Response:
        authorize(request.headers, self._emulator.options.keys)
        if request.query_params.get("api-version") not in {None, "preview"}:
            raise resource_not_found()
        order = MaiOrder.read(await Fields.of(request, SPELLING))
        return await self._calls.answer(request, order)
