"""Records to test with, and the noon at which all of them happen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from imagegen.generation import FailedImage, Generation, GenerationError, GenerationRequest, Status, StoredImage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ID = "019ab0f0-1111-7000-8000-000000000001"
TOKEN = "the-token-of-the-generation"
PROMPT = "a prompt that nobody must log"
OPERATION = "https://images.example.com/openai/operations/images/1?api-version=2023-06-01-preview"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def new(**changes: Any) -> Generation:
    """As `start` writes it."""
    return Generation(
        id=ID,
        token=TOKEN,
        created=NOON,
        last_action=NOON,
        deadline=NOON + seconds(3_600),
        due=NOON,
        request=GenerationRequest(prompt=PROMPT, n=1, size="1024x1024", model="dalle"),
    ).changed(**changes)


def running(**changes: Any) -> Generation:
    """As it is once upstream has accepted it."""
    return new(**{"status": Status.RUNNING, "operation_location": OPERATION, "submitted": NOON, **changes})


def stored(index: int = 0) -> StoredImage:
    return StoredImage(
        container="images", blob=f"{ID}/{index}.png", content_type="image/png", content_length=8, sha256="0" * 64
    )


def failed(code: str, message: str = "why") -> FailedImage:
    return FailedImage(error=GenerationError(code=code, message=message))
