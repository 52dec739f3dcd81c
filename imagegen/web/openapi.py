"""``GET /openapi.json``: the route table and the models of the app as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from imagegen.settings import Settings
from imagegen.web.http import ErrorBody, Request, Response, base_url
from imagegen.web.route_table import ID, ROUTES, Answer, Auth, Route

VERSION: Final = "1.0.0"
_INFO: Final = {
    "title": "Image generations",
    "version": VERSION,
    "description": "Send a prompt, get the image in Blob Storage. The app answers 202 at once; poll Location.",
    "license": {"name": "MIT", "identifier": "MIT"},
}
_SECURITY_SCHEMES: Final[dict[Auth, dict[str, str]]] = {
    "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
    "token": {"type": "apiKey", "in": "query", "name": "token"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_ERRORS: Final = {
    400: "The request is wrong; error.target names the field",
    401: "The key is missing or wrong",
    404: "Not found",
    411: "The body has no Content-Length",
    413: "The body is too large",
    415: "The body is not JSON, or is compressed",
    422: "The idempotency key was used with another request",
    429: "Too many generations are active, or too many wait for the quota of the model",
    500: "The app has a defect; its log has the details under x-ms-request-id",
    503: "Storage or configuration is unavailable",
}
_HOST_ANSWERS: Final[dict[Auth | None, dict[int, Answer]]] = {
    "functionKey": {401: Answer("The Functions host found no valid function key. The answer has no body")}
}
"""What the app never sees."""

type _Schemas = Mapping[Any, Mapping[str, Any]]
"""The schema of each type in the table."""


class OpenApiRoute:
    """``GET /openapi.json``, with this app as the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get(self, request: Request) -> Response:
        return Response(200, {**description(), "servers": [{"url": base_url(request, self._settings)}]})


@cache
def description() -> dict[str, Any]:
    """OpenAPI 3.1, without servers."""
    found, components = TypeAdapter.json_schemas(_types(), ref_template="#/components/schemas/{model}")
    schemas = {type_: schema for (type_, _), schema in found.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(f"/{route.path}", {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "paths": paths,
        "components": {"schemas": components["$defs"], "securitySchemes": _SECURITY_SCHEMES},
    }


def _types() -> Iterator[tuple[Any, Literal["validation", "serialization"], TypeAdapter[Any]]]:
    """Each type in the table, and whether the app validates it (a request) or serializes it (an answer)."""
    for route in ROUTES:
        if route.body:
            yield route.body, "validation", TypeAdapter(route.body)
        for answer in _answers(route).values():
            if answer.body:
                yield answer.body, "serialization", TypeAdapter(answer.body)


def _answers(route: Route) -> dict[int, Answer]:
    errors = {status: Answer(_ERRORS[status], ErrorBody, ("x-ms-error-code",)) for status in (*route.errors, 500, 503)}
    return errors | dict(route.answers) | _HOST_ANSWERS.get(route.auth, {})


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "security": [{route.auth: []}] if route.auth else [],
    }
    if parameters := (*((ID,) if "{id}" in route.path else ()), *route.parameters):
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = {"required": True, "content": _json(schemas[route.body])}
    answers = sorted(_answers(route).items())
    return {**operation, "responses": {str(status): _response(answer, schemas) for status, answer in answers}}


def _response(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.body:
        response["content"] = _json(schemas[answer.body])
    if names := (*answer.headers, *answer.optional_headers):
        response["headers"] = {name: _header(name, required=name in answer.headers) for name in names}
    return response


def _header(name: str, *, required: bool) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1} if name == "Retry-After" else {"type": "string"}
    return {"required": required, "schema": schema}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
