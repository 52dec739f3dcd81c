"""Turn a request into a model, or into an error that names each wrong field and query parameter."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from imagegen.errors import FieldProblem, RequestError
from imagegen.web.field_problems import field_problem, kind_of, one_line, shown, shown_name
from imagegen.web.http import LONGEST_BODY, HttpError, Request
from imagegen.web.json_body import EXAMPLE, read_json

_MOST_PROBLEMS: Final = 20
"""Problems in one answer: a body with thousands of wrong fields must not make an answer of megabytes."""
_NOT_OURS: Final = ("code", "clientid", "api-version")
"""Query parameters of the Functions host, in any case, and the one that clients of Azure add to every URL."""


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
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        message = f"Content-Encoding {one_line(encoding[:40])} is not supported. Send the body uncompressed."
        raise HttpError(415, "unsupportedMediaType", message)
    if len(request.body) > LONGEST_BODY:
        message = f"The body has {len(request.body):,} bytes, the limit is {LONGEST_BODY:,}. Shorten it."
        raise HttpError(413, "payloadTooLarge", message)
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or re.fullmatch(r"application/[\w.-]+\+json", media_type)
    if request.body and not is_json:
        message = (
            f"The Content-Type {shown(media_type)} is not JSON. Send JSON with the header "
            "Content-Type: application/json."
        )
        raise HttpError(415, "unsupportedMediaType", message)
    return validate(read_json(request), model)


def validate[Body: BaseModel](body: object, model: type[Body]) -> Body:
    """Parsed JSON as an instance of `model`.

    Raises
    ------
    RequestError
        400; names each wrong field.
    """
    if not isinstance(body, dict):
        message = f"The body is {kind_of(body)}, not a JSON object. Send one, such as {EXAMPLE}."
        raise RequestError("invalidPayload", message)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[:_MOST_PROBLEMS]
        schema = _schema(model)
        raise RequestError.for_fields([field_problem(one, schema) for one in found]) from None


def check_query(query: Mapping[str, str], known: Collection[str] = ()) -> None:
    """Refuse a query parameter that the route does not have: without it, the caller would get or pay something else.

    Raises
    ------
    RequestError
        400; names each one.
    """
    unknown = [name for name in query if name not in known and name.lower() not in _NOT_OURS]
    if unknown:
        hint = f"Use only {', '.join(known)}." if known else "Send it in the JSON body, or leave it out."
        message = f"is not a query parameter of this route. {hint}"
        raise RequestError.for_fields([FieldProblem(shown_name(name), message) for name in unknown[:_MOST_PROBLEMS]])


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema(by_alias=True)
