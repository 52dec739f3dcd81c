"""Responses of an image service: JSON, errors and Retry-After, all of which may be malformed."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urljoin, urlsplit

from imagegen.generation import GenerationError
from imagegen.upstream.masking import Mask, mask_secrets
from imagegen.upstream.not_found import NotFoundCauses, asked
from imagegen.upstream.reasons import is_markup, parse_json, reason_in, reason_of
from imagegen.upstream.service_errors import LONGEST_REASON, NO_REASON, read_error, valid_code
from imagegen.upstream.waits import wait_in_headers, wait_in_words

if TYPE_CHECKING:
    from requests import Response

_OWN_TYPES: Final = frozenset({"server_error", "overloaded_error"})
"""Types of the errors of OpenAI and Foundry that mean: the service failed itself."""
_TRANSPORT_WORDS: Final = re.compile(r"connect|time-?d?[_-]?out|gateway|upstream|backend|proxy", re.IGNORECASE)
"""Words in the code of a gateway or client library that lost the service's response."""
_HOST: Final = re.compile(r"[a-z0-9.-]{1,253}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")
_KEY_OR_ROLE: Final = (
    "Check the key of the deployment (AZURE_OPENAI_API_KEY, or apiKeySetting in IMAGE_DEPLOYMENTS); without a key, the "
    "role of the app's identity on the image service."
)
_ROLE_OR_NETWORK: Final = (
    "Check the role of the app's identity on the image service, and the network rules of that service."
)
_NETWORK_OR_POLICY: Final = (
    "Check the network rules and the firewall of the image service, whether it allows keys, and the policies of a "
    "gateway before it."
)
_CONFIGURATION_ERRORS: Final = {
    401: ("upstreamUnauthorized", _KEY_OR_ROLE),
    403: ("upstreamForbidden", _ROLE_OR_NETWORK),
    404: ("upstreamNotFound", "Check the causes, the likeliest first:"),
}
"""Statuses that an operator must correct, in the settings or in Azure: the error code, and what to check."""
_ENDPOINT_OR_GATEWAY: Final = "Check the endpoint and the API in the settings, and the policies of a gateway before it."
_HINTS: Final = {
    405: "Check the endpoint and the API in the settings, and whether a gateway allows this method.",
    413: "Check the limit of a gateway for the length of a request, or shorten the prompt.",
}
"""What to check after other statuses."""
_SENTENCE: Final = 100
"""Characters of a reason in a log and in `statusMessage`."""


class NoResponseError(Exception):
    """The network failed, or the response is unusable. The message holds no URL and no credential."""


