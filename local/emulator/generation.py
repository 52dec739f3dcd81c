"""One generation: what was asked for, and how far it is by now."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from local.emulator.errors import ServiceError, invalid_payload
from local.emulator.faults import Faults
from local.emulator.pictures import Picture

State = Literal["notRunning", "running", "succeeded", "failed"]

SIZES = ("256x256", "512x512", "1024x1024")
MOST_PROMPT = 1000
MOST_IMAGES = 5
OPERATION_LIFETIME = 86_400.0

_QUEUED = 0.5
_RUNNING = 3.0
_RUNNING_AN_IMAGE = 1.0
_FIELDS = ("prompt", "n", "size", "user")


@dataclass(frozen=True)
class GenerationRequest:
    """The body of a submit, checked, defaults filled in."""

    prompt: str
    n: int = 1
    size: str = "1024x1024"
    user: str | None = None

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read the body; anything the API does not define is 400 invalidPayload."""
        body = _json_object(text)
        for name in body:
            if name not in _FIELDS:
                raise invalid_payload(f"Unrecognized request argument supplied: {name!a}", name)
        return cls(
            prompt=_prompt(body),
            n=_n(body.get("n", 1)),
            size=_size(body.get("size", "1024x1024")),
            user=_user(body),
        )

    def picture(self, index: int) -> Picture:
        """What image ``index`` shows."""
        width, _, height = self.size.partition("x")
        return Picture(self.prompt, index, self.n, int(width), int(height))


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise invalid_payload("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise invalid_payload("The request body must be a JSON object.")
    return cast("dict[str, Any]", body)


def _prompt(body: dict[str, Any]) -> str:
    if "prompt" not in body:
        raise invalid_payload("'prompt' is a required property", "prompt")
    prompt = _text(body["prompt"], "prompt")
    if not 1 <= len(prompt) <= MOST_PROMPT:
        raise invalid_payload(f"'prompt' must have 1 to {MOST_PROMPT} characters, it has {len(prompt)}.", "prompt")
    return prompt


def _n(n: object) -> int:
    if not isinstance(n, int) or isinstance(n, bool):
        raise invalid_payload("'n' must be an integer.", "n")
    if not 1 <= n <= MOST_IMAGES:
        raise invalid_payload(f"'n' must be between 1 and {MOST_IMAGES}.", "n")
    return n


def _size(size: object) -> str:
    if size not in SIZES:
        raise invalid_payload(f"'size' must be one of {', '.join(SIZES)}.", "size")
    return cast("str", size)


def _user(body: dict[str, Any]) -> str | None:
    return _text(body["user"], "user") if "user" in body else None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise invalid_payload(f"'{name}' must be a string.", name)
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise invalid_payload(f"'{name}' is not valid Unicode: it has half of a surrogate pair.", name)
    return value


@dataclass(frozen=True)
class Operation:
    """One accepted generation. Its state follows from the time alone."""

    id: str
    request: GenerationRequest
    faults: Faults
    created: float  # unix seconds, as the others
    starts: float
    finishes: float

    @classmethod
    def accept(cls, operation_id: str, request: GenerationRequest, *, now: float, speed: float) -> Self:
        """A new operation; ``speed`` multiplies its delays."""
        faults = Faults.parse(request.prompt)
        queued = _QUEUED * speed
        total = queued + (_RUNNING + _RUNNING_AN_IMAGE * request.n) * speed
        if fixed := faults.get("seconds"):
            total = fixed.seconds
        if "never" in faults:
            total = math.inf
        return cls(operation_id, request, faults, now, now + min(queued, total), now + total)

    def state(self, now: float) -> State:
        """Where it stands."""
        if now < self.starts:
            return "notRunning"
        if now < self.finishes:
            return "running"
        return "succeeded" if self.error() is None else "failed"

    def error(self) -> ServiceError | None:
        """What it fails with, if it is to fail."""
        failed = self.faults.get("failed")
        if filtered := self.faults.get("contentFilter"):
            return content_filter(filtered.argument or "contentFilter")
        if failed and failed.argument == "contentFilter":
            return content_filter()
        if failed:
            return ServiceError(400, failed.argument, "The operation failed, as its prompt asked.")
        return None


def content_filter(code: str = "contentFilter") -> ServiceError:
    """The refusal of the safety system. The details are those of the later swaggers: 2023's have no words for them."""
    message = "Your task failed as a result of our safety system."
    return ServiceError(400, code, message, innererror=filter_details())


def filter_details() -> dict[str, Any]:
    """What the safety system found, as the swaggers' ``dalleInnerError`` has it."""
    safe = {"filtered": False, "severity": "safe"}
    results = {"hate": safe, "self_harm": safe, "sexual": safe, "violence": {"filtered": True, "severity": "medium"}}
    return {"code": "ResponsibleAIPolicyViolation", "content_filter_results": results}
