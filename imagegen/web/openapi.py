"""``GET /openapi.json``: the contract, made from the models that the app itself uses."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import ConfigDict, Field
from pydantic.json_schema import models_json_schema

from imagegen.generation import GenerationError, JsonModel, StartRequest, Status
from imagegen.settings import Settings
from imagegen.web.http import Request, Response, base_url
from imagegen.web.model_list import ModelList
from imagegen.web.monitor import Monitor

VERSION: Final = "1.0.0"
_REF: Final = "#/components/schemas/"


class ErrorDetail(GenerationError):  # noqa: N818 - not an exception
    """What is wrong, and how to mend it."""

    details: list[GenerationError] | None = None
    """Each problem, where there are several."""


class ErrorBody(JsonModel):
    error: ErrorDetail


class EndedBody(JsonModel):
    """A generation that ended without a result."""

    error: GenerationError
    id: str
    status: Status


class MonitorList(JsonModel):
    value: list[Monitor]
    next_link: str | None = None
    """Where the next page is; left out on the last."""


class OldSubmitRequest(JsonModel):
    """The body of the retired API."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=1_000, pattern=r"\S")
    n: int = Field(default=1, ge=1, le=5)
    size: str | None = Field(default="1024x1024", pattern="^(256x256|512x512|1024x1024)$")
    user: str | None = Field(default=None, min_length=1, max_length=256)


class OldAccepted(JsonModel):
    id: str
    status: Status


class OldImage(JsonModel):
    url: str | None = None
    error: GenerationError | None = None


class OldResult(JsonModel):
    created: int
    data: list[OldImage]


class OldOperation(JsonModel):
    """An operation of the retired API. Times are seconds since 1970."""

    id: str
    status: Status
    created: int
    expires: int | None = None
    result: OldResult | None = None
    error: GenerationError | None = None


class CheckBody(JsonModel):
    status: str
    message: str | None = None


class HealthBody(JsonModel):
    status: str
    checks: dict[str, CheckBody]
    configuration: dict[str, str | bool]


_MODELS: Final = (
    StartRequest,
    Monitor,
    MonitorList,
    ErrorBody,
    EndedBody,
    OldSubmitRequest,
    OldAccepted,
    OldOperation,
    HealthBody,
    ModelList,
)


