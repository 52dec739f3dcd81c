"""Records for tests. All of them are created at NOON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from imagegen.generation import FailedImage, Generation, GenerationError, GenerationRequest, Status, StoredImage
from imagegen.upstream.protocol import Throttle

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ID = "019ab0f0-1111-7000-8000-000000000001"
TOKEN = "the-token-of-the-generation"
PROMPT = "a prompt that must not be logged"
OPERATION = "https://images.example.com/openai/operations/images/1?api-version=2023-06-01-preview"
POLLED, DIRECT = "dalle", "gpt"
"""Model whose operations are polled, and model that answers with the images."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def new(*, model: str = POLLED, **changes: Any) -> Generation:
    """Record before the submit or the call. It is due."""
    return Generation(
        id=ID,
        token=TOKEN,
        created=NOON,
        last_action=NOON,
        deadline=NOON + seconds(3_600),
        due=NOON,
        request=GenerationRequest(prompt=PROMPT, n=1, size="1024x1024", model=model),
    ).changed(**changes)


def running(**changes: Any) -> Generation:
    """Record after the service accepted the operation. It is due."""
    return new(status=Status.RUNNING, operation_location=OPERATION, submitted=NOON).changed(**changes)


def stored(index: int = 0) -> StoredImage:
    return StoredImage(
        container="images", blob=f"{ID}/{index}.png", content_type="image/png", content_length=8, sha256="0" * 64
    )


def throttle(number: float, reason: str = "status 429") -> Throttle:
    """A throttle that ends this many seconds after NOON."""
    return Throttle(NOON + seconds(number), reason)


def failed(code: str, message: str = "why") -> FailedImage:
    return FailedImage(error=GenerationError(code=code, message=message))


def error_code(generation: Generation) -> str | None:
    return generation.error.code if generation.error else None
