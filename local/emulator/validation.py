"""Request bodies: pydantic finds what is wrong, the error format of the API reports it."""

import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from local.emulator.errors import ErrorFormat

# OpenAI's code and message for each error type of pydantic.
_WORDING = {
    "extra_forbidden": ("unknown_parameter", "Unknown parameter: '{name}'."),
    "missing": ("missing_required_parameter", "Missing required parameter: '{name}'."),
    "string_type": ("invalid_type", "Invalid type for '{name}': expected a string, but got {kind} instead."),
    "int_type": ("invalid_type", "Invalid type for '{name}': expected an integer, but got {kind} instead."),
    "string_too_short": ("empty_string", "Invalid '{name}': empty string. Expected a string with minimum length 1."),
    "string_too_long": (
        "string_above_max_length",
        (
            "Invalid '{name}': string too long. Expected a string with maximum length {max_length}, "
            "but got a string with length {length} instead."
        ),
    ),
    "string_unicode": ("invalid_value", "Invalid '{name}': it contains half of a surrogate pair."),
    "greater_than_equal": (
        "integer_below_min_value",
        "Invalid '{name}': integer below minimum value. Expected a value >= {ge}, but got {value} instead.",
    ),
    "less_than_equal": (
        "integer_above_max_value",
        "Invalid '{name}': integer above maximum value. Expected a value <= {le}, but got {value} instead.",
    ),
    "literal_error": ("invalid_value", "Invalid value: '{value:.40}'. Supported values are: {expected}."),
}
_KINDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a decimal number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class RequestBody(BaseModel):
    """The fields of a request. No value is converted, and no other field is accepted."""

    # pydantic finds half of a surrogate pair only in strings whose length it checks, hence str_max_length.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, str_max_length=1_000_000)


async def json_object(request: Request, errors: ErrorFormat) -> dict[str, Any]:
    """Return the body of the request."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise errors.invalid("invalid_content_type", "The Content-Type must be application/json.", None)
    return parse_object(await request.body(), errors)


def parse_object(text: bytes, errors: ErrorFormat) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        body: Any = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise errors.invalid("invalid_json", "We could not parse the JSON body of your request.", None) from None
    if not isinstance(body, dict):
        raise errors.invalid("invalid_json", "The JSON body of your request must be an object.", None)
    return cast("dict[str, Any]", body)


def validate[Body: RequestBody](kind: type[Body], fields: dict[str, Any], errors: ErrorFormat) -> Body:
    """Return the fields as a ``kind``. Of several problems, one is reported: first the unknown fields."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
        code, message = _code_and_message(problem)
        raise errors.invalid(code, message, _field(problem)) from None


def _code_and_message(problem: ErrorDetails) -> tuple[str, str]:
    kind, value = problem["type"], problem["input"]
    if kind == "literal_error" and not isinstance(value, str):
        kind = "string_type"
    if kind not in _WORDING:  # an error type of our own, which is OpenAI's code
        return kind, problem["msg"]
    code, message = _WORDING[kind]
    length = len(value) if isinstance(value, str) else 0
    text = message.format(
        name=_field(problem), value=value, kind=_KINDS[type(value)], length=length, **problem.get("ctx", {})
    )
    return code, text.replace("' or '", "' and '")  # of the supported values


def _field(problem: ErrorDetails) -> str | None:
    return str(problem["loc"][0]) if problem["loc"] else None