class OpenApiRoute:
    """Answers with the description, whose server is this app."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get(self, request: Request) -> Response:
        return Response(200, {**description(), "servers": [{"url": base_url(request, self._settings)}]})


@cache
def description() -> dict[str, Any]:
    """OpenAPI 3.1, without servers."""
    _, schemas = models_json_schema(
        [(model, "validation" if model is StartRequest else "serialization") for model in _MODELS],
        ref_template=_REF + "{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image generations",
            "version": VERSION,
            "description": "Send a prompt, get the image in Blob Storage. Answers 202 at once; poll Location.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "token": {"type": "apiKey", "in": "query", "name": "token"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _paths() -> dict[str, Any]:
    return {
        "/generations": {"post": _start(), "get": _list()},
        "/generations/{id}": {"parameters": _ID, "get": _monitor(), "delete": _delete()},
        "/generations/{id}/result": {"parameters": _ID, "get": _result()},
        "/generations/{id}/cancel": {"parameters": _ID, "post": _cancel()},
        "/models": {"get": _models()},
        "/health": {"get": _health()},
        "/openapi.json": {"get": _openapi()},
        "/openai/images/generations:submit": {"parameters": [_API_VERSION], "post": _old_submit()},
        "/openai/operations/images/{id}": {
            "parameters": [*_ID, _API_VERSION],
            "get": _old_operation(),
            "delete": _old_delete(),
        },
    }


_ID: Final = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
_API_VERSION: Final = {
    "name": "api-version",
    "in": "query",
    "required": True,
    "schema": {"type": "string", "pattern": "^2023-[0-9]{2}-[0-9]{2}-preview$"},
}
_KEY: Final = [{"functionKey": list[str]()}]
_TOKEN: Final = [{"token": list[str]()}]
_OLD: Final = [{"apiKey": list[str]()}]


def _start() -> dict[str, Any]:
    headers = ("Location", "Operation-Location", "Retry-After")
    optional = ("Preference-Applied", "Repeatability-Result")
    return _operation(
        "startGeneration",
        "Start a generation",
        _KEY,
        {
            "200": _answer("Finished within Prefer: wait", "Monitor", *headers[:2], optional=optional),
            "202": _answer("Started: poll Location", "Monitor", *headers, optional=optional),
            **_errors(400, 413, 415, 422, 429),
        },
        parameters=[
            _header("Idempotency-Key", "Repeat a request with it, and it is started once"),
            _header("Repeatability-Request-ID", "The same, under its Azure name"),
            _header("Operation-Id", "The same; a UUID", format_="uuid"),
            # What cannot be understood of these two is ignored, so no value is wrong.
            _header("Prefer", "wait=N: answer 200 if it is finished within N seconds, 1 to 50", min_length=0),
            _header("x-ms-client-request-id", "Comes back, and stands in the log", min_length=0),
        ],
        body="StartRequest",
    )


def _list() -> dict[str, Any]:
    return _operation(
        "listGenerations",
        "List generations, newest first",
        _KEY,
        {"200": _answer("A page", "MonitorList"), **_errors(400)},
        parameters=[
            _query("status", {"type": "string", "enum": [status.value for status in Status]}),
            _query("maxpagesize", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            _query("after", {"type": "string", "description": "From nextLink"}),
        ],
    )


def _monitor() -> dict[str, Any]:
    answers = {"200": _answer("The status monitor", "Monitor", optional=("Retry-After",)), **_errors(404)}
    return _operation("getGeneration", "Look at a generation", _TOKEN, answers)


def _result() -> dict[str, Any]:
    answers = {
        "200": _answer("Succeeded", "Monitor"),
        "202": _answer("Busy: poll Location again", "Monitor", "Location", "Retry-After"),
        "410": _answer("Canceled", "EndedBody", "x-ms-error-code"),
        "422": _answer("The request was refused", "EndedBody", "x-ms-error-code"),
        "424": _answer("Failed otherwise", "EndedBody", "x-ms-error-code"),
        **_errors(404),
    }
    return _operation("getGenerationResult", "Wait for the result", _TOKEN, answers)


def _cancel() -> dict[str, Any]:
    answers = {"200": _answer("Canceled, or ended as it was", "Monitor"), **_errors(404)}
    return _operation("cancelGeneration", "Cancel a generation", _TOKEN, answers)


def _delete() -> dict[str, Any]:
    answers = {"204": {"description": "Gone, or never there"}, **_errors()}
    return _operation("deleteGeneration", "Delete a generation and its images", _TOKEN, answers)


def _models() -> dict[str, Any]:
    answers = {"200": _answer("The models that a caller can choose from", "ModelList"), **_errors()}
    return _operation("listModels", "List models", _KEY, answers)


def _health() -> dict[str, Any]:
    answers = {
        "200": _answer("Able to work", "HealthBody"),
        "503": {
            "description": "Something is missing",
            "content": {"application/json": {"schema": {"anyOf": [_ref("HealthBody"), _ref("ErrorBody")]}}},
        },
    }
    return _operation("getHealth", "Is the app able to work?", [], answers)


def _openapi() -> dict[str, Any]:
    answers = {"200": {"description": "OpenAPI 3.1", "content": _json({"type": "object"})}, **_errors()}
    return _operation("getOpenApi", "This description", [], answers)


def _old_submit() -> dict[str, Any]:
    answers = {
        "202": _answer("Accepted", "OldAccepted", "operation-location"),
        **_errors(400, 401, 404, 413, 415, 429),
    }
    operation_id = _header("Operation-Id", "Repeat a request with it, and it is started once", format_="uuid")
    return _operation(
        "submitOldGeneration",
        "The retired asynchronous API: start",
        _OLD,
        answers,
        parameters=[operation_id],
        body="OldSubmitRequest",
    )


def _old_operation() -> dict[str, Any]:
    answers = {"200": _answer("The operation", "OldOperation", optional=("Retry-After",)), **_errors(401, 404)}
    return _operation("getOldOperation", "The retired asynchronous API: poll", _OLD, answers)


def _old_delete() -> dict[str, Any]:
    answers = {"204": {"description": "Gone, or never there"}, **_errors(401, 404)}
    return _operation("deleteOldOperation", "The retired asynchronous API: delete", _OLD, answers)


def _operation(
    operation_id: str,
    summary: str,
    security: list[dict[str, list[str]]],
    answers: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: str | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": operation_id, "summary": summary, "security": security}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"required": True, "content": _json(_ref(body))}
    return {**operation, "responses": answers}


def _answer(description: str, schema: str, *headers: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "content": _json(_ref(schema))}
    described = {name: {"required": name in headers, "schema": _header_schema(name)} for name in (*headers, *optional)}
    return answer | ({"headers": described} if described else {})


def _header_schema(name: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1} if name == "Retry-After" else {"type": "string"}


_MEANINGS: Final = {
    400: "The request is wrong; error.target names where",
    401: "No key, or a wrong one",
    404: "There is none",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The idempotency key stands for another request",
    429: "Too many generations are active",
    500: "The app failed; its log says why under x-ms-request-id",
    503: "Storage or configuration is unavailable",
}


def _errors(*statuses: int) -> dict[str, Any]:
    """These, and those that every route may give."""
    return {str(status): _answer(_MEANINGS[status], "ErrorBody", "x-ms-error-code") for status in (*statuses, 500, 503)}


def _header(name: str, description: str, *, format_: str | None = None, min_length: int = 1) -> dict[str, Any]:
    schema = {"type": "string", "minLength": min_length, **({"format": format_} if format_ else {})}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF + name}
