"""An image API that returns the images in the response of one call.

Such a call is not idempotent: a repeated call is billed again. So nothing here repeats a call. The outcome says whether
the request may have reached the service, and the state machine decides.
"""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import Any, Final, cast

import ijson

from imagegen.deployments import Deployment
from imagegen.errors import FieldProblem
from imagegen.generation import Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.limits import Limits
from imagegen.upstream.protocol import (
    Answered,
    Ended,
    ImageBytes,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Lost,
    Throttled,
    Unavailable,
)
from imagegen.upstream.response import NoResponseError, UpstreamResponse, read_error
from imagegen.upstream.session import NotSentError, ResponseTooLongError, TemporaryFileError, UpstreamSession

READ_SECONDS: Final = 290
"""Read timeout. Large images take up to 250 seconds, in which the service sends nothing."""

_BUFFER: Final = 1 << 22
"""Bytes that the JSON parser reads at a time. With its default of 64 KiB, strings of 20 MB take 30 times longer."""
_PARSER: Final[dict[str, Any]] = {
    "buf_size": _BUFFER,
    # With exact numbers, a number of more than 4,300 digits crashes the process (ijson 3.6.0, yajl2_c), and a huge
    # exponent raises an error that is not ijson.JSONError.
    "use_float": True,
}
_BLOCKED_SECONDS: Final = 300.0
"""Pause after the service has blocked the whole resource temporarily."""


def _no_rules(_: GenerationRequest) -> Iterable[FieldProblem]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectApi:
    """What one API has of its own: its route, its request body and its limits."""

    url: str
    fields: Callable[[GenerationRequest], Mapping[str, Any]]
    """The fields of the request body. Those that are None are not sent."""
    limits: Limits
    defaults: Mapping[str, str]
    """Values of fields that the caller left out."""
    rules: Callable[[GenerationRequest], Iterable[FieldProblem]] = _no_rules
    """Problems that `limits` cannot express, such as fields that exclude each other."""
    bearer_key: bool = False
    """Send a key as ``Authorization: Bearer``."""

    def body(self, request: GenerationRequest) -> dict[str, Any]:
        """The JSON of the request."""
        return {name: value for name, value in self.fields(request).items() if value is not None}


class DirectUpstream:
    """One deployment of a direct API.

    Parameters
    ----------
    connections
        The number of threads that call at the same time.
    most_bytes
        The longest response, in bytes.
    """

    def __init__(self, deployment: Deployment, api: DirectApi, *, connections: int, most_bytes: int) -> None:
        self._deployment = deployment
        self._api = api
        self._most_bytes = most_bytes
        self._session = UpstreamSession(deployment, connections=connections, bearer_key=api.bearer_key)

    @property
    def limits(self) -> Limits:
        return self._api.limits

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        self.limits.check(request, self._deployment.name, more=self._api.rules(request))
        missing = {name: value for name, value in self._api.defaults.items() if getattr(request, name) is None}
        return request.model_copy(update={**missing, "model": self._deployment.name})

    def check(self) -> str | None:
        # Listing models is free. A host without such a list answers 404, which shows that the host is reachable.
        url = f"{self._deployment.endpoint}/openai/v1/models"
        try:
            response = self._session.send("GET", url, event="upstream.checked", generation_id="health")
        except NoResponseError as error:
            return f"the '{self._deployment.api}' API is out of reach: {error}. Check its endpoint in the settings."
        return response.health_problem

    def generate(self, generation: Generation) -> Answered | Ended | Throttled | Unavailable | Lost:
        """Make the call. It takes 10 to 250 seconds."""
        spool = SpooledTemporaryFile(max_size=_BUFFER)  # noqa: SIM115 - closed after the last image
        try:
            response = self._call(generation, spool)
            if response.status == 200:
                return _answered(spool, response)
            outcome = _outcome(response)
        except NotSentError as error:
            outcome = Unavailable(str(error))
        except ResponseTooLongError as error:
            # Not retried: the call was billed, and the next response would be as long.
            message = f"The image service sent {error}. Ask for a smaller image, or raise MAX_IMAGE_BYTES."
            outcome = Ended(Status.FAILED, GenerationError(code="imageTooLarge", message=message))
        except TemporaryFileError as error:
            outcome = Ended(Status.FAILED, GenerationError(code="internalError", message=f"{error}."))
        except NoResponseError as error:
            outcome = Lost(str(error))
        spool.close()
        return outcome

    def _call(self, generation: Generation, spool: SpooledTemporaryFile[bytes]) -> UpstreamResponse:
        return self._session.send(
            "POST",
            self._api.url,
            event="upstream.called",
            generation_id=generation.id,
            read_seconds=READ_SECONDS,
            into=(spool, self._most_bytes),
            json=self._api.body(generation.request),
            headers={"x-ms-client-request-id": generation.id},
        )


