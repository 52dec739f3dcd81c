"""The status monitor: a generation as its caller sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import quote

from pydantic import Field

from imagegen.errors import StorageUnavailableError
from imagegen.generation import (
    FailedImage,
    Generation,
    GenerationError,
    GenerationRequest,
    JsonModel,
    Metadata,
    Status,
    StoredImage,
    Time,
)

_RETRY_AFTER_SECONDS: Final = 5
_LONGEST_RETRY_AFTER: Final = 60
_PER_SECOND: Final = 4
"""Generations in the queue for each second that a caller is told to wait longer."""


class Links(Protocol):
    def link(self, image: StoredImage) -> str:
        """A URL that lets anybody read this image, for a time."""
        ...

    def blob_url(self, image: StoredImage) -> str:
        """The same without a credential."""
        ...


class MonitorUrls(JsonModel):
    """Where a caller can go. The token in each is all that it takes."""

    monitor: str = Field(alias="self")
    result: str
    cancel: str


class MonitorImage(JsonModel):
    """An image in Blob Storage."""

    url: str
    """Lets anybody read this image, for a time; made anew with each answer."""
    blob_url: str
    """Where it is. Of no use without a credential."""
    container: str
    blob: str
    content_type: str
    content_length: int
    sha256: str
    revised_prompt: str | None


class MonitorResult(JsonModel):
    data: list[MonitorImage | FailedImage]


class Monitor(JsonModel):
    """A generation as its caller sees it."""

    id: str
    status: Status
    created_date_time: Time
    last_action_date_time: Time
    expires_date_time: Time
    """Until then at least, the record and the images are kept."""
    request: GenerationRequest
    metadata: Metadata
    urls: MonitorUrls
    result: MonitorResult | None = None
    """Only when succeeded."""
    error: GenerationError | None = None
    """Only when failed."""


class Monitors:
    """Makes monitors.

    Parameters
    ----------
    retention
        How long records and images are kept.
    backlog
        How many generations are unfinished, more or less.
    """

    def __init__(
        self,
        *,
        links: Links,
        retention: timedelta,
        clock: Callable[[], datetime],
        backlog: Callable[[], int],
    ) -> None:
        self._links = links
        self._retention = retention
        self._clock = clock
        self._backlog = backlog

    def to_json(self, generation: Generation, urls: MonitorUrls) -> dict[str, Any]:
        monitor = Monitor(
            id=generation.id,
            status=generation.status,
            created_date_time=generation.created,
            last_action_date_time=generation.last_action,
            expires_date_time=generation.created + self._retention,
            request=generation.request,
            metadata=generation.metadata,
            urls=urls,
        )
        shown = monitor.model_dump(mode="json", by_alias=True, exclude_unset=True)
        shown["request"] = generation.request.to_json()
        if generation.status is Status.SUCCEEDED:
            shown["result"] = {"data": [self._image(image) for image in generation.images if image]}
        if generation.status is Status.FAILED and generation.error:
            shown["error"] = generation.error.to_json()
        return shown

    def retry_after(self, generation: Generation) -> dict[str, str]:
        """Whole seconds; a caller that comes back sooner finds nothing new. Nothing once it is finished.

        It grows with the queue, which moves as fast as the quota of the model lets it.
        """
        if generation.status.is_terminal:
            return {}
        seconds = _RETRY_AFTER_SECONDS
        if generation.operation_location is None:
            wait = 0 if generation.queued else (generation.due - self._clock()).total_seconds()
            with suppress(StorageUnavailableError):  # a hint is not worth an error
                seconds += self._backlog() // _PER_SECOND
            seconds = max(seconds, round(wait))
        elif generation.faults:
            seconds = max(seconds, round((generation.due - self._clock()).total_seconds()))
        return {"Retry-After": str(min(_LONGEST_RETRY_AFTER, seconds))}

    def _image(self, image: StoredImage | FailedImage) -> dict[str, Any]:
        if isinstance(image, FailedImage):
            return image.to_json()
        return MonitorImage(
            url=self._links.link(image),
            blob_url=self._links.blob_url(image),
            container=image.container,
            blob=image.blob,
            content_type=image.content_type,
            content_length=image.content_length,
            sha256=image.sha256,
            revised_prompt=image.revised_prompt,
        ).model_dump(mode="json", by_alias=True)


def monitor_urls(generation: Generation, base: str) -> MonitorUrls:
    """The URLs of this generation."""
    itself, token = f"{base}/generations/{generation.id}", f"?token={quote(generation.token, safe='')}"
    return MonitorUrls.model_validate(
        {"self": f"{itself}{token}", "result": f"{itself}/result{token}", "cancel": f"{itself}/cancel{token}"}
    )
