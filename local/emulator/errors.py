"""Errors of the APIs and of the blob storage, and the format that each API gives them."""

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol
from xml.sax.saxutils import escape

from starlette.responses import Response

_SAFE = {"filtered": False, "severity": "safe"}
_FILTERED = {"filtered": True, "severity": "medium"}
FILTER_DETAILS = {
    "code": "ResponsibleAIPolicyViolation",
    "content_filter_results": {"hate": _SAFE, "self_harm": _SAFE, "sexual": _SAFE, "violence": _FILTERED},
}
"""Findings of the content filter: ``dalleInnerError`` of the swaggers."""
_FILTER_MESSAGE = "Your task failed as a result of our safety system."
_FILTER_MESSAGES = {
    "content_policy_violation": (
        "Your request was rejected as a result of our safety system. "
        "Your prompt may contain text that is not allowed by our safety system."
    ),
    "moderation_blocked": "Your request was rejected by the safety system. safety_violations=[violence].",
}
_USER_ERRORS = {"moderation_blocked", "invalid_png_output_compression"}


@dataclass(eq=False)
class ServiceError(Exception):
    """An error of an API: ``{"error": {code, message, …}}``."""

    status: int
    code: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the error object, such as ``target``, ``param`` or ``innererror``."""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def body(self) -> dict[str, Any]:
        """Return the error object."""
        return {"code": self.code, "message": self.message} | self.fields

    def response(self) -> Response:
        headers = {"x-ms-error-code": self.code} | self.headers
        return json_response({"error": self.body()}, status=self.status, headers=headers)


@dataclass(eq=False)
class StorageError(Exception):
    """An error of Azure Storage, in XML."""

    status: int
    code: str
    message: str
    detail: str | None = None

    def response(self, request_id: str) -> Response:
        """Azure Storage repeats the request id and the time in the message."""
        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
        detail = "" if self.detail is None else _element("AuthenticationErrorDetail", self.detail)
        message = f"{self.message}\nRequestId:{request_id}\nTime:{now}"
        error = f"<Error>{_element('Code', self.code)}{_element('Message', message)}{detail}</Error>"
        text = f'<?xml version="1.0" encoding="utf-8"?>{error}'
        headers = {"x-ms-error-code": self.code, "x-ms-request-id": request_id}
        return Response(text, self.status, headers, media_type="application/xml")


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def json_response(body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as .NET writes it: ``&`` is ``\\u0026``. A client that cuts URLs out of the text fails here too."""
    text = json.dumps(body, separators=(",", ":")).replace("&", "\\u0026")
    return Response(text, status, headers, media_type="application/json")


def resource_not_found() -> ServiceError:
    """The gateway's error for an unknown route or api-version."""
    return ServiceError(404, "404", "Resource not found")


class ErrorFormat(Protocol):
    """How one API reports an invalid request."""

    def invalid(self, code: str, message: str, field: str | None) -> ServiceError:
        """Report an invalid field, or an invalid body where ``field`` is None. ``code`` is OpenAI's."""
        ...


class OperationErrors:
    """The asynchronous API: ``{code, message, target?, innererror?}``, and one code for all invalid requests."""

    def invalid(self, code: str, message: str, field: str | None) -> ServiceError:
        return invalid_payload(message, "Content-Type" if code == "invalid_content_type" else field)


def invalid_payload(message: str, target: str | None) -> ServiceError:
    return ServiceError(400, "invalidPayload", message, {} if target is None else {"target": target})


def content_filter(code: str = "contentFilter") -> ServiceError:
    """The asynchronous API's error for a filtered prompt. The details follow the swaggers after 2023."""
    return ServiceError(400, code, _FILTER_MESSAGE, {"innererror": FILTER_DETAILS})


@dataclass(frozen=True)
class DirectErrors(ABC):
    """The error format of a direct API."""

    filter_details: ClassVar[str]
    """The field for the findings of the content filter."""
    rate_limited: str = "RateLimitReached"
    """The code of a 429."""

    @abstractmethod
    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> ServiceError: ...

    @abstractmethod
    def invalid(self, code: str, message: str, field: str | None) -> ServiceError: ...

    def filtered(self, code: str) -> ServiceError:
        """Report a filtered prompt. The services use three codes; any other is possible."""
        error = self.error(400, code, _FILTER_MESSAGES.get(code, _FILTER_MESSAGE))
        error.fields[self.filter_details] = FILTER_DETAILS
        return error


@dataclass(frozen=True)
class OpenAIErrors(DirectErrors):
    """OpenAI: ``{code, message, type, param, inner_error?}``."""

    filter_details = "inner_error"

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> ServiceError:
        return ServiceError(status, code, message, {"type": _openai_type(status, code), "param": field})

    def invalid(self, code: str, message: str, field: str | None) -> ServiceError:
        return self.error(400, code, message, field=field)


def _openai_type(status: int, code: str) -> str:
    if code in _USER_ERRORS:
        return "image_generation_user_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status == 408 or status >= 500 else "invalid_request_error"


@dataclass(frozen=True)
class FoundryErrors(DirectErrors):
    """Foundry: ``{code, message, details?, innererror?}``, and one code for all invalid requests."""

    filter_details = "innererror"
    invalid_code: str = "BadRequest"
    invalid_prefix: str = ""
    repeats_message: bool = False
    """``details`` repeats ``message``."""

    def error(self, status: int, code: str, message: str, *, field: str | None = None) -> ServiceError:  # noqa: ARG002
        return ServiceError(status, code, message, {"details": message} if self.repeats_message else {})

    def invalid(self, code: str, message: str, field: str | None) -> ServiceError:
        if code == "unknown_parameter":
            return self.error(400, self.invalid_code, f"Invalid parameters: {field}")
        return self.error(400, self.invalid_code, self.invalid_prefix + message)
