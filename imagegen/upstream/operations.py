"""The asynchronous API of 2023: submit, then poll ``operation-location``.

Azure retired it with DALL·E 2. Compatible gateways and the emulator still offer it. Source: the API's OpenAPI file,
versions 2023-06-01-preview to 2023-10-01-preview.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

from imagegen.deployments import Deployment
from imagegen.generation import MOST_IMAGES, Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.checks import check_operations
from imagegen.upstream.limits import Limits
from imagegen.upstream.masking import Mask
from imagegen.upstream.not_found import NotFoundCauses, endpoint_cause, version_cause
from imagegen.upstream.protocol import (
    Accepted,
    CheckProblem,
    Ended,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Missing,
    Produced,
    Throttled,
    Unavailable,
    Working,
)
from imagegen.upstream.refusals import refusal, throttle_of, unsendable
from imagegen.upstream.response import NoResponseError, UpstreamResponse
from imagegen.upstream.service_errors import read_error, read_refused_image
from imagegen.upstream.session import UnsendableError, UpstreamSession
from imagegen.urls import origin_of

LIMITS: Final = Limits(
    sizes=("256x256", "512x512", "1024x1024"), most_images=5, longest_prompt=1_000, accepted={"user": None}
)
DEFAULT_SIZE: Final = "1024x1024"

MOST_SUBMITS: Final = 3
"""Submits, one after the other, of an operation that was accepted without a usable operation-location."""

_NO_LOCATION: Final = frozenset({"operationLocationMissing", "operationLocationInvalid"})


class OperationsUpstream:
    """One deployment of the asynchronous API.

    Parameters
    ----------
    allowed_origins
        Origins that may receive the credential, in addition to that of the endpoint.
    connections
        The number of threads that send at the same time.
    """

    def __init__(self, deployment: Deployment, *, allowed_origins: Iterable[str], connections: int) -> None:
        self._deployment = deployment
        self._origins = {origin_of(deployment.endpoint), *allowed_origins}
        self._session = UpstreamSession(deployment, connections=connections)
        self._submit_url = (
            f"{deployment.endpoint}/openai/images/generations:submit?api-version={deployment.api_version}"
        )

    @property
    def limits(self) -> Limits:
        return LIMITS

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        LIMITS.check(request, self._deployment.name)
        return request.model_copy(update={"size": request.size or DEFAULT_SIZE, "model": self._deployment.name})

    def check(self) -> CheckProblem | None:
        return check_operations(self._session, self._deployment)

    def submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        outcome = self._submit(generation)
        for _ in range(MOST_SUBMITS - 1):
            if not (isinstance(outcome, Ended) and outcome.error and outcome.error.code in _NO_LOCATION):
                break
            # The operation runs, and is billed. A submit with the same Operation-Id is answered with its location.
            outcome = self._submit(generation)
        return outcome

    def _submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        try:
            response = self._session.send(
                "POST",
                self._submit_url,
                event="upstream.submitted",
                generation_id=generation.id,
                headers={"Operation-Id": generation.id},
                json=_body(generation.request),
            )
            return self._submitted(response)
        except UnsendableError as error:
            return unsendable(error)
        except NoResponseError as error:
            return Unavailable(str(error))

    def _submitted(self, response: UpstreamResponse) -> Accepted | Ended | Throttled | Unavailable:
        # The status first: only the operation-location of a 202 counts.
        if response.status == 202:
            return self._accepted(response)
        now = datetime.now(UTC)
        if throttled := throttle_of(response, now):
            return throttled
        if response.status in (408, 409, 425) or response.status >= 500:
            return Unavailable(f"status {response.status}", response.retry_after(now), response.code)
        return Ended(Status.FAILED, refusal(response, _not_found(self._deployment)))

    def _accepted(self, response: UpstreamResponse) -> Accepted | Ended:
        header = response.headers.get("operation-location", "").strip()
        if not header:
            return _failed(
                "operationLocationMissing",
                "The image service accepted the request, but its response has no operation-location header. Check that "
                "AZURE_OPENAI_ENDPOINT is an endpoint of the asynchronous image API.",
            )
        try:
            location = header if urlsplit(header).scheme else urljoin(self._submit_url, header)
            origin = origin_of(location)
            location.encode("ascii")  # what a request can send; a failure is a ValueError
        except ValueError:
            return _failed(
                "operationLocationInvalid",
                "The operation-location of the image service is not a URL. Check that AZURE_OPENAI_ENDPOINT is an "
                "endpoint of the asynchronous image API.",
            )
        if origin not in self._origins:
            # A poll carries the credential. A forged header must not send it to another host.
            return _failed(
                "operationLocationNotAllowed",
                f"The operation-location of the image service is at {origin}, which is not the origin of "
                "AZURE_OPENAI_ENDPOINT. If this origin is right, add it to OPERATION_LOCATION_ALLOWED_ORIGINS.",
            )
        return Accepted(location, response.retry_after(datetime.now(UTC)))

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Missing | Unavailable:
        assert generation.operation_location is not None  # noqa: S101 - the state machine polls accepted operations
        if origin_of(generation.operation_location) not in self._origins:
            # Allowed when the operation was accepted, and not any more: it gets no credential.
            return Unavailable("origin of the operation-location not in OPERATION_LOCATION_ALLOWED_ORIGINS")
        try:
            response = self._session.send(
                "GET", generation.operation_location, event="upstream.polled", generation_id=generation.id
            )
            if response.status == 200:
                return _operation(response, now)
        except NoResponseError as error:
            return Unavailable(str(error))
        if response.status == 404:
            return Missing(response.retry_after(now))
        # Any other status says nothing about the operation, which is running and billed. A 401 does not end it either:
        # during a key rotation the next poll succeeds.
        return Unavailable(f"status {response.status}", response.retry_after(now), response.code)


def _body(request: GenerationRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": request.prompt, "n": request.n, "size": request.size}
    return body | ({"user": request.user} if request.user else {})


def _failed(code: str, message: str) -> Ended:
    return Ended(Status.FAILED, GenerationError(code=code, message=message))


def _not_found(deployment: Deployment) -> NotFoundCauses:
    api = (
        "The API (AZURE_OPENAI_API, or api in IMAGE_DEPLOYMENTS): Azure has retired 'operations'; only gateways and "
        "the emulator still have it. For gpt-image, use 'images'."
    )
    version = version_cause(deployment, examples="one from 2023-06-01-preview to 2023-10-01-preview")
    return NotFoundCauses(route=(api, endpoint_cause(deployment, example="https://gateway.example.com"), version))


def _operation(response: UpstreamResponse, now: datetime) -> Working | Produced | Ended:
    operation = response.json()
    match str(operation.get("status", "")).lower():
        case "succeeded":
            return _produced(operation, response.mask)
        case "failed":
            return Ended(Status.FAILED, read_error(operation.get("error"), mask=response.mask))
        case "canceled" | "cancelled":
            return Ended(Status.CANCELED)
        case "deleted":
            return _failed("operationDeleted", "The operation was deleted at the image service before it was copied.")
        case _:
            # notRunning, running, or a status of a later API version, which is not known to be final.
            return Working(response.retry_after(now))


def _produced(operation: dict[str, Any], mask: Mask) -> Produced | Ended:
    result = operation.get("result")
    listed = cast("dict[str, Any]", result).get("data") if isinstance(result, dict) else None
    # A request asks for at most this many: more is a fault of the service, and must not fill the storage account.
    items = cast("list[Any]", listed)[:MOST_IMAGES] if isinstance(listed, list) else []
    sources = tuple(_source(item, mask) for item in items)
    if not sources:
        return _failed("noImages", "The operation succeeded at the image service, but its result lists no image.")
    return Produced(sources, _time(operation.get("expires")))


def _time(stated: object) -> datetime | None:
    """The time of a Unix timestamp in seconds; None if it is invalid or not after 1970."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated <= 0:
        return None
    try:
        return datetime.fromtimestamp(stated, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _source(item: object, mask: Mask) -> ImageSource:
    fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    if isinstance(url := fields.get("url"), str) and url:
        revised = fields.get("revised_prompt")
        return ImageUrl(url, revised if isinstance(revised, str) else None)
    return ImageRefused(read_refused_image(fields, default_code="upstreamFailure", mask=mask))
