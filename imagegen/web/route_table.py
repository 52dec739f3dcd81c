"""Every HTTP route, one row each: the source of ``/openapi.json`` and of ``unmatched``.

``function_app.py`` declares the same routes as triggers; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from imagegen.generation import StartRequest, Status
from imagegen.web.health import HealthBody
from imagegen.web.http import ErrorBody
from imagegen.web.legacy import VERSION_PATTERN, LegacyAccepted, LegacyOperation, LegacyStartRequest
from imagegen.web.model_list import ModelList
from imagegen.web.monitor import EndedBody, Monitor, MonitorList

type Auth = Literal["functionKey", "token", "apiKey"]
"""What a caller must send. The Functions host checks the function key; the app checks the other two."""


@dataclass(frozen=True, slots=True)
class Answer:
    description: str
    body: Any = None
    """A type; None: the answer has no body."""
    headers: tuple[str, ...] = ()
    optional_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    """Without the prefix; ``{id}`` is one segment."""
    operation_id: str
    summary: str
    auth: Auth | None
    answers: Mapping[int, Answer]
    errors: tuple[int, ...] = ()
    """In addition to 500 and 503, which every route can answer."""
    body: type | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    """In addition to ``id``, in the words of OpenAPI."""
    takes_head: bool = False
    """Whether the route takes HEAD too. The Functions host does not derive it from GET."""

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.method, "HEAD") if self.takes_head else (self.method,)

    def match(self, path: str) -> Mapping[str, str] | None:
        """The values of the parameters in this path; None if it is a path of another route."""
        pattern = re.escape(self.path).replace(re.escape("{id}"), "(?P<id>[^/]+)")
        # The host ignores letter case too.
        found = re.fullmatch(pattern, path, re.IGNORECASE | re.ASCII)
        return found.groupdict() if found else None


def _parameter(place: str, name: str, description: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    whole = {"type": "string", **schema}
    return {"name": name, "in": place, "required": required, "description": description, "schema": whole}


_ONCE: Final = "Requests with the same value start one generation"
ID: Final = _parameter("path", "id", "The id of the generation", required=True)
_API_VERSION: Final = _parameter(
    "query", "api-version", "2023-MM-DD-preview", required=True, pattern="^2023-[0-9]{2}-[0-9]{2}-preview$"
)
_OPERATION_ID: Final = _parameter("header", "Operation-Id", _ONCE, minLength=1, format="uuid")
_START: Final = (
    _parameter("header", "Idempotency-Key", _ONCE, minLength=1),
    _parameter("header", "Repeatability-Request-ID", _ONCE, minLength=1),
    _OPERATION_ID,
    # The app ignores a value of these two that makes no sense, so every value is valid.
    _parameter("header", "Prefer", "wait=N: wait up to N seconds, 1 to 50, for the end of the generation", minLength=0),
    _parameter("header", "x-ms-client-request-id", "Returned in the answer and written to the log", minLength=0),
)
_LIST: Final = (
    _parameter("query", "status", "Only generations with this status", enum=list(Status)),
    _parameter("query", "maxpagesize", "Generations in one page", type="integer", minimum=1, maximum=100, default=20),
    _parameter("query", "after", "From nextLink"),
)

_URLS: Final = ("Location", "Operation-Location")
_ECHOES: Final = ("Preference-Applied", "Repeatability-Result")
_RETRY: Final = ("Retry-After",)
_CODE: Final = ("x-ms-error-code",)
_GONE: Final = Answer("Deleted, or not there")

# fmt: off
ROUTES: Final = (
    Route("GET", "generations", "listGenerations", "List generations, newest first", "functionKey",
          {200: Answer("One page", MonitorList)}, errors=(400,), parameters=_LIST),
    Route("POST", "generations", "startGeneration", "Start a generation", "functionKey",
          {200: Answer("Ended within Prefer: wait", Monitor, _URLS, _ECHOES),
           202: Answer("Started: poll Location", Monitor, (*_URLS, *_RETRY), _ECHOES)},
          errors=(400, 411, 413, 415, 422, 429), body=StartRequest, parameters=_START),
    Route("GET", "generations/{id}", "getGeneration", "Get the status monitor", "token",
          {200: Answer("The status monitor", Monitor, optional_headers=_RETRY)}, errors=(404,)),
    Route("DELETE", "generations/{id}", "deleteGeneration", "Delete a generation and its images", "token",
          {204: _GONE}),
    Route("GET", "generations/{id}/result", "getGenerationResult", "Poll for the result", "token",
          {200: Answer("Succeeded", Monitor),
           202: Answer("Not finished: poll Location again", Monitor, ("Location", *_RETRY)),
           410: Answer("Canceled", EndedBody, _CODE),
           422: Answer("Failed: the image service refused the request", EndedBody, _CODE),
           424: Answer("Failed for another reason", EndedBody, _CODE)}, errors=(404,)),
    Route("POST", "generations/{id}/cancel", "cancelGeneration", "Cancel a generation", "token",
          {200: Answer("Canceled, or ended before", Monitor)}, errors=(404,)),
    Route("GET", "models", "listModels", "List the models", "functionKey",
          {200: Answer("The models that a request can name", ModelList)}),
    Route("GET", "health", "getHealth", "Check whether the app can work", None,
          {200: Answer("The app can work", HealthBody), 503: Answer("A check failed", HealthBody | ErrorBody)},
          takes_head=True),
    Route("GET", "openapi.json", "getOpenApi", "Get this description", None,
          {200: Answer("OpenAPI 3.1", dict[str, Any])}, takes_head=True),
    Route("POST", "openai/images/generations:submit", "submitOldGeneration", "Retired API: start", "apiKey",
          {202: Answer("Accepted", LegacyAccepted, ("operation-location",))},
          errors=(400, 401, 404, 411, 413, 415, 429), body=LegacyStartRequest,
          parameters=(_API_VERSION, _OPERATION_ID)),
    Route("GET", "openai/operations/images/{id}", "getOldOperation", "Retired API: poll", "apiKey",
          {200: Answer("The operation", LegacyOperation, optional_headers=_RETRY)},
          errors=(401, 404), parameters=(_API_VERSION,)),
    Route("DELETE", "openai/operations/images/{id}", "deleteOldOperation", "Retired API: delete", "apiKey",
          {204: _GONE}, errors=(401, 404), parameters=(_API_VERSION,)),
)
# fmt: on
