"""The asynchronous API of 2023: submit, then poll ``operation-location``.

Azure retired it with DALL·E 2; compatible gateways and the emulator speak it. Source: the API's OpenAPI file,
versions 2023-06-01-preview to 2023-10-01-preview.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from imagegen.deployments import Deployment
from imagegen.generation import Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.checks import Checks
from imagegen.upstream.http import Answer, NoAnswerError, UpstreamSession, absolute, read_error
from imagegen.upstream.protocol import (
    Accepted,
    Ended,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Limits,
    Produced,
    Throttled,
    Unavailable,
    Working,
)
from imagegen.urls import origin_of

SIZES: Final = ("256x256", "512x512", "1024x1024")
LONGEST_PROMPT: Final = 1_000
MOST_IMAGES: Final = 5

NOT_VISIBLE_YET: Final = timedelta(seconds=30)
"""For so long after the submit, a 404 of the operation may mean that it is not visible yet."""

_NO_OPERATION: Final = "00000000-0000-0000-0000-000000000000"
_FOREIGN_FIELDS = ("quality", "output_format", "output_compression", "background", "style")


class OperationsUpstream:
    """One deployment that speaks the asynchronous API.

    Parameters
    ----------
    allowed_origins
        Beside the endpoint's own, the origins that the credential may be sent to.
    connections
        How many threads ask at once.
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
        return Limits(sizes=SIZES, most_images=MOST_IMAGES, longest_prompt=LONGEST_PROMPT, fields=("user",))

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        checks = Checks(request, self._deployment.name).unknown(*_FOREIGN_FIELDS)
        checks.longest_prompt(LONGEST_PROMPT).most_images(MOST_IMAGES).one_of("size", SIZES).raise_if_any()
        return request.model_copy(update={"size": request.size or SIZES[-1], "model": self._deployment.name})

    def check(self) -> str | None:
        deployment = self._deployment
        url = f"{deployment.endpoint}/openai/operations/images/{_NO_OPERATION}?api-version={deployment.api_version}"
        try:
            answer = self._session.send("GET", url, event="upstream.checked", generation_id=_NO_OPERATION)
        except NoAnswerError as error:
            return f"AZURE_OPENAI_ENDPOINT is out of reach: {error}"
        if answer.status in (401, 403):
            return f"the service answered {answer.status}. {_TO_MEND[answer.status][1]}"
        # 404 is the right answer: there is no such operation, and the service said so.
        return f"the service answered {answer.status}" if answer.status >= 500 else None

    def submit(self, generation: Generation) -> Accepted | Ended | Throttled | Unavailable:
        try:
            answer = self._session.send(
                "POST",
                self._submit_url,
                event="upstream.submitted",
                generation_id=generation.id,
                headers={"Operation-Id": generation.id},
                json=_body(generation.request),
            )
            return self._submitted(answer)
        except NoAnswerError as error:
            return Unavailable(str(error))

    def _submitted(self, answer: Answer) -> Accepted | Ended | Throttled | Unavailable:
        # The status decides before any header is looked at: only a 202 has an operation-location.
        if answer.status == 202:
            return self._accepted(answer)
        if answer.status == 429:
            return Throttled("status 429", answer.retry_after(datetime.now(UTC)))
        if _is_transient(answer.status):
            return Unavailable(f"status {answer.status}", answer.retry_after(datetime.now(UTC)))
        return Ended(Status.FAILED, _submit_error(answer))

    def _accepted(self, answer: Answer) -> Accepted | Ended:
        location = answer.headers.get("operation-location", "").strip()
        if not location:
            return _failed(
                "operationLocationMissing",
                "The image service accepted the request but gave no operation-location header, so that its result "
                "cannot be found. Check that AZURE_OPENAI_ENDPOINT is an endpoint of the asynchronous image API.",
            )
        try:
            location = absolute(location, self._submit_url)
            origin = origin_of(location)
        except ValueError:
            return _failed("operationLocationInvalid", "The image service gave an operation-location that is no URL.")
        if origin not in self._origins:
            # The poll carries the credential: whoever can write this header must not be able to collect keys.
            return _failed(
                "operationLocationNotAllowed",
                f"The image service asked us to poll {origin}, which is not the origin of AZURE_OPENAI_ENDPOINT. If "
                "that is right, add it to OPERATION_LOCATION_ALLOWED_ORIGINS.",
            )
        return Accepted(location, answer.retry_after(datetime.now(UTC)))

    def poll(self, generation: Generation, now: datetime) -> Working | Produced | Ended | Unavailable:
        assert generation.operation_location is not None  # noqa: S101 - the state machine polls what was accepted
        try:
            answer = self._session.send(
                "GET", generation.operation_location, event="upstream.polled", generation_id=generation.id
            )
            if answer.status == 200:
                return _operation(answer, now)
        except NoAnswerError as error:
            return Unavailable(str(error))
        if answer.status == 404 and not _may_be_invisible(generation, now):
            return _failed(
                "operationNotFound", "The image service no longer knows the operation: it expired or was deleted."
            )
        # Anything else says nothing of the operation, which is running and paid for: not even a 401 ends it, because
        # a key that is being rotated will work again.
        return Unavailable(f"status {answer.status}", answer.retry_after(now))


