"""Turn the body of a request into a model, or into an error that names each wrong field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from imagegen.errors import FieldProblem, RequestError
from imagegen.web.http import LONGEST_BODY, HttpError, Request

_MOST_PROBLEMS: Final = 20
"""Problems in one answer: a body with thousands of wrong fields must not make an answer of megabytes."""


def parse_body[Body: BaseModel](request: Request, model: type[Body]) -> Body:
    """The body as an instance of `model`.

    Raises
    ------
    RequestError
        400, 411, 413 or 415; a 400 names each wrong field.
    """
    if not request.body and "chunked" in request.headers.get("transfer-encoding", "").lower():
        message = (
            "The body has no Content-Length (Transfer-Encoding: chunked), and Azure Functions drops such a body. Send "
            "the request with a Content-Length."
        )
        raise HttpError(411, "lengthRequired", message)
    if len(request.body) > LONGEST_BODY:
        message = f"The body has {len(request.body):,} bytes, the limit is {LONGEST_BODY:,}. Shorten it."
        raise HttpError(413, "payloadTooLarge", message)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", media_type):
        message = "The Content-Type is not JSON. Send JSON with the header Content-Type: application/json."
        raise HttpError(415, "unsupportedMediaType", message)
    try:
        body = from_json(request.body, allow_inf_nan=False)
    except ValueError as error:
        message = f"The body is not valid JSON: {error}. Correct it."
        raise RequestError("invalidJson", message) from None
    return validate(body, model)


def validate[Body: BaseModel](body: object, model: type[Body]) -> Body:
    """Parsed JSON as an instance of `model`.

    Raises
    ------
    RequestError
        400; names each wrong field.
    """
    if not isinstance(body, dict):
        message = 'The body is not a JSON object. Send one, such as {"prompt": "a lighthouse in fog"}.'
        raise RequestError("invalidPayload", message)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        fields = ", ".join(field.alias or name for name, field in model.model_fields.items())
        raise RequestError.for_fields([_problem(one, fields) for one in found[:_MOST_PROBLEMS]]) from None


def _problem(found: Mapping[str, Any], fields: str) -> FieldProblem:
    name = ".".join(str(part) for part in found["loc"] if part != "[key]")
    match found["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = f"is not a field of this API. Use only {fields}"
        case "string_pattern_mismatch" if name == "size":
            message = "must be 'auto' or WIDTHxHEIGHT, such as 1024x1024"
        case _:
            message = re.sub(r"^(Value error, |(Input|String|Dictionary) (?=should))", "", str(found["msg"]))
    return FieldProblem(name[:100], message[:1].lower() + message[1:])
