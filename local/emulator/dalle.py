"""DALL·E 3, as the deployment route speaks it: the swaggers of 2024-10-21 and 2025-03-01-preview."""

from dataclasses import dataclass
from typing import Any, Self

from starlette.requests import Request
from starlette.responses import Response

from local.emulator.calls import Calls, Order
from local.emulator.fields import Fields
from local.emulator.spelling import Spelling

API_VERSIONS = frozenset(
    {
        "2023-12-01-preview",
        "2024-02-01",
        "2024-02-15-preview",
        "2024-03-01-preview",
        "2024-04-01-preview",
        "2024-05-01-preview",
        "2024-06-01",
        "2024-07-01-preview",
        "2024-08-01-preview",
        "2024-09-01-preview",
        "2024-10-01-preview",
        "2024-10-21",
        "2024-12-01-preview",
        "2025-01-01-preview",
        "2025-02-01-preview",
        "2025-03-01-preview",
        "2025-04-01-preview",
    }
)
SPELLING = Spelling(rate_limited="429")
SIZES = ("1024x1024", "1792x1024", "1024x1792")
MOST_PROMPT = 4000

_FIELDS = ("model", "prompt", "n", "size", "quality", "style", "response_format", "user")
_SAFE = {"severity": "safe", "filtered": False}
_IMAGE_RESULTS = dict.fromkeys(("sexual", "violence", "hate", "self_harm"), _SAFE)
_PROMPT_RESULTS = _IMAGE_RESULTS | {"profanity": {"detected": False, "filtered": False}}


@dataclass(frozen=True, kw_only=True)
class DalleOrder(Order):
    """The body, checked."""

    @classmethod
    def read(cls, fields: Fields, deployment: str) -> Self:
        """The path names the deployment; a ``model`` beside it, as OpenAI's client sends it, is not looked at."""
        fields.only(*_FIELDS)
        fields.any_text("model")
        fields.any_text("user")
        prompt = fields.text("prompt", most=MOST_PROMPT)
        fields.integer("n", 1, least=1, most=1)
        width, _, height = fields.choice("size", "1024x1024", SIZES).partition("x")
        fields.choice("quality", "standard", ("standard", "hd"))
        fields.choice("style", "vivid", ("natural", "vivid"))
        by_url = fields.choice("response_format", "url", ("url", "b64_json")) == "url"
        return cls(
            deployment=deployment,
            prompt=prompt,
            spelling=SPELLING,
            width=int(width),
            height=int(height),
            by_url=by_url,
        )

    def document(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """As in the official example."""
        revised = f"A vivid, natural representation of: {self.prompt}"
        annotated = {"revised_prompt": revised, "prompt_filter_results": _PROMPT_RESULTS}
        return {
            "created": created,
            "data": [annotated | image | {"content_filter_results": _IMAGE_RESULTS} for image in data],
        }


class Dalle:
    """What the deployment route does for these models."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def call(self, request: Request, deployment: str) -> Response:
        """A call whose caller and version are known to be right."""
        fields = await Fields.of(request, SPELLING)
        return await self._calls.answer(request, DalleOrder.read(fields, deployment))
