"""The description of the contract: of every route, valid, and true of what the app answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from imagegen.app import build
from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import Generation, GenerationError, Status, StoredImage
from imagegen.settings import read_settings
from imagegen.web.http import HttpError, Request, error_response
from imagegen.web.monitor import Monitors, monitor_urls
from imagegen.web.openapi import OpenApiRoute, description
from imagegen.web.routes import ROUTES
from tests.app.generations import NOON, failed, new, running, stored

SETTINGS = read_settings(
    {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
        "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
        "POLL_SCHEDULE": "0 * * * * *",
        "PUBLIC_BASE_URL": "https://app.example.com/api",
    }
)
GET = Request("GET", "https://app.example.com/api/openapi.json", {}, {}, {}, b"")
WHOLE: dict[str, Any] = json.loads(OpenApiRoute(SETTINGS).get(GET).content())
OPERATIONS = [(route, method) for route, methods in ROUTES.items() for method in methods]


def operation(route: str, method: str) -> dict[str, Any]:
    return WHOLE["paths"][f"/{route}"][method.lower()]


def check(schema: str, value: Any) -> None:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": WHOLE["components"]}
    cast("Any", Draft202012Validator(whole)).validate(value)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield cast("dict[str, Any]", value)
        for inner in cast("dict[str, Any]", value).values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from nodes(inner)


def test_it_is_json_of_the_version_that_it_says_and_names_this_app() -> None:
    assert WHOLE["openapi"] == "3.1.0"
    assert WHOLE["servers"] == [{"url": "https://app.example.com/api"}]
    assert "servers" not in description()  # which is shared by all requests


def test_it_has_every_route_and_method_and_no_other() -> None:
    described = [
        (path.lstrip("/"), method.upper())
        for path, item in WHOLE["paths"].items()
        for method in item
        if method != "parameters"
    ]
    assert sorted(described) == sorted(OPERATIONS)
    ids = [operation(*one)["operationId"] for one in OPERATIONS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("route", "method"), OPERATIONS)
def test_every_operation_is_described_to_its_end(route: str, method: str) -> None:
    found = operation(route, method)
    assert found["summary"]
    assert all(scheme in WHOLE["components"]["securitySchemes"] for one in found["security"] for scheme in one)
    parameters = [*WHOLE["paths"][f"/{route}"].get("parameters", []), *found.get("parameters", [])]
    in_path = {one["name"] for one in parameters if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", route))
    assert all(one["required"] for one in parameters if one["in"] == "path")
    for one in parameters:
        Draft202012Validator.check_schema(one["schema"])
    assert ("requestBody" in found) is (method == "POST" and "cancel" not in route)
    assert "503" in found["responses"]  # storage may be away, whatever is asked
    for status, response in found["responses"].items():
        assert re.fullmatch(r"[2-5]\d\d", status)
        assert response["description"]
        assert ("content" in response) is (status != "204")


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for schema in WHOLE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    references = {node["$ref"] for node in nodes(WHOLE) if "$ref" in node}
    named = {f"#/components/schemas/{name}" for name in WHOLE["components"]["schemas"]}
    assert references <= named
    assert named <= references  # nothing in it that nobody uses


class Links:
    def link(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.blob}?sig=1"

    def blob_url(self, image: StoredImage) -> str:
        return f"https://a.blob.core.windows.net/{image.blob}"


@pytest.mark.parametrize(
    "record",
    [
        new(),
        new(queued=True),
        running(metadata={"order": "1"}),
        running(status=Status.SUCCEEDED, images=(stored(), failed("contentFilter"))),
        running(status=Status.FAILED, error=GenerationError(code="c", message="m", innererror={"code": "i"})),
        running(status=Status.CANCELED),
    ],
)
def test_every_monitor_is_as_it_is_described(record: Generation) -> None:
    monitors = Monitors(links=Links(), retention=timedelta(days=30), clock=lambda: NOON, backlog=lambda: 0)
    monitor = json.loads(json.dumps(monitors.to_json(record, monitor_urls(record, "https://app.example.com/api"))))
    check("Monitor", monitor)
    check("MonitorList", {"value": [monitor]})


def test_other_answers_are_as_they_are_described() -> None:
    service = build(SETTINGS)
    check("ModelList", json.loads(service.models.get(GET).content()))
    problems = [FieldProblem("n", "is 0"), FieldProblem("size", "is big")]
    check("ErrorBody", json.loads(error_response(RequestError.for_fields(problems)).content()))
    check("ErrorBody", json.loads(error_response(HttpError(404, "c", "m")).content()))


def test_a_check_of_these_can_fail() -> None:
    with pytest.raises(ValidationError):
        check("ModelList", {"value": [{"name": "a"}]})
    with pytest.raises(ValidationError):
        check("StartRequest", {"prompt": "x", "sise": "1x1"})  # a typo must not be billed
    check("StartRequest", {"prompt": "x", "size": "1024x1024", "timeoutSeconds": 60, "output_format": "png"})
