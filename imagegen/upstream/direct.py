"""What the live image APIs have in common: one call, and the images are in its answer.

There is no idempotency: a call that is repeated after its answer was lost is billed again. So nothing in here repeats a
call; an outcome says whether the request may have reached the service, and the state machine decides.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import Any, Final, cast

import ijson

from imagegen.deployments import Deployment
from imagegen.errors import ImageUnusableError
from imagegen.generation import Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.http import (
    Answer,
    NoAnswerError,
    NoRoomError,
    NotSentError,
    TooLongError,
    UpstreamSession,
    read_error,
)
from imagegen.upstream.protocol import (
    Answered,
    Ended,
    ImageBytes,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Limits,
    Lost,
    Throttled,
    Unavailable,
)

READ_SECONDS: Final = 290
"""How long a call may be silent: 250 s are seen for large images."""

_BUFFER: Final = 1 << 22
"""Bytes that the JSON parser takes at once. With its own 64 KiB it is 30 times slower on strings of 20 MB."""
_PARSER: Final[dict[str, Any]] = {
    "buf_size": _BUFFER,
    # Else a number of more than 4,300 digits ends the whole process (ijson 3.6.0, yajl2_c), and one with a huge
    # exponent raises what is no JSON error.
    "use_float": True,
}
_BLOCKED_SECONDS: Final = 300.0
"""How long a service that blocked us for a while is left alone."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one API differs from the others."""

    url: str
    body: Callable[[GenerationRequest], dict[str, Any]]
    """The JSON that is sent."""
    complete: Callable[[GenerationRequest], GenerationRequest]
    """The request with defaults filled in; raises RequestError."""
    limits: Limits
    bearer_key: bool = False
    """Whether a key is sent as ``Authorization: Bearer``."""


class DirectUpstream:
    """One deployment whose answer has the images in it.

    Parameters
    ----------
    connections
        How many threads call at once.
    most_bytes
        The most that one answer may have.
    """

    def __init__(self, deployment: Deployment, dialect: Dialect, *, connections: int, most_bytes: int) -> None:
        self._deployment = deployment
        self._dialect = dialect
        self._most_bytes = most_bytes
        self._session = UpstreamSession(deployment, connections=connections, bearer_key=dialect.bearer_key)

    @property
    def limits(self) -> Limits:
        return self._dialect.limits

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        return self._dialect.complete(request).model_copy(update={"model": self._deployment.name})

    def check(self) -> str | None:
        # Listing models is free. A host that has no such list answers 404, which also says that it is there.
        url = f"{self._deployment.endpoint}/openai/v1/models"
        try:
            answer = self._session.send("GET", url, event="upstream.checked", generation_id="health")
        except NoAnswerError as error:
            return f"the endpoint of the '{self._deployment.api}' API is out of reach: {error}"
        if answer.status in _TO_MEND and answer.status != 404:
            return f"the service answered {answer.status}. {_TO_MEND[answer.status][1]}"
        return f"the service answered {answer.status}" if answer.status >= 500 else None

    def generate(self, generation: Generation) -> Answered | Ended | Throttled | Unavailable | Lost:
        """Make the call. It takes 10 to 250 seconds."""
        spool = SpooledTemporaryFile(max_size=_BUFFER)  # noqa: SIM115 - closed when the last image was taken
        try:
            answer = self._session.send(
                "POST",
                self._dialect.url,
                event="upstream.called",
                generation_id=generation.id,
                read_seconds=READ_SECONDS,
                into=(spool, self._most_bytes),
                json=self._dialect.body(generation.request),
                headers={"x-ms-client-request-id": generation.id},
            )
            if answer.status == 200:
                return _answered(spool)
        except NotSentError as error:
            spool.close()
            return Unavailable(str(error))
        except TooLongError as error:
            # Billed, and it would be as long, and billed, again.
            spool.close()
            message = f"The image service sent {error} (MAX_IMAGE_BYTES)."
            return Ended(Status.FAILED, GenerationError(code="imageTooLarge", message=message))
        except NoRoomError as error:
            spool.close()
            return Ended(Status.FAILED, GenerationError(code="internalError", message=f"{error}."))
        except NoAnswerError as error:
            spool.close()
            return Lost(str(error))
        spool.close()
        return _refused(answer)


