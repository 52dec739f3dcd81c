"""One operation of the asynchronous API: its request, and its state, which follows from the time alone."""

import math
from dataclasses import dataclass
from email.utils import formatdate
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from local.emulator.drawing import Drawing
from local.emulator.errors import ServiceError, content_filter
from local.emulator.faults import Faults
from local.emulator.validation import RequestBody

State = Literal["notRunning", "running", "succeeded", "failed"]

LIFETIME = 86_400.0
"""Seconds for which an operation is kept."""

_QUEUED = 0.5
_RUNNING = 3.0
_RUNNING_PER_IMAGE = 1.0
_MAX_RETRY_AFTER = 3


class OperationRequest(RequestBody):
    prompt: Annotated[str, Field(min_length=1, max_length=1_000)]
    n: Annotated[int, Field(ge=1, le=5)] = 1
    size: Literal["256x256", "512x512", "1024x1024"] = "1024x1024"
    user: str = ""

    def drawings(self) -> list[Drawing]:
        width, _, height = self.size.partition("x")
        return [
            Drawing(prompt=self.prompt, width=int(width), height=int(height), index=index, count=self.n)
            for index in range(self.n)
        ]


@dataclass(frozen=True)
class Operation:
    """An accepted request. Times are in unix seconds."""

    id: str
    request: OperationRequest
    faults: Faults
    created: float
    starts: float
    finishes: float

    @classmethod
    def accept(cls, operation_id: str, request: OperationRequest, *, now: float, speed: float) -> Self:
        """Create an operation whose delays are multiplied by ``speed``."""
        faults = Faults.parse(request.prompt)
        queued = _QUEUED * speed
        total = queued + (_RUNNING + _RUNNING_PER_IMAGE * request.n) * speed
        if fixed := faults.get("seconds"):
            total = fixed.seconds
        if "never" in faults:
            total = math.inf
        return cls(operation_id, request, faults, now, now + min(queued, total), now + total)

    @classmethod
    def from_kept(cls, operation_id: str, kept: dict[str, Any]) -> Self:
        request = OperationRequest.model_validate(kept["request"])
        faults = Faults.parse(request.prompt)
        return cls(operation_id, request, faults, kept["created"], kept["starts"], kept["finishes"])

    def to_keep(self) -> dict[str, Any]:
        """Return the fields that `from_kept` reads, as JSON."""
        times = {"created": self.created, "starts": self.starts, "finishes": self.finishes}
        return {"request": self.request.model_dump(), **times}

    def state(self, now: float) -> State:
        if now < self.starts:
            return "notRunning"
        if now < self.finishes:
            return "running"
        return "succeeded" if self.error() is None else "failed"

    def error(self) -> ServiceError | None:
        """Return the error that the prompt asks for."""
        failed = self.faults.get("failed")
        if filtered := self.faults.get("contentFilter"):
            return content_filter(filtered.argument or "contentFilter")
        if failed and failed.argument == "contentFilter":
            return content_filter()
        if failed:
            return ServiceError(400, failed.argument, "The operation failed, as its prompt asked.")
        return None

    def retry_after(self, now: float) -> dict[str, str]:
        """Return the header for a poll before the end."""
        if "poll-no-retry-after" in self.faults:
            return {}
        seconds = str(max(1, math.ceil(min(self.finishes - now, _MAX_RETRY_AFTER))))
        if asked := self.faults.get("retry-after"):
            seconds = asked.argument
        if "poll-retry-date" in self.faults:
            later = float(seconds) if seconds.isdecimal() else 1.0
            seconds = formatdate(math.ceil(now + later), usegmt=True)
        return {"retry-after": seconds}
