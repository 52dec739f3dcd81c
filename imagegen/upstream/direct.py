"""An image API that returns the images in the response of one call.

Such a call is not idempotent: a repeated call is billed again. So nothing here repeats a call. The outcome says whether
the request may have reached the service, and the state machine decides.
"""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any, Final, cast

import ijson

from imagegen.deployments import Deployment
from imagegen.errors import FieldProblem
from imagegen.generation import MOST_IMAGES, Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.checks import check_model_list
from imagegen.upstream.disk_room import TEMPORARY_DISK, DiskRoom, Reservation
from imagegen.upstream.limits import Limits
from imagegen.upstream.masking import Mask
from imagegen.upstream.not_found import NotFoundCauses
from imagegen.upstream.protocol import (
    Answered,
    CheckProblem,
    Ended,
    ImageBytes,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Lost,
    Throttled,
    Unavailable,
)
from imagegen.upstream.refusals import refusal, throttle_of, unsendable
from imagegen.upstream.response import NoResponseError, UpstreamResponse
from imagegen.upstream.service_errors import read_error_without_images, read_refused_image
from imagegen.upstream.session import (
    NotSentError,
    ResponseTooLongError,
    TemporaryFileError,
    UndecodableError,
    UnsendableError,
    UpstreamSession,
)

READ_SECONDS: Final = 290
"""Read timeout. Large images take up to 250 seconds, in which the service sends nothing."""

CALL_SECONDS: Final = READ_SECONDS + 30
"""Longest time from the request to the last byte of the images."""