def _answered(spool: SpooledTemporaryFile[bytes]) -> Answered:
    """Read the answer twice: once to see that it is whole, then an image at a time."""
    spool.seek(0)
    try:
        count, usage = 0, dict[str, int]()
        events = cast("Iterator[tuple[str, str, object]]", ijson.parse(spool, **_PARSER))
        for prefix, event, value in events:
            count += (prefix, event) == ("data.item", "start_map")
            if prefix.startswith("usage.") and isinstance(value, int) and not isinstance(value, bool):
                usage[prefix.removeprefix("usage.")] = value
    except (ijson.JSONError, ValueError, RecursionError):
        raise NoAnswerError("status 200 with a body that is not the JSON of an answer") from None
    if count == 0:
        spool.close()
        error = GenerationError(code="noImages", message="The image service answered without any image.")
        return Answered((ImageRefused(error),))
    return Answered(_images(spool), usage=usage or None)


def _images(spool: SpooledTemporaryFile[bytes]) -> Iterator[ImageSource]:
    """Each image in turn, so that one is in memory at a time, beside its base64."""
    with spool:
        spool.seek(0)
        for item in ijson.items(spool, "data.item", **_PARSER):
            yield _image(cast("dict[str, Any]", item) if isinstance(item, dict) else {})


def _image(item: dict[str, Any]) -> ImageSource:
    revised = item.get("revised_prompt")
    revised = revised if isinstance(revised, str) else None
    encoded = item.pop("b64_json", None)
    if isinstance(encoded, str) and encoded:
        try:
            return ImageBytes(base64.b64decode(encoded, validate=True), revised)
        except ValueError:  # binascii.Error is one; of characters that are not ASCII it is no more than that
            error = ImageUnusableError("notAnImage", "the image is not base64", again=False)
            return ImageRefused(GenerationError(code=error.code, message=error.message))
    if isinstance(url := item.get("url"), str) and url:
        return ImageUrl(url, revised)
    return ImageRefused(read_error(item.get("error"), default_code="noImage"))


_TO_MEND: Final = {
    401: (
        "upstreamUnauthorized",
        "Check the key of the deployment, or the role of the app's identity on the image service.",
    ),
    403: ("upstreamForbidden", "Check the role of the app's identity on the image service, and its network rules."),
    404: ("upstreamNotFound", "Check the endpoint, the name of the deployment and the API version."),
}


def _refused(answer: Answer) -> Ended | Throttled | Unavailable | Lost:
    error = answer.error
    if answer.status == 429:
        return Throttled("status 429", answer.retry_after(datetime.now(UTC)))
    if answer.status == 403 and "temporarily blocked" in error.message.lower():
        # The whole resource: every call now would prolong it.
        return Throttled("temporarily blocked", _BLOCKED_SECONDS)
    if answer.status in (408, 502, 504):
        # Somebody on the way gave up waiting. The service itself may have gone on, and bills what it made.
        return Lost(f"status {answer.status}")
    if answer.status in (409, 425) or answer.status >= 500:
        return Unavailable(f"status {answer.status}", answer.retry_after(datetime.now(UTC)))
    if answer.status in _TO_MEND:
        code, hint = _TO_MEND[answer.status]
        message = f"The image service answered {answer.status} ({error.code}). {hint}"
        inner = {"code": error.code, "message": error.message}
        return Ended(Status.FAILED, GenerationError(code=code, message=message, innererror=inner))
    if answer.status == 400 and error.code != "contentFilter":
        error = error.model_copy(update={"code": "invalidPayload", "innererror": {"code": error.code}})
    return Ended(Status.FAILED, error)