class UpstreamResponse:
    """An HTTP response whose body was read to its end.

    Parameters
    ----------
    mask
        Removes secrets from the texts of errors. `json` is not masked: the URLs of images are secrets.
    has_key
        Whether the request had a key; otherwise it had a token of the app's identity.
    """

    def __init__(self, response: Response, body: bytes, mask: Mask = mask_secrets, *, has_key: bool = False) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.mask = mask
        self._asked = asked(response.request.method, response.url)
        self._url = response.url
        self._has_key = has_key
        self._body = body

    @property
    def request_id(self) -> str | None:
        """The identifier that the service's support asks for."""
        return self.headers.get("x-ms-request-id") or self.headers.get("apim-request-id")

    @property
    def media_type(self) -> str:
        """Of the body, for a message."""
        stated = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return stated if _MEDIA_TYPE.fullmatch(stated) else "no content type"

    @property
    def kind(self) -> str:
        """A redirect and its host, or the type of the body, for a message."""
        location = self.headers.get("location", "")
        if not (300 <= self.status < 400 and location):
            return self.media_type
        try:
            host = self.mask(urlsplit(urljoin(self._url, location)).hostname or "")
        except ValueError:
            host = ""
        return f"a redirect to {host}" if _HOST.fullmatch(host) else "a redirect"

    @property
    def has_length(self) -> bool:
        """Whether the end of the body was announced, by its length or in chunks."""
        return "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "").lower()

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises
        ------
        NoResponseError
            When the body is not a JSON object.
        """
        try:
            value = parse_json(self._body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise NoResponseError(f"status {self.status} with a body that is not a JSON object")
        return cast("dict[str, Any]", value)

    @cached_property
    def error(self) -> GenerationError:
        """The error in the body, whatever form the body has. One without an error code gives ``http{status}``."""
        try:
            return self._read_error(f"http{self.status}")
        except Exception:  # noqa: BLE001 - the status says what happened; without an outcome, the call would be repeated
            return GenerationError(code=f"http{self.status}", message=NO_REASON)

    def _read_error(self, default_code: str) -> GenerationError:
        stated = self._error_fields
        if not reason_of(stated):
            # A gateway's own form, or an error object without a text.
            reason = self.mask(reason_in(self._body, self.headers.get("content-type", "")))[:LONGEST_REASON]
            stated = {**self._fields, **{name: value for name, value in stated.items() if value}, "message": reason}
        return read_error(stated, default_code=default_code, mask=self.mask)

    @property
    def code(self) -> str | None:
        """The code of the error, or its type; None without one that says more than the status."""
        fields = self._error_fields
        stated = (fields.get("code"), self._fields.get("code"), fields.get("type"))
        codes = (valid_code(one, self.mask) for one in stated if one)
        return next((code for code in codes if code and code != str(self.status)), None)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        try:
            return self.json()
        except NoResponseError:
            return {}

    @property
    def _error_fields(self) -> dict[str, Any]:
        """The error object of the API, if the body has one."""
        stated = self._fields.get("error")
        return cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}

    @property
    def states_own_failure(self) -> bool:
        """Whether the body has the error object of the API, with a code or type of the service itself.

        A gateway may wrap its own error in such an object, with a status as its code, or a code such as
        ``api_connection_error``. OpenAI sends ``code: null`` with a ``type``.
        """
        code = valid_code(self._error_fields.get("code")) or ""
        if _TRANSPORT_WORDS.search(f"{code} {self._error_fields.get('type')}"):
            return False
        return any(letter.isalpha() for letter in code) or str(self._error_fields.get("type")) in _OWN_TYPES

    def configuration_error(self, not_found: NotFoundCauses) -> GenerationError | None:
        """The error with a hint for the operator, on status 401, 403 or 404; None on any other status."""
        if self.status not in _CONFIGURATION_ERRORS:
            return None
        code, hint = _CONFIGURATION_ERRORS[self.status][0], self._hint
        stated = self.error
        message = f"The image service answered {self.status} ({stated.code}). {hint}"
        if self.status == 404:
            message = f"The image service answered 404 ({stated.code}) to {self._asked}. {hint} "
            message = self.mask(message + not_found.in_order(stated))
        return GenerationError(code=code, message=message, innererror=inner_error(stated))

    def final_error(self) -> GenerationError:
        """The error of a status that ends the generation, if the service gave no code of its own."""
        stated = self.error
        if 300 <= self.status < 400:
            answer, hint = f"{self.status} with {self.kind}", "Check the endpoint; a gateway may ask for a sign-in."
        else:
            answer, hint = str(self.status), _HINTS.get(self.status, _ENDPOINT_OR_GATEWAY)
        message = self.mask(f"The image service answered {answer} to {self._asked}. {hint}")
        inner = None if stated.message == NO_REASON else inner_error(stated)
        return GenerationError(code=f"http{self.status}", message=message, innererror=inner)

    @property
    def _hint(self) -> str:
        if self.status == 403 and self._has_key:
            return _NETWORK_OR_POLICY
        return _CONFIGURATION_ERRORS[self.status][1]

    @property
    def sentence(self) -> str | None:
        """The start of the reason as one printable line, masked; None without a reason."""
        if self.error.message == NO_REASON:
            return None
        printable = "".join(one if one.isprintable() else " " for one in self.error.message)
        line = " ".join(printable.split())
        return line if len(line) <= _SENTENCE else f"{line[:_SENTENCE].rstrip()}…"

    @property
    def health_problem(self) -> str | None:
        """The problem that the answer to a health check shows: the credential (401, 403) or the service (5xx)."""
        if self.status in (401, 403):
            return f"the service answered {self.status}. {self._hint}"
        return f"the service answered {self.status}" if self.status >= 500 else None

    def retry_after_header(self, now: datetime) -> float | None:
        """Seconds to wait, from a header; None without one. A text may come from anywhere, also from the prompt."""
        return wait_in_headers(self.headers, now)

    def retry_after(self, now: datetime) -> float | None:
        """Seconds to wait, from a header or from the text of an error; None if neither states a time."""
        stated = self.retry_after_header(now)
        # The words of a page are for people: "Try again in 30 seconds" may be on the page of any outage.
        is_page = is_markup(self._body, self.headers.get("content-type", ""))
        return wait_in_words(self.error.message) if stated is None and self.status >= 400 and not is_page else stated


def inner_error(stated: GenerationError) -> dict[str, Any]:
    """The service's error, as the ``innererror`` of one that has the app's code or message."""
    inner = {"code": stated.code, "message": stated.message[:LONGEST_REASON]}
    return inner | ({"innererror": stated.innererror} if stated.innererror else {})