_BUFFER: Final = 1 << 22
"""Bytes that the JSON parser reads at a time. With its default of 64 KiB, strings of 20 MB take 30 times longer."""
_DEEPEST: Final = 64
"""Levels of JSON. The API has four."""
_PARSER: Final[dict[str, Any]] = {
    "buf_size": _BUFFER,
    # With exact numbers, a number of more than 4,300 digits crashes the process (ijson 3.6.0, yajl2_c), and a huge
    # exponent raises an error that is not ijson.JSONError.
    "use_float": True,
}
_LIKELY_IMAGE: Final = 20 * 2**20
"""Bytes. The largest images of these models have about this size; MAX_IMAGE_BYTES allows more."""
_LONGEST_ERROR: Final = 1 << 16
"""Bytes of a response without images that are read for an error."""
_NO_ROOM_SECONDS: Final = 10.0
"""Wait of a call that has no room on the temporary disk."""


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
    not_found: NotFoundCauses
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
    max_image_bytes
        The largest image. It limits the length of a response.
    disk
        The temporary disk, which holds the responses.
    """

    def __init__(
        self,
        deployment: Deployment,
        api: DirectApi,
        *,
        connections: int,
        max_image_bytes: int,
        disk: DiskRoom = TEMPORARY_DISK,
    ) -> None:
        self._deployment = deployment
        self._api = api
        # Base64 needs four bytes for three. The rest of a response is small.
        self._most_bytes = _in_base64(max_image_bytes) * api.limits.most_images + (1 << 20)
        self._likely_image = min(max_image_bytes, _LIKELY_IMAGE)
        self._disk = disk
        self._session = UpstreamSession(deployment, connections=connections, bearer_key=api.bearer_key)

    @property
    def limits(self) -> Limits:
        return self._api.limits

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        self.limits.check(request, self._deployment.name, more=self._api.rules(request))
        missing = {name: value for name, value in self._api.defaults.items() if getattr(request, name) is None}
        return request.model_copy(update={**missing, "model": self._deployment.name})

    def check(self) -> CheckProblem | None:
        return check_model_list(self._session, self._deployment)

    def generate(self, generation: Generation) -> Answered | Ended | Throttled | Unavailable | Lost:
        """Make the call. It takes 10 to 250 seconds."""
        # The response in base64, and the copy of the image that is being checked.
        size = _in_base64(self._likely_image) * generation.request.n + self._likely_image
        room = self._disk.reserve(size)
        if room is None:
            return Unavailable("no room for the response on the temporary disk", _NO_ROOM_SECONDS)
        with ExitStack() as stack:
            stack.enter_context(room)
            spool = stack.enter_context(SpooledTemporaryFile(max_size=_BUFFER))
            outcome = self._generate(generation, spool, room)
            if isinstance(outcome, Answered):
                stack.pop_all()  # `_images` closes them after the last image
            return outcome

    def _generate(
        self, generation: Generation, spool: SpooledTemporaryFile[bytes], room: Reservation
    ) -> Answered | Ended | Throttled | Unavailable | Lost:
        try:
            response = self._call(generation, spool)
            if response.status == 200:
                return _answered(spool, response, room)
            return _outcome(response, self._api.not_found)
        except UnsendableError as error:
            return unsendable(error)
        except NotSentError as error:
            return Unavailable(str(error))
        except ResponseTooLongError as error:
            # Not retried: the call was billed, and the next response would be as long.
            message = f"The image service sent {error}. Ask for a smaller image, or raise MAX_IMAGE_BYTES."
            return Ended(Status.FAILED, GenerationError(code="imageTooLarge", message=message))
        except UndecodableError:
            return _unusable("200 with an encoding that its headers do not state")
        except (TemporaryFileError, OSError) as error:
            reason = error if isinstance(error, TemporaryFileError) else f"a temporary file failed ({error.strerror})"
            return Ended(Status.FAILED, GenerationError(code="internalError", message=f"{reason}."))
        except NoResponseError as error:
            return Lost(str(error))

    def _call(self, generation: Generation, spool: SpooledTemporaryFile[bytes]) -> UpstreamResponse:
        return self._session.send(
            "POST",
            self._api.url,
            event="upstream.called",
            generation_id=generation.id,
            read_seconds=READ_SECONDS,
            total_seconds=CALL_SECONDS,
            fresh=True,
            into=(spool, self._most_bytes),
            json=self._api.body(generation.request),
            headers={"x-ms-client-request-id": generation.id},
        )


def _in_base64(size: int) -> int:
    return size * 4 // 3


def _answered(
    spool: SpooledTemporaryFile[bytes], response: UpstreamResponse, room: Reservation
) -> Answered | Ended | Lost:
    """Parse the response twice: first to see that it is complete, then one image at a time."""
    start = _skip_byte_order_mark(spool)
    # Without a length, the start of an object may be a response that was cut. Any other has arrived as it was sent.
    may_be_cut = not response.has_length and spool.read(1) in (b"", b"{")
    spool.seek(start)
    try:
        count, usage = 0, dict[str, int]()
        events = cast("Iterator[tuple[str, str, object]]", ijson.parse(_shallow(ijson.basic_parse(spool, **_PARSER))))
        for prefix, event, value in events:
            count += (prefix, event) == ("data.item", "start_map")
            if prefix.startswith("usage.") and isinstance(value, int) and not isinstance(value, bool):
                usage[prefix.removeprefix("usage.")] = value
    except ijson.IncompleteJSONError:
        # ijson raises this error for any other text, too.
        if may_be_cut:
            return Lost("status 200 with a body that breaks off")
        return _incomprehensible(response)
    except (ijson.JSONError, ValueError, RecursionError):
        return _incomprehensible(response)
    if count == 0:
        spool.seek(start)
        refused = ImageRefused(read_error_without_images(spool.read(_LONGEST_ERROR), response.mask))
        spool.close()
        room.release()
        return Answered((refused,))
    return Answered(_images(spool, start, room, response.mask), usage=usage or None)


def _shallow(events: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """Raise ValueError on deep nesting: the prefixes of ijson would take memory with the square of the depth."""
    depth = 0
    for event, value in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > _DEEPEST:
            raise ValueError("nested too deep")
        yield event, value


def _skip_byte_order_mark(spool: SpooledTemporaryFile[bytes]) -> int:
    """Move to the start of the JSON. Return its position."""
    spool.seek(0)
    start = len(codecs.BOM_UTF8) if spool.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
    spool.seek(start)
    return start


def _incomprehensible(response: UpstreamResponse) -> Ended:
    """The end of a generation whose call was answered, and perhaps billed, with something else than images."""
    return _unusable(f"{response.status} with {response.kind}")


def _unusable(answer: str) -> Ended:
    message = (
        f"The image service answered {answer}, which is not the JSON of this API. "
        "Check the endpoint and the API in the settings. The call may have been billed; the app did not repeat it."
    )
    return Ended(Status.FAILED, GenerationError(code="upstreamAnswerInvalid", message=message))


def _images(spool: SpooledTemporaryFile[bytes], start: int, room: Reservation, mask: Mask) -> Iterator[ImageSource]:
    """The images one by one, so that memory holds one image and its base64."""
    with spool, room:
        spool.seek(start)
        # A request asks for at most this many: more is a fault of the service, and must not fill the storage account.
        for item in islice(ijson.items(spool, "data.item", **_PARSER), MOST_IMAGES):
            yield _image(cast("dict[str, Any]", item) if isinstance(item, dict) else {}, mask)


def _image(item: dict[str, Any], mask: Mask) -> ImageSource:
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
    return ImageRefused(read_refused_image(item, default_code="noImage", mask=mask))


# Microsoft bills a call that was processed, even if its status is not 200 (manage-costs: 400 and 408, but not 401 and
# 429). So a status is listed here only if its meaning excludes that the service has worked:
# - 409, 425: the service refused the request for the moment.
# - 529: overloaded; the request was not processed.
# - 521, 523, 525, 526: a gateway could not connect to the service, or not agree with it on TLS.
# 522 is not here: it includes a connection that broke after the request was sent. Nor are 520, 530 and all unassigned
# statuses, whose cause is unknown, nor 507, which may follow after the work. 503 and 500 depend on the body.
_DID_NOTHING: Final = frozenset({409, 425, 521, 523, 525, 526, 529})
"""Statuses after which a repeated call is not billed twice. docs/reliability.md has the table of all statuses."""

_UNSUPPORTED: Final = frozenset({501, 505})
"""The server does not know the method or the version of HTTP. It did nothing, and a retry does not change that."""


def _outcome(response: UpstreamResponse, not_found: NotFoundCauses) -> Ended | Throttled | Unavailable | Lost:
    """The outcome of any status other than 200."""
    status, now = response.status, datetime.now(UTC)
    if throttled := throttle_of(response, now):
        return throttled
    retry_after = response.retry_after(now)
    # With the error object of the API, a 500 is the service's own failure, and a 503 its overload: it made no image.
    # Without it, they come from a gateway, which answers the same when it lost the service's response. A gateway that
    # sends Retry-After did not pass the request on. The words "try again in 30 seconds" do not say so.
    by_service = response.states_own_failure or (status == 503 and response.retry_after_header(now) is not None)
    if status in _DID_NOTHING or (status in (500, 503) and by_service):
        return Unavailable(f"status {status}", retry_after, response.code)
    if status in (408, 499) or (status >= 500 and status not in _UNSUPPORTED):
        # A proxy or a front door stopped waiting. The service may have continued, and bills the images.
        return Lost(f"status {status}", response.sentence)
    if status < 400:
        return _incomprehensible(response)
    return Ended(Status.FAILED, refusal(response, not_found))