def _body(request: GenerationRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": request.prompt, "n": request.n, "size": request.size}
    return body | ({"user": request.user} if request.user else {})


def _is_transient(status: int) -> bool:
    return status in (408, 409, 425) or status >= 500


def _may_be_invisible(generation: Generation, now: datetime) -> bool:
    return generation.submitted is None or now - generation.submitted < NOT_VISIBLE_YET


def _failed(code: str, message: str) -> Ended:
    return Ended(Status.FAILED, GenerationError(code=code, message=message))


_TO_MEND = {
    401: ("upstreamUnauthorized", "Check AZURE_OPENAI_API_KEY, or the identity's role on the image service."),
    403: ("upstreamForbidden", "Check the identity's role on the image service, and its network rules."),
    404: ("upstreamNotFound", "Check AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_API and AZURE_OPENAI_API_VERSION."),
}


def _submit_error(answer: Answer) -> GenerationError:
    if answer.status not in _TO_MEND:
        # What is left is the caller's request (400) or an answer that this API does not have (3xx, 2xx).
        error = answer.error
        known = answer.status == 400 and error.code == "http400"
        return error.model_copy(update={"code": "invalidPayload"}) if known else error
    code, hint = _TO_MEND[answer.status]
    return GenerationError(
        code=code,
        message=f"The image service answered {answer.status} ({answer.error.code}). {hint}",
        innererror={"code": answer.error.code, "message": answer.error.message},
    )


def _operation(answer: Answer, now: datetime) -> Working | Produced | Ended:
    operation = answer.json()
    match str(operation.get("status", "")).lower():
        case "succeeded":
            return _produced(operation)
        case "failed":
            return Ended(Status.FAILED, read_error(operation.get("error")))
        case "canceled" | "cancelled":
            return Ended(Status.CANCELED)
        case "deleted":
            return _failed("operationDeleted", "The operation was deleted at the image service before it was copied.")
        case _:
            # notRunning, running, or a word of a later version: it has not ended in any way that we know.
            return Working(answer.retry_after(now))


def _produced(operation: dict[str, Any]) -> Produced | Ended:
    result = operation.get("result")
    listed = cast("dict[str, Any]", result).get("data") if isinstance(result, dict) else None
    sources = tuple(_source(item) for item in cast("list[Any]", listed)) if isinstance(listed, list) else ()
    if not sources:
        return _failed("noImages", "The image service says that it succeeded, and lists no image.")
    return Produced(sources, _moment(operation.get("expires")))


def _moment(stated: object) -> datetime | None:
    """Unix seconds; None for anything that is no moment after the year 1970."""
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated <= 0:
        return None
    try:
        return datetime.fromtimestamp(stated, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _source(item: object) -> ImageSource:
    fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    if isinstance(url := fields.get("url"), str) and url:
        revised = fields.get("revised_prompt")
        return ImageUrl(url, revised if isinstance(revised, str) else None)
    if "error" in fields:
        return ImageRefused(read_error(fields["error"]))
    return ImageRefused(
        GenerationError(code="noImage", message="The image service listed an image with neither url nor error.")
    )
