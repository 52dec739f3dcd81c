"""DALL·E 3 on the deployment route: the swaggers of 2024-10-21 and 2025-03-01-preview."""

from typing import Annotated, Any, Literal

from pydantic import Field

from local.emulator.direct import DirectRequest
from local.emulator.drawing import Drawing
from local.emulator.errors import OpenAIErrors

_SAFE = {"severity": "safe", "filtered": False}
_IMAGE_RESULTS = dict.fromkeys(("sexual", "violence", "hate", "self_harm"), _SAFE)
_PROMPT_RESULTS = _IMAGE_RESULTS | {"profanity": {"detected": False, "filtered": False}}


class DalleRequest(DirectRequest):
    errors = OpenAIErrors(rate_limited="429")

    prompt: Annotated[str, Field(min_length=1, max_length=4_000)]
    n: Annotated[int, Field(ge=1, le=1)] = 1
    size: Literal["1024x1024", "1792x1024", "1024x1792"] = "1024x1024"
    quality: Literal["standard", "hd"] = "standard"
    style: Literal["natural", "vivid"] = "vivid"
    response_format: Literal["url", "b64_json"] = "url"
    user: str | None = None

    @property
    def wants_urls(self) -> bool:
        return self.response_format == "url"

    def drawing(self) -> Drawing:
        width, _, height = self.size.partition("x")
        return Drawing(prompt=self.prompt, width=int(width), height=int(height))

    def response_body(self, created: int, data: list[dict[str, Any]]) -> dict[str, Any]:
        """As in the official example."""
        revised = f"A vivid, natural representation of: {self.prompt}"
        before = {"revised_prompt": revised, "prompt_filter_results": _PROMPT_RESULTS}
        after = {"content_filter_results": _IMAGE_RESULTS}
        return {"created": created, "data": [before | image | after for image in data]}
