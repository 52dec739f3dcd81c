"""Speaking to an image service: pooled connections, credentials, and what its answers mean."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from ssl import SSLCertVerificationError
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

import requests
from azure.core.exceptions import AzureError
from pydantic_core import from_json
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, SSLError

from imagegen.deployments import Deployment
from imagegen.events import log_event
from imagegen.generation import GenerationError
from imagegen.upstream.verbatim import VerbatimAdapter

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_ANSWER_SECONDS = 40
"""From the request to the end of the answer, at most."""
_TRANSFER_SECONDS = 30
"""The same for an answer that holds images, beside the silence before it."""
_CHUNK = 1 << 16
_LONGEST_ANSWER = 1 << 20
"""Bytes. A JSON answer of this API is a few kilobytes; something that sends more is not the API."""
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_FILTER_CODES = frozenset({"contentfilter", "content_filter", "content_policy_violation", "moderation_blocked"})


class NoAnswerError(Exception):
    """The network failed, or the answer was not one. Holds no URL and no credential."""


class NotSentError(NoAnswerError):
    """The same, and the request surely did not reach the service."""


class TooLongError(NoAnswerError):
    """The answer has more bytes than are taken: it would have them again."""


class NoRoomError(NoAnswerError):
    """The answer could not be kept on this machine."""


class _Credential(AuthBase):
    """Adds the key or a bearer token. Being set, it also keeps requests from looking into a .netrc."""

    def __init__(self, deployment: Deployment, *, bearer_key: bool) -> None:
        self._bearer_key = bearer_key
        self._key = deployment.api_key
        self._scope = deployment.scope
        self._token: Callable[[], str] | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._key and self._bearer_key:
            request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        elif self._key:
            request.headers["api-key"] = self._key.get_secret_value()
        else:
            request.headers["Authorization"] = f"Bearer {self._bearer_token()}"
        return request

    def _bearer_token(self) -> str:
        if self._token is None:
            # Imported here: an app with a key does not pay for it at cold start.
            from azure.identity import DefaultAzureCredential, get_bearer_token_provider

            self._token = get_bearer_token_provider(DefaultAzureCredential(), self._scope)
        return self._token()


class Answer:
    """An HTTP answer, read to its end."""

    def __init__(self, response: Response, body: bytes) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._body = body

    @property
    def request_id(self) -> str | None:
        """What the service's operators ask for."""
        return self.headers.get("x-ms-request-id") or self.headers.get("apim-request-id")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises
        ------
        NoAnswerError
            When it is none.
        """
        try:
            # Not json.loads: a lone surrogate, or nesting without end, could be read but never be written again.
            value = from_json(self._body, allow_inf_nan=False)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise NoAnswerError(f"status {self.status} with a body that is not a JSON object")
        return cast("dict[str, Any]", value)

    @property
    def error(self) -> GenerationError:
        """What the body says is wrong; made from the status where it says nothing."""
        try:
            stated = self.json().get("error")
        except NoAnswerError:
            stated = None
        return read_error(stated, default_code=f"http{self.status}")

    def retry_after(self, now: datetime) -> float | None:
        """Seconds to wait, as told in milliseconds, in seconds or as an HTTP date; None when not told."""
        milliseconds = self.headers.get("retry-after-ms", "").strip()
        if milliseconds.isascii() and milliseconds.isdigit():
            return float(milliseconds) / 1000
        return parse_retry_after(self.headers.get("retry-after"), now)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header, a number or an HTTP date; None when missing or neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def read_error(stated: object, *, default_code: str = "upstreamFailure") -> GenerationError:
    """The service's error, whatever it left out; the spellings of a refused prompt become ``contentFilter``."""
    fields = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {"message": stated}
    code = str(fields.get("code") or default_code)
    if not _CODE.fullmatch(code):
        code = default_code  # it goes into a header of ours
    inner = fields.get("innererror") or fields.get("inner_error")
    inner = cast("dict[str, Any]", inner) if isinstance(inner, dict) and _is_modest(cast("object", inner)) else None
    if code.lower() in _FILTER_CODES:
        inner = inner or {"code": code}
        code = "contentFilter"
    message = fields.get("message")
    message = message if isinstance(message, str) and message else "The image service gave no reason."
    return GenerationError(code=code, message=message[:2_000], innererror=inner)


