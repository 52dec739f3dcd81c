"""The asynchronous image API that Azure retired, for clients that were written for it.

Such a client only changes its endpoint to ``https://{host}/api``. Source: the API's OpenAPI file, 2023-06-01-preview.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import Field

from imagegen.deployments import ImageApi
from imagegen.generation import (
    FailedImage,
    Generation,
    GenerationError,
    GenerationRequest,
    JsonModel,
    NotBlank,
    RequestBody,
    Status,
    StoredImage,
    Whole,
    is_generation_id,
)
from imagegen.idempotency import read_key
from imagegen.settings import Settings
from imagegen.telemetry import valid_traceparent
from imagegen.upstream.operations import DEFAULT_SIZE, LIMITS
from imagegen.web.field_problems import shown
from imagegen.web.http import HttpError, Request, Response, base_url
from imagegen.web.monitor import OMIT_NONE, Monitors
from imagegen.web.parsing import parse_body
from imagegen.web.ports import Generations, ImageLinks, RecordReader

_VERSION: Final = re.compile(r"2023-\d\d-\d\d-preview")


class LegacyStartRequest(RequestBody):
    """The body of a submit."""

    prompt: NotBlank = Field(
        min_length=1,
        max_length=LIMITS.longest_prompt,
        json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"},
    )
    n: Whole = Field(default=1, ge=1, le=LIMITS.most_images)
    size: Literal["256x256", "512x512", "1024x1024"] | None = Field(
        default=None, json_schema_extra={"default": DEFAULT_SIZE}
    )
    user: str | None = Field(default=None, min_length=1, max_length=256)


class LegacyAccepted(JsonModel):
    id: str
    status: Status


class LegacyImage(JsonModel):
    url: str | None = None
    error: GenerationError | None = None


class LegacyResult(JsonModel):
    created: int
    data: list[LegacyImage]


class LegacyOperation(JsonModel):
    """An operation of the retired API. Times are seconds since 1970."""

    id: str
    status: Status
    created: int
    expires: Annotated[int | None, OMIT_NONE]
    """Only when the operation has ended."""
    result: Annotated[LegacyResult | None, OMIT_NONE]
    """Only when succeeded."""
    error: Annotated[GenerationError | None, OMIT_NONE]
    """Only when failed."""


class LegacyRoutes:
    """Answers as the retired service did."""

    def __init__(
        self,
        *,
        settings: Settings,
        generations: Generations,
        records: RecordReader,
        links: ImageLinks,
        monitors: Monitors,
        retention: timedelta,
    ) -> None:
        self._settings = settings
        self._generations = generations
        self._records = records
        self._links = links
        self._monitors = monitors
        self._retention = retention

    def submit(self, request: Request) -> Response:
        """``POST /openai/images/generations:submit``: 202 with ``operation-location``."""
        version = self._authorize(request)
        base = base_url(request, self._settings)
        # The retired API had only this one of the three headers.
        key = read_key({name: value for name, value in request.headers.items() if name == "operation-id"})
        body = parse_body(request, LegacyStartRequest)
        timeout = timedelta(seconds=self._settings.generation_timeout_seconds)
        generation = self._generations.start(
            self._request(body),
            metadata={},
            timeout=timeout,
            key=key,
            traceparent=valid_traceparent(request.headers.get("traceparent")),
        )
        location = f"{base}/openai/operations/images/{generation.id}?api-version={quote(version)}"
        # notRunning whatever the generation's status: that is what the retired service always answered.
        accepted = LegacyAccepted(id=generation.id, status=Status.NOT_RUNNING)
        return Response(202, accepted.to_json(), {"operation-location": location})

    def get_operation(self, request: Request) -> Response:
        """``GET /openai/operations/images/{id}``: 200 with the operation."""
        self._authorize(request)
        generation = self._find(request)
        if generation is None:
            raise HttpError(404, "notFound", "No operation has this id. Use the operation-location of the submit.")
        return Response(200, self._operation(generation).to_json(), self._monitors.retry_after(generation))

    def delete_operation(self, request: Request) -> Response:
        """``DELETE /openai/operations/images/{id}``: 204."""
        self._authorize(request)
        if generation := self._find(request):
            self._generations.delete(generation)
        return Response(204)

    def _authorize(self, request: Request) -> str:
        """Check api-key and api-version. Returns the api-version."""
        keys = self._settings.compat_api_keys
        version = request.query.get("api-version", "")
        # Both have the code of Azure's answer for a resource that does not exist, or not in this api-version.
        if not keys:
            message = (
                "The retired API is off in this app. Use POST /generations, or let the operator set COMPAT_API_KEYS."
            )
            raise HttpError(404, "404", message)
        if not _VERSION.fullmatch(version):
            found = shown(version) if version else "is missing"
            message = f"api-version: {found}; use 2023-MM-DD-preview, such as 2023-06-01-preview, or POST /generations."
            raise HttpError(404, "404", message)
        given = request.headers.get("api-key", "").encode("utf-8", "replace")
        # Compare with every key, each in constant time: the response time must not reveal a part of a key.
        matches = [hmac.compare_digest(key.get_secret_value().encode(), given) for key in keys]
        if not any(matches):
            message = "The api-key header is missing or is not one of COMPAT_API_KEYS. Send a key of that setting."
            raise HttpError(401, "401", message)
        return version

    def _request(self, body: LegacyStartRequest) -> GenerationRequest:
        """The request for the default deployment.

        The retired model made images of 256, 512 and 1024 pixels; today's models make none below 1024.
        """
        has_small_sizes = self._settings.deployments[0].api is ImageApi.OPERATIONS
        size = body.size if has_small_sizes else DEFAULT_SIZE
        return GenerationRequest(prompt=body.prompt, n=body.n, size=size, user=body.user)

    def _find(self, request: Request) -> Generation | None:
        generation_id = request.route.get("id", "").lower()
        return self._records.read(generation_id) if is_generation_id(generation_id) else None

    def _operation(self, generation: Generation) -> LegacyOperation:
        succeeded, failed = generation.status is Status.SUCCEEDED, generation.status is Status.FAILED
        return LegacyOperation(
            id=generation.id,
            status=generation.status,
            created=_unix(generation.created),
            expires=_unix(generation.created + self._retention) if generation.status.is_terminal else None,
            result=self._result(generation) if succeeded else None,
            error=generation.error if failed else None,
        )

    def _result(self, generation: Generation) -> LegacyResult:
        images = [self._image(image) for image in generation.images if image]
        return LegacyResult(created=_unix(generation.last_action), data=images)

    def _image(self, image: StoredImage | FailedImage) -> LegacyImage:
        failed = isinstance(image, FailedImage)
        return LegacyImage(error=image.error) if failed else LegacyImage(url=self._links.link(image))


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())
