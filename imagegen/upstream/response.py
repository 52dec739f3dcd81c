"""Responses of an image service: JSON, errors and Retry-After, all of which may be malformed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic_core import from_json

from imagegen.generation import GenerationError

if TYPE_CHECKING:
    from requests import Response

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")
_FILTER_CODES: Final = frozenset({"contentfilter", "content_filter", "content_policy_violation", "moderation_blocked"})
_KEY_OR_ROLE: Final = (
    "Check the key of the deployment (AZURE_OPENAI_API_KEY, or apiKeySetting in IMAGE_DEPLOYMENTS); without a key, the "
    "role of the app's identity on the image service."
)
_ROLE_OR_NETWORK: Final = (
    "Check the role of the app's identity on the image service, and the network rules of that service."
)
_ADDRESS: Final = (
    "Check the endpoint, the deployment, the API and its version (AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT, "
    "AZURE_OPENAI_API and AZURE_OPENAI_API_VERSION, or the entry in IMAGE_DEPLOYMENTS)."
)
_CONFIGURATION_ERRORS: Final = {
    401: ("upstreamUnauthorized", _KEY_OR_ROLE),
    403: ("upstreamForbidden", _ROLE_OR_NETWORK),
    404: ("upstreamNotFound", _ADDRESS),
}
"""Statuses that an operator must correct, in the settings or in Azure: the error code, and what to check."""


class NoResponseError(Exception):
    """The network failed, or the response is unusable. The message holds no URL and no credential."""


class UpstreamResponse:
    """An HTTP response whose body was read to its end."""

    def __init__(self, response: Response, body: bytes) -> None:
        self.status = response.status_code
        self.headers = response.headers
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
            # json.loads would accept lone surrogates and very deep nesting, and the record could not be written.
            value = from_json(self._body, allow_inf_nan=False)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise NoResponseError(f"status {self.status} with a body that is not a JSON object")
        return cast("dict[str, Any]", value)

    @property
    def error(self) -> GenerationError:
        """The error in the body. A body without an error code gives ``http{status}``."""
        try:
            stated = self.json().get("error")
        except NoResponseError:
            stated = None
        return read_error(stated, default_code=f"http{self.status}")

    @property
    def states_error(self) -> bool:
        """Whether the body has the error object of the API. The bodies of gateways do not.

        A gateway may wrap its own error with the status as its code, so such a code does not count. OpenAI sends
        ``code: null`` with a ``type``.
        """
        try:
            stated = self.json().get("error")
        except NoResponseError:
            return False
        fields = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}
        code, kind = fields.get("code"), fields.get("type")
        return bool(code and str(code) != str(self.status)) or (isinstance(kind, str) and bool(kind))

    @property
    def configuration_error(self) -> GenerationError | None:
        """The error with a hint for the operator, on status 401, 403 or 404; None on any other status."""
        if self.status not in _CONFIGURATION_ERRORS:
            return None
        code, hint = _CONFIGURATION_ERRORS[self.status]
        stated = self.error
        return GenerationError(
            code=code,
            message=f"The image service answered {self.status} ({stated.code}). {hint}",
            innererror={"code": stated.code, "message": stated.message},
        )

    @property
    def health_problem(self) -> str | None:
        """The problem that the answer to a health check shows: the credential (401, 403) or the service (5xx)."""
        if self.status in (401, 403):
            return f"the service answered {self.status}. {_CONFIGURATION_ERRORS[self.status][1]}"
        return f"the service answered {self.status}" if self.status >= 500 else None

    def retry_after(self, now: datetime) -> float | None:
        """Seconds to wait, from ``retry-after-ms`` or ``Retry-After``; None without a valid header."""
        milliseconds = self.headers.get("retry-after-ms", "").strip()
        if milliseconds.isascii() and milliseconds.isdigit():
            return float(milliseconds) / 1000
        return _parse_retry_after(self.headers.get("retry-after", ""), now)


def _parse_retry_after(header: str, now: datetime) -> float | None:
    """Seconds from a number or from an HTTP date."""
    header = header.strip()
    if header.isascii() and header.replace(".", "", 1).isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def read_error(stated: object, *, default_code: str = "upstreamFailure") -> GenerationError:
    """The service's error, with defaults for missing parts. All codes of content filters become ``contentFilter``."""
    fields = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {"message": stated}
    code = str(fields.get("code") or default_code)
    if not _CODE.fullmatch(code):
        code = default_code  # the app sends the code as a header
    inner = fields.get("innererror") or fields.get("inner_error")
    inner = cast("dict[str, Any]", inner) if isinstance(inner, dict) and _is_small(cast("object", inner)) else None
    if code.lower() in _FILTER_CODES:
        inner = inner or {"code": code}
        code = "contentFilter"
    message = fields.get("message")
    message = message if isinstance(message, str) and message else "The image service gave no reason."
    return GenerationError(code=code, message=message[:2_000], innererror=inner)


def _is_small(value: object, depth: int = 12) -> bool:
    """Whether this JSON from the service is small enough for a record."""
    if isinstance(value, dict):
        items = list(cast("dict[str, object]", value).items())
        return depth > 0 and len(items) <= 50 and all(_is_small(part, depth - 1) for pair in items for part in pair)
    if isinstance(value, list):
        parts = cast("list[object]", value)
        return depth > 0 and len(parts) <= 50 and all(_is_small(part, depth - 1) for part in parts)
    return not isinstance(value, str) or len(value) <= 2_000