def _is_modest(value: object, depth: int = 12) -> bool:
    """Whether this is small enough to stand in a record: somebody else wrote it."""
    if isinstance(value, dict):
        items = list(cast("dict[str, object]", value).items())
        return depth > 0 and len(items) <= 50 and all(_is_modest(part, depth - 1) for pair in items for part in pair)
    if isinstance(value, list):
        parts = cast("list[object]", value)
        return depth > 0 and len(parts) <= 50 and all(_is_modest(part, depth - 1) for part in parts)
    return not isinstance(value, str) or len(value) <= 2_000


class UpstreamSession:
    """Requests to one deployment. Thread-safe.

    Parameters
    ----------
    deployment
        Where to, and with which credential.
    connections
        How many threads ask at once.
    bearer_key
        Whether the key goes as ``Authorization: Bearer``, not as ``api-key``.
    monotonic
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        connections: int,
        bearer_key: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, VerbatimAdapter(pool_maxsize=connections))
        self._credential = _Credential(deployment, bearer_key=bearer_key)
        self._monotonic = monotonic

    def send(
        self,
        method: str,
        url: str,
        *,
        event: str,
        generation_id: str,
        read_seconds: float = _READ_SECONDS,
        into: tuple[IO[bytes], int] | None = None,
        **options: Any,
    ) -> Answer:
        """Send and read one answer, whatever its status. Nothing is retried here, no redirect followed.

        Parameters
        ----------
        read_seconds
            How long the service may be silent.
        into
            Where the body of a 200 goes instead, and the most bytes that it may have.

        Raises
        ------
        NotSentError
            When no connection, or no credential, could be had.
        NoAnswerError
            When there was no answer, or it broke off.
        """
        started = self._monotonic()
        try:
            request = self._session.prepare_request(requests.Request(method, url, auth=self._credential, **options))
            request.url = url  # verbatim: prepare_request would tidy it up
            response = self._session.send(
                request, timeout=(_CONNECT_SECONDS, read_seconds), allow_redirects=False, stream=True
            )
            with response:
                if into and response.status_code == 200:
                    file, limit = into
                    self._read(response, file, limit=limit, give_up=started + read_seconds + _TRANSFER_SECONDS)
                    body = b""
                else:
                    memory = io.BytesIO()
                    self._read(response, memory, limit=_LONGEST_ANSWER, give_up=started + _ANSWER_SECONDS)
                    body = memory.getvalue()
        except (requests.RequestException, HTTPError, OSError, AzureError) as error:
            log_event(f"{event}.unanswered", id=generation_id, error=type(error).__name__)
            kind = NotSentError if _was_not_sent(error) else NoAnswerError
            raise kind(f"no answer ({type(error).__name__})") from None
        answer = Answer(response, body)
        log_event(
            event,
            id=generation_id,
            status=answer.status,
            upstream_request_id=answer.request_id,
            ms=round((self._monotonic() - started) * 1000),
        )
        return answer

    def _read(self, response: Response, file: IO[bytes], *, limit: int, give_up: float) -> None:
        total = 0
        # read1: what has arrived. A server that drips bytes never runs into a read timeout.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            total += len(chunk)
            if total > limit:
                raise TooLongError(f"an answer of more than {limit} bytes")
            if self._monotonic() > give_up:
                raise NoAnswerError("an answer that does not end")
            try:
                file.write(chunk)
            except OSError as error:
                raise NoRoomError(f"the answer could not be written to a temporary file ({error.strerror})") from None


def _was_not_sent(error: Exception) -> bool:
    """Whether it failed before a byte of the request went out."""
    if isinstance(error, AzureError | requests.ConnectTimeout):
        return True
    failed = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    reason = getattr(failed, "reason", None)
    if isinstance(reason, SSLError):
        # Of the certificate alone: another TLS failure may come after the request.
        return bool(reason.args) and isinstance(reason.args[0], SSLCertVerificationError)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError | NameResolutionError)


def absolute(location: str, base: str) -> str:
    """A URL from a header: verbatim when absolute, else resolved against the URL it answered."""
    return location if urlsplit(location).scheme else urljoin(base, location)
