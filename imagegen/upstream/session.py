"""HTTP requests to an image service: connections, credentials and time limits."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from ssl import SSLCertVerificationError
from typing import IO, TYPE_CHECKING, Any, Final

import requests
from azure.core.exceptions import AzureError
from requests.auth import AuthBase
from requests.exceptions import InvalidHeader, InvalidURL
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from imagegen.connections import response_deadline
from imagegen.deployments import Deployment
from imagegen.events import log_event
from imagegen.upstream.masking import masking
from imagegen.upstream.response import NoResponseError, UpstreamResponse
from imagegen.upstream.verbatim import VerbatimAdapter

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 30
_RESPONSE_SECONDS: Final = 40
_CHUNK: Final = 1 << 16
_LONGEST_RESPONSE: Final = 1 << 20
"""Bytes. JSON responses have a few kilobytes; a longer one is not from this API."""
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""What a header can hold (RFC 9110, 5.5), in the encoding of http.client."""


_UNSENDABLE: Final = (
    "The app cannot send a request to the image service: {}. Nothing was sent or billed. Correct the settings of the "
    "deployment (AZURE_OPENAI_*, or its entry in IMAGE_DEPLOYMENTS)."
)
_BAD_KEY: Final = (
    "The app cannot send the key of the deployment: it has a character that an HTTP header cannot hold. Nothing was "
    "sent or billed. Copy the key again (AZURE_OPENAI_API_KEY, or apiKeySetting in IMAGE_DEPLOYMENTS)."
)


class NotSentError(NoResponseError):
    """The request did not reach the service."""


class UnsendableError(NotSentError):
    """HTTP cannot express the request, now or later. The message is a sentence for the operator."""


class ResponseTooLongError(NoResponseError):
    """The response is longer than the limit. A repeated call would return as much again."""


class UndecodableError(NoResponseError):
    """The whole response arrived, but not in the encoding that its headers state. A repeated call would not help."""


class TemporaryFileError(NoResponseError):
    """The response could not be written to a temporary file."""


class _Credential(AuthBase):
    """Adds the key or a bearer token. With any credential set, requests does not read a .netrc."""

    def __init__(self, deployment: Deployment, *, bearer_key: bool) -> None:
        self._bearer_key = bearer_key
        self._key = deployment.api_key
        self._scope = deployment.scope
        self._token: Callable[[], str] | None = None

    @property
    def has_key(self) -> bool:
        return self._key is not None

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
            # Imported here: an app with a key starts faster without it.
            from azure.identity import DefaultAzureCredential, get_bearer_token_provider

            self._token = get_bearer_token_provider(DefaultAzureCredential(), self._scope)
        return self._token()


