"""The error of the service, and of the storage the images lie on: one type each, with its answer."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from starlette.responses import Response


@dataclass(eq=False)
class ServiceError(Exception):
    """An error as the APIs word it: ``{"error": {code, message, …}}``."""

    status: int
    code: str
    message: str
    target: str | None = None
    innererror: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])  # what one API says besides: type, param, …
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def body(self) -> dict[str, Any]:
        """The ``Error`` object of the swagger."""
        optional = {"target": self.target, "innererror": self.innererror}
        given = {name: value for name, value in optional.items() if value is not None}
        return {"code": self.code, "message": self.message} | given | self.more

    def answer(self) -> Response:
        """The error as a response of its own."""
        headers = {"x-ms-error-code": self.code} | self.headers
        return json_answer({"error": self.body()}, status=self.status, headers=headers)


@dataclass(eq=False)
class StorageError(Exception):
    """An error as Azure Storage words it, in XML."""

    status: int
    code: str
    message: str
    detail: str | None = None

    def answer(self, request_id: str) -> Response:
        """The error as a response; Storage repeats the request id and the time in the message."""
        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
        detail = "" if self.detail is None else _element("AuthenticationErrorDetail", self.detail)
        message = f"{self.message}\nRequestId:{request_id}\nTime:{now}"
        error = f"<Error>{_element('Code', self.code)}{_element('Message', message)}{detail}</Error>"
        text = f'<?xml version="1.0" encoding="utf-8"?>{error}'
        headers = {"x-ms-error-code": self.code, "x-ms-request-id": request_id}
        return Response(text, self.status, headers, media_type="application/xml")


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def json_answer(body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as .NET writes it: ``&`` is ``\\u0026``, so a client that cuts URLs out of the text is caught."""
    text = json.dumps(body, separators=(",", ":")).replace("&", "\\u0026")
    return Response(text, status, headers, media_type="application/json")


def resource_not_found() -> ServiceError:
    """What the gateway answers for a route or api-version that does not exist."""
    return ServiceError(404, "404", "Resource not found")


def invalid_payload(message: str, target: str | None = None) -> ServiceError:
    """The request does not follow the API."""
    return ServiceError(400, "invalidPayload", message, target=target)
