"""The asynchronous image API that Azure retired, kept alive for the clients that were written for it.

Their endpoint becomes ``https://{host}/api``. Source: the API's OpenAPI file, 2023-06-01-preview.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import quote

from imagegen.deployments import ImageApi
from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import FailedImage, Generation, GenerationRequest, Status, StoredImage, is_generation_id
from imagegen.idempotency import read_key
from imagegen.settings import Settings
from imagegen.upstream.operations import DEFAULT_SIZE, LIMITS
from imagegen.web.http import HttpError, Request, Response, base_url
from imagegen.web.monitor import Links, Monitors
from imagegen.web.parsing import parse_start
from imagegen.web.routes import Generations

_VERSION: Final = re.compile(r"2023-\d\d-\d\d-preview")
_FIELDS: Final = frozenset({"prompt", "n", "size", "user"})


class Records(Protocol):
    def read(self, generation_id: str) -> Generation | None: ...


class LegacyRoutes:
    """Answers as the retired service did."""

    def __init__(
        self,
        *,
        settings: Settings,
        generations: Generations,
        records: Records,
        links: Links,
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
        version = self._admit(request)
        base = base_url(request, self._settings)
        headers = {name: value for name, value in request.headers.items() if name == "operation-id"}
        key = read_key(headers)
        asked = parse_start(request)
        if foreign := sorted(asked.model_fields_set - _FIELDS):
            raise RequestError.for_fields([FieldProblem(name, "is not a field of this API") for name in foreign])
        wanted = _fitting(asked.request, self._settings.deployments[0].api)
        timeout = timedelta(seconds=self._settings.generation_timeout_seconds)
        generation = self._generations.start(wanted, metadata={}, timeout=timeout, key=key)
        location = f"{base}/openai/operations/images/{generation.id}?api-version={quote(version)}"
        # Nothing has run when a client sees this answer, whatever has happened since.
        return Response(202, {"id": generation.id, "status": Status.NOT_RUNNING}, {"operation-location": location})

    def get_operation(self, request: Request) -> Response:
        """``GET /openai/operations/images/{id}``: 200 with the operation."""
        self._admit(request)
        generation = self._find(request)
        if generation is None:
            raise HttpError(404, "notFound", "There is no such operation.")
        return Response(200, self._operation(generation), self._monitors.retry_after(generation))

    def delete_operation(self, request: Request) -> Response:
        """``DELETE /openai/operations/images/{id}``: 204."""
        self._admit(request)
        if generation := self._find(request):
            self._generations.delete(generation)
        return Response(204)

    def _admit(self, request: Request) -> str:
        """The api-version, of a caller who has a key."""
        keys = self._settings.compat_api_keys
        version = request.query.get("api-version", "")
        if not keys or not _VERSION.fullmatch(version):
            # What Azure says of a resource that is not there, or that this api-version does not have.
            raise HttpError(404, "404", "Resource not found")
        given = request.headers.get("api-key", "").encode("utf-8", "replace")
        # Each key is compared, and none in a time that tells how much of it was right.
        matches = [hmac.compare_digest(key.get_secret_value().encode(), given) for key in keys]
        if not any(matches):
            message = "Access denied: the api-key header is missing or not one of COMPAT_API_KEYS."
            raise HttpError(401, "401", message)
        return version

    def _find(self, request: Request) -> Generation | None:
        generation_id = request.route.get("id", "").lower()
        return self._records.read(generation_id) if is_generation_id(generation_id) else None

    def _operation(self, generation: Generation) -> dict[str, Any]:
        operation: dict[str, Any] = {
            "id": generation.id,
            "status": generation.status.value,
            "created": _unix(generation.created),
        }
        if generation.status.is_terminal:
            operation["expires"] = _unix(generation.created + self._retention)
        if generation.status is Status.SUCCEEDED:
            data = [self._image(image) for image in generation.images if image]
            operation["result"] = {"created": _unix(generation.last_action), "data": data}
        if generation.status is Status.FAILED and generation.error:
            operation["error"] = generation.error.to_json()
        return operation

    def _image(self, image: StoredImage | FailedImage) -> dict[str, Any]:
        return image.to_json() if isinstance(image, FailedImage) else {"url": self._links.link(image)}


def _fitting(request: GenerationRequest, api: ImageApi) -> GenerationRequest:
    """The request, in words of the model that stands behind this API today.

    The retired model made pictures of 256, 512 and 1024 pixels; those that live make none below 1024.

    Raises
    ------
    RequestError
        When it is not a request that the retired API would have taken.
    """
    LIMITS.check(request, "dall-e-2")
    return request if api is ImageApi.OPERATIONS else request.model_copy(update={"size": DEFAULT_SIZE})


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())