class UpstreamSession:
    """Requests to one deployment. Thread-safe.

    Parameters
    ----------
    deployment
        Its credential goes with every request.
    connections
        The number of threads that send at the same time.
    bearer_key
        Send the key as ``Authorization: Bearer`` instead of ``api-key``.
    """

    def __init__(self, deployment: Deployment, *, connections: int, bearer_key: bool = False) -> None:
        self._address = deployment.address
        self._session = _open_session(connections)
        self._credential = _Credential(deployment, bearer_key=bearer_key)
        self._mask = masking(deployment.api_key.get_secret_value() if deployment.api_key else None)

    def send(
        self,
        method: str,
        url: str,
        *,
        event: str,
        generation_id: str,
        read_seconds: float = _READ_SECONDS,
        total_seconds: float = _RESPONSE_SECONDS,
        fresh: bool = False,
        into: tuple[IO[bytes], int] | None = None,
        **options: Any,
    ) -> UpstreamResponse:
        """Send one request and read the response, whatever its status. Do not retry or follow redirects.

        Parameters
        ----------
        event
            Name of the log event.
        read_seconds
            Read timeout: longest silence of the service.
        total_seconds
            Longest time from the request to the last byte of the response, however slowly it arrives.
        fresh
            Use a new connection, and close it afterwards. A connection that sat idle may have been cut unnoticed; a
            request on it would be lost, and might have been billed.
        into
            A file that receives the body of a 200, and the largest number of bytes that the body may have.

        Raises
        ------
        UnsendableError
            With a URL or a header, such as the key, that HTTP cannot express.
        NotSentError
            Without a connection or a credential.
        NoResponseError
            Without a response, or with one that is incomplete or too long.
        """
        started = time.monotonic()
        try:
            with (
                self._session_for(fresh=fresh) as session,
                response_deadline(total_seconds),
                session.send(
                    self._prepared(session, method, url, **options),
                    timeout=(_CONNECT_SECONDS, read_seconds),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                if into and response.status_code == 200:
                    file, limit = into
                    self._read(response, file, limit=limit)
                    body = b""
                else:
                    memory = io.BytesIO()
                    try:
                        self._read(response, memory, limit=_LONGEST_RESPONSE)
                    except (requests.RequestException, HTTPError, OSError, ResponseTooLongError):
                        if response.status_code == 200:
                            raise
                        # The status says what happened. Its explanation is worth less.
                    body = memory.getvalue()
        except UnsendableError:
            self._log_unanswered(event, generation_id, UnsendableError.__name__)
            raise
        except (InvalidURL, LocationValueError, InvalidHeader, UnicodeEncodeError) as error:
            self._log_unanswered(event, generation_id, type(error).__name__)
            reason = f"its URL, its proxy or a header is invalid ({type(error).__name__})"
            raise UnsendableError(_UNSENDABLE.format(reason)) from None
        except (requests.RequestException, HTTPError, OSError, AzureError) as error:
            self._log_unanswered(event, generation_id, type(error).__name__)
            raise _error_class(error)(f"no response ({type(error).__name__})") from None
        received = UpstreamResponse(response, body, self._mask, has_key=self._credential.has_key)
        log_event(
            event,
            id=generation_id,
            status=received.status,
            upstream_request_id=received.request_id,
            ms=round((time.monotonic() - started) * 1000),
            deployment=self._address,
        )
        return received

    def _log_unanswered(self, event: str, generation_id: str, error: str) -> None:
        log_event(f"{event}.unanswered", id=generation_id, error=error, deployment=self._address)

    @contextmanager
    def _session_for(self, *, fresh: bool) -> Generator[requests.Session]:
        if not fresh:
            yield self._session
            return
        with _open_session(1) as session:
            session.headers["Connection"] = "close"
            yield session

    def _prepared(self, session: requests.Session, method: str, url: str, **options: Any) -> PreparedRequest:
        request = session.prepare_request(requests.Request(method, url, auth=self._credential, **options))
        for name, value in request.headers.items():
            # http.client would raise an error that quotes the value. requests does not check what `auth` adds.
            if not _FIELD_VALUE.fullmatch(str(value)):
                is_key = self._credential.has_key and name.lower() in ("api-key", "authorization")
                raise UnsendableError(_BAD_KEY if is_key else _UNSENDABLE.format(f"its header '{name}' is invalid"))
        request.url = url  # prepare_request normalizes the URL; send it as given
        return request

    def _read(self, response: Response, file: IO[bytes], *, limit: int) -> None:
        total = 0
        # read1 returns what has arrived, so the deadline of the response is noticed.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            total += len(chunk)
            if total > limit:
                raise ResponseTooLongError(f"a response of more than {limit:,} bytes")
            try:
                file.write(chunk)
            except OSError as error:
                reason = f"the response could not be written to a temporary file ({error.strerror})"
                raise TemporaryFileError(reason) from None


class _Session(requests.Session):
    def get_redirect_target(self, resp: Response) -> str | None:  # noqa: ARG002 - as in the base class
        """None: requests would parse the Location, and fail for an invalid one, even if it does not follow it."""
        return None


def _open_session(connections: int) -> requests.Session:
    session = _Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("https://", "http://"):
        session.mount(scheme, VerbatimAdapter(pool_maxsize=connections))
    return session


def _error_class(error: Exception) -> type[NoResponseError]:
    if _was_not_sent(error):
        return NotSentError
    return UndecodableError if isinstance(error, DecodeError) else NoResponseError


def _was_not_sent(error: Exception) -> bool:
    """Whether the request failed before its first byte was sent."""
    if isinstance(error, AzureError | requests.ConnectTimeout):
        return True
    failed = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    reason = getattr(failed, "reason", None)
    if isinstance(reason, SSLError):
        # Only a wrong certificate ends the handshake. Other TLS errors may come after the request.
        return bool(reason.args) and isinstance(reason.args[0], SSLCertVerificationError)
    return isinstance(reason, NewConnectionError | ConnectTimeoutError | NameResolutionError)
