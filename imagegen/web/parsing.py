"""A request's body to a StartRequest, or to an error that names what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import StartRequest
from imagegen.web.http import LONGEST_BODY, HttpError, Request

_MOST_PROBLEMS: Final = 20
"""That one answer names: thousands of wrong fields must not make an answer of megabytes."""


def parse_start(request: Request) -> StartRequest:
    """What is to be started.

    Raises
    ------
    RequestError
        400, 413 or 415, naming each field that is wrong.
    """
    if len(request.body) > LONGEST_BODY:
        message = f"The body has {len(request.body)} bytes; {LONGEST_BODY} are taken."
        raise HttpError(413, "payloadTooLarge", message)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not re.fullmatch(r"application/[\w.-]+\+json", media_type):
        message = "Send JSON, with the header Content-Type: application/json."
        raise HttpError(415, "unsupportedMediaType", message)
    try:
        body = from_json(request.body, allow_inf_nan=False)
    except ValueError as error:
        message = f"The body is not valid JSON: {error}"
        raise RequestError("invalidJson", message) from None
    return start_request(body)


def start_request(body: object) -> StartRequest:
    """The same, of a body that was read.

    Raises
    ------
    RequestError
        400, naming each field that is wrong.
    """
    if not isinstance(body, dict):
        message = 'The body must be a JSON object, such as {"prompt": "a lighthouse in fog"}.'
        raise RequestError("invalidPayload", message)
    try:
        return StartRequest.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise RequestError.for_fields([_problem(one) for one in found[:_MOST_PROBLEMS]]) from None


def _problem(found: Mapping[str, Any]) -> FieldProblem:
    name = ".".join(str(part) for part in found["loc"] if part != "[key]")
    match found["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = f"is not a field of this API; it takes {', '.join(_FIELDS)}"
        case "string_pattern_mismatch" if name == "size":
            message = "must be 'auto' or WIDTHxHEIGHT, such as 1024x1024"
        case _:
            message = re.sub(r"^(Value error, |(Input|String|Dictionary) (?=should))", "", str(found["msg"]))
    return FieldProblem(name[:100], message[:1].lower() + message[1:])


_FIELDS: Final = tuple(info.alias or name for name, info in StartRequest.model_fields.items())