def _answered(spool: SpooledTemporaryFile[bytes], response: UpstreamResponse) -> Answered | Ended | Lost:
    """Parse the response twice: first to see that it is complete, then one image at a time."""
    start = _skip_byte_order_mark(spool)
    try:
        count, usage = 0, dict[str, int]()
        events = cast("Iterator[tuple[str, str, object]]", ijson.parse(spool, **_PARSER))
        for prefix, event, value in events:
            count += (prefix, event) == ("data.item", "start_map")
            if prefix.startswith("usage.") and isinstance(value, int) and not isinstance(value, bool):
                usage[prefix.removeprefix("usage.")] = value
    except ijson.IncompleteJSONError:
        spool.close()
        # A response without a length may have been cut. Any other has arrived as the service sent it.
        return _incomprehensible(response) if response.has_length else Lost("status 200 with a body that breaks off")
    except (ijson.JSONError, ValueError, RecursionError):
        spool.close()
        return _incomprehensible(response)
    if count == 0:
        spool.close()
        error = GenerationError(code="noImages", message="The response of the image service holds no image.")
        return Answered((ImageRefused(error),))
    return Answered(_images(spool, start), usage=usage or None)


def _skip_byte_order_mark(spool: SpooledTemporaryFile[bytes]) -> int:
    """Move to the start of the JSON. Return its position."""
    spool.seek(0)
    start = len(codecs.BOM_UTF8) if spool.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
    spool.seek(start)
    return start


def _incomprehensible(response: UpstreamResponse) -> Ended:
    """The end of a generation whose call was answered, and perhaps billed, with something else than images."""
    message = (
        f"The image service answered {response.status} with {response.media_type}, which is not the JSON of this API. "
        "Check the endpoint and the API in the settings. The call may have been billed; the app did not repeat it."
    )
    return Ended(Status.FAILED, GenerationError(code="upstreamAnswerInvalid", message=message))


def _images(spool: SpooledTemporaryFile[bytes], start: int) -> Iterator[ImageSource]:
    """The images one by one, so that memory holds one image and its base64."""
    with spool:
        spool.seek(start)
        for item in ijson.items(spool, "data.item", **_PARSER):
            yield _image(cast("dict[str, Any]", item) if isinstance(item, dict) else {})


def _image(item: dict[str, Any]) -> ImageSource:
    revised = item.get("revised_prompt")
    revised = revised if isinstance(revised, str) else None
    encoded = item.pop("b64_json", None)
    if isinstance(encoded, str) and encoded:
        try:
            return ImageBytes(base64.b64decode(encoded, validate=True), revised)
        except ValueError:  # of which binascii.Error is a subclass; characters outside ASCII raise ValueError itself
            return ImageRefused(GenerationError(code="notAnImage", message="the image is not base64"))
    if isinstance(url := item.get("url"), str) and url:
        return ImageUrl(url, revised)
    return ImageRefused(read_error(item.get("error"), default_code="noImage"))


_DID_NOTHING: Final = frozenset({409, 425, 500, 503, 521, 523, 525, 526, 529})
"""Statuses after which a repeated call is not billed twice. docs/reliability.md has the table of all statuses."""


def _outcome(response: UpstreamResponse) -> Ended | Throttled | Unavailable | Lost:
    """The outcome of any status other than 200."""
    status, error = response.status, response.error
    retry_after = response.retry_after(datetime.now(UTC))
    if status == 429:
        return Throttled("status 429", retry_after)
    if status == 403 and "temporarily blocked" in error.message.lower():
        # The service blocks the whole resource, and every call would extend the block.
        return Throttled("temporarily blocked", _BLOCKED_SECONDS)
    if status in _DID_NOTHING:
        return Unavailable(f"status {status}", retry_after)
    if status in (408, 499) or status >= 500:
        # A proxy or a front door stopped waiting. The service may have continued, and bills the images.
        return Lost(f"status {status}")
    if status < 400:
        return _incomprehensible(response)
    if configuration_error := response.configuration_error:
        return Ended(Status.FAILED, configuration_error)
    if status == 400 and error.code != "contentFilter":
        error = error.model_copy(update={"code": "invalidPayload", "innererror": {"code": error.code}})
    return Ended(Status.FAILED, error)
