"""The status monitor: a generation as its caller sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import quote

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

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
from imagegen.lifecycle.ports import Clock, Pace
from imagegen.upstream.protocol import Throttle
from imagegen.web.ports import CurrentThrottles, ImageLinks

_RETRY_AFTER_SECONDS: Final = 5
_LONGEST_RETRY_AFTER: Final = 60
_PER_SECOND: Final = 4
"""Active generations that add one second to ``Retry-After``, while the pace of the model is not known."""


_NO_LINK: Final = GenerationError(
    code="linkUnavailable",
    message=(
        "The app could not sign a link to this image. Read the monitor again later, or use blobUrl with a role on the "
        "storage account."
    ),
)


def _is_none(value: object) -> bool:
    return value is None


OMIT_NONE: Final = Field(exclude_if=_is_none)
"""For a field that the JSON leaves out when it is None.

Unlike a default of None, it makes the field required in the constructor, so none can be forgotten there.
"""


class MonitorUrls(JsonModel):
    """Where a caller reads and cancels the generation. Each URL holds the token."""

    monitor: str = Field(serialization_alias="self")
    result: str
    cancel: str


class MonitorImage(JsonModel):
    """An image in Blob Storage."""

    url: Annotated[str | None, OMIT_NONE]
    """Temporary link that gives anyone read access; new in each answer. Left out if it cannot be signed now."""
    url_error: Annotated[GenerationError | None, OMIT_NONE]
    """Only without ``url``: why there is none."""
    blob_url: str
    """The same URL without a credential."""
    container: str
    blob: str
    content_type: str
    content_length: int
    """Bytes."""
    sha256: str
    revised_prompt: str | None

    # The contract has `"revisedPrompt": null`, which to_json() would leave out. No return annotation: with one, the
    # JSON schema would describe that type instead of this model.
    @model_serializer(mode="wrap")
    def _keep_null(self, dump: SerializerFunctionWrapHandler):
        return {**dump(self), "revisedPrompt": self.revised_prompt}


class MonitorResult(JsonModel):
    data: list[MonitorImage | FailedImage]


class Monitor(JsonModel):
    """A generation as its caller sees it."""

    id: str
    status: Status
    status_message: Annotated[str | None, OMIT_NONE]
    """What an unfinished generation waits for, and the next try. Left out while the service works on it."""
    created_date_time: Time
    last_action_date_time: Time
    expires_date_time: Time
    """The record and the images are kept at least until then."""
    request: GenerationRequest
    metadata: Metadata
    urls: MonitorUrls
    result: Annotated[MonitorResult | None, OMIT_NONE]
    """Only when succeeded."""
    error: Annotated[GenerationError | None, OMIT_NONE]
    """Only when failed."""


class MonitorList(JsonModel):
    value: list[Monitor]
    next_link: Annotated[str | None, OMIT_NONE]
    """URL of the next page; left out on the last page."""


class EndedBody(JsonModel):
    """A generation that ended without a result."""

    error: GenerationError
    id: str
    status: Status


class Monitors:
    """Builds monitors.

    Parameters
    ----------
    retention
        How long records and images are kept.
    backlog
        The approximate number of active generations.
    waiting
        The approximate number of those that wait for a call of this model.
    throttling
        The throttle and the pace of each deployment.
    models
        The names of the deployments.
    """

    def __init__(
        self,
        *,
        links: ImageLinks,
        retention: timedelta,
        clock: Clock,
        backlog: Callable[[], int],
        waiting: Callable[[str], int],
        throttling: CurrentThrottles,
        models: Collection[str],
    ) -> None:
        self._links = links
        self._throttling = throttling
        self._models = models
        self._retention = retention
        self._clock = clock
        self._backlog = backlog
        self._waiting = waiting

    def build(self, generation: Generation, base: str) -> Monitor:
        """The monitor, with URLs under `base`."""
        succeeded, failed = generation.status is Status.SUCCEEDED, generation.status is Status.FAILED
        return Monitor(
            id=generation.id,
            status=generation.status,
            status_message=self._status_message(generation),
            created_date_time=generation.created,
            last_action_date_time=generation.last_action,
            expires_date_time=generation.created + self._retention,
            request=generation.request,
            metadata=generation.metadata,
            urls=_urls(generation, base),
            result=self._result(generation) if succeeded else None,
            error=generation.error if failed else None,
        )

    def retry_after(self, generation: Generation) -> dict[str, str]:
        """The ``Retry-After`` header, in whole seconds; empty when the generation has ended.

        An earlier poll would find nothing new. The value grows with the number of generations that wait for the same
        model.
        """
        if generation.status.is_terminal:
            return {}
        seconds = _RETRY_AFTER_SECONDS
        due = 0 if generation.claim else round((generation.due - self._clock()).total_seconds())
        if generation.waits:
            # A queued generation is due only if its message is lost.
            due = 0 if generation.queued else due
            with suppress(StorageUnavailableError):  # the header is only a hint
                seconds += self._seconds_to_begin(generation.request.model or "")
        elif not generation.faults:
            due = 0
        return {"Retry-After": str(min(_LONGEST_RETRY_AFTER, max(seconds, due)))}

    def _seconds_to_begin(self, model: str) -> int:
        pace = self._throttling.pace(model)
        if pace and pace.until > self._clock():
            return math.ceil(pace.seconds_for(self._waiting(model)))
        return self._backlog() // _PER_SECOND

    def _status_message(self, generation: Generation) -> str | None:
        if generation.status.is_terminal or generation.claim:  # ended, or a worker is at it
            return None
        model = generation.request.model or ""
        if model not in self._models:
            return (
                f"The app has no model '{model}' now. The generation waits for it until {_time(generation.deadline)}."
            )
        now = self._clock()
        if generation.operation_location is None and (throttle := self._throttle(model)) and throttle.until > now:
            return f"Throttled by the image service: {throttle.reason}; {_next_try(generation, throttle.until)}."
        backs_off = generation.fault and generation.due > now and not generation.queued
        if generation.waits and not backs_off and (pace := self._pace(model)) and pace.until > now:
            return "Waits for its turn: the quota of the model is used up, and earlier generations come first."
        if generation.queued:
            return "Waits in the queue for a worker."
        if generation.fault:
            next_try = _next_try(generation, generation.due) if generation.due > now else "next try soon"
            return f"The last problem: {generation.fault.removesuffix('.')}; {next_try}."
        return None

    def _throttle(self, model: str) -> Throttle | None:
        try:
            return self._throttling.current(model)
        except StorageUnavailableError:  # the message is only a hint
            return None

    def _pace(self, model: str) -> Pace | None:
        try:
            return self._throttling.pace(model)
        except StorageUnavailableError:
            return None

    def _result(self, generation: Generation) -> MonitorResult:
        return MonitorResult(data=[self._image(image) for image in generation.images if image])

    def _image(self, image: StoredImage | FailedImage) -> MonitorImage | FailedImage:
        if isinstance(image, FailedImage):
            return image
        url = self._link(image)
        return MonitorImage(
            url=url,
            url_error=None if url else _NO_LINK,
            blob_url=self._links.blob_url(image),
            container=image.container,
            blob=image.blob,
            content_type=image.content_type,
            content_length=image.content_length,
            sha256=image.sha256,
            revised_prompt=image.revised_prompt,
        )

    def _link(self, image: StoredImage) -> str | None:
        try:
            return self._links.link(image)
        except StorageUnavailableError:  # the image is there, and the result must not be hidden
            return None


def _next_try(generation: Generation, earliest: datetime) -> str:
    moment = max(earliest, generation.due if not generation.queued else earliest)
    if moment >= generation.deadline:
        return f"no try before the deadline at {_time(generation.deadline)}"
    return f"next try {_time(moment)}"


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}Z"


def _urls(generation: Generation, base: str) -> MonitorUrls:
    url, token = f"{base}/generations/{generation.id}", f"?token={quote(generation.token, safe='')}"
    return MonitorUrls(monitor=f"{url}{token}", result=f"{url}/result{token}", cancel=f"{url}/cancel{token}")
