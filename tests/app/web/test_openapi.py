"""``/openapi.json``: it has every route of the app, is valid, and matches the answers of the app."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from imagegen.app import build
from imagegen.errors import FieldProblem, RequestError
from imagegen.generation import Generation, GenerationError, Status
from imagegen.settings import read_settings
from imagegen.web.http import HttpError, Request, error_response
from imagegen.web.openapi import OpenApiRoute, description
from imagegen.web.route_table import ROUTES, Route
from local.stack import ROOT
from tests.app.generations import failed, new, running, stored
from tests.app.web.monitors import BASE, monitors

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


@pytest.fixture(scope="module")
def triggers() -> dict[str, dict[str, Any]]:
    """The HTTP trigger of each function in function_app.py."""
    # A new app object: the host's own, once imported, lists its functions only once.
    functions = runpy.run_path(str(ROOT / "function_app.py"))["app"].get_functions()
    bindings = {one.get_function_name(): json.loads(one.get_function_json())["bindings"] for one in functions}
    return {name: first for name, [first, *_] in bindings.items() if first["type"] == "httpTrigger"}


def test_table_matches_the_triggers(triggers: dict[str, dict[str, Any]]) -> None:
    declared = {
        (trigger["route"], tuple(trigger["methods"]), trigger["authLevel"])
        for name, trigger in triggers.items()
        if name != "unknown_route"
    }
    assert declared == {
        (route.path, route.methods, "FUNCTION" if route.auth == "functionKey" else "ANONYMOUS") for route in ROUTES
    }
    assert len(triggers) == len(ROUTES) + 1


def test_catch_all_is_the_last_function(triggers: dict[str, dict[str, Any]]) -> None:
    # Azure tries routes in the alphabetical order of the function names.
    assert max(triggers) == "unknown_route"
    assert triggers["unknown_route"]["route"] == "{*path}"


def test_description_has_its_version_and_this_server() -> None:
    assert WHOLE["openapi"] == "3.1.0"
    assert WHOLE["servers"] == [{"url": "https://app.example.com/api"}]
    assert "servers" not in description()  # which all requests share


def test_description_has_exactly_the_routes_of_the_app() -> None:
    described = [(path.lstrip("/"), method.upper()) for path, item in WHOLE["paths"].items() for method in item]
    assert sorted(described) == sorted((route.path, route.method) for route in ROUTES)
    assert len({route.operation_id for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
def test_every_operation_is_complete(route: Route) -> None:
    found = WHOLE["paths"][f"/{route.path}"][route.method.lower()]
    assert found["operationId"] == route.operation_id
    assert found["summary"]
    assert all(scheme in WHOLE["components"]["securitySchemes"] for one in found["security"] for scheme in one)
    parameters = found.get("parameters", [])
    in_path = {one["name"] for one in parameters if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", route.path))
    assert all(one["required"] for one in parameters if one["in"] == "path")
    for one in parameters:
        Draft202012Validator.check_schema(one["schema"])
    assert ("requestBody" in found) is (route.method == "POST" and "cancel" not in route.path)
    assert "503" in found["responses"]  # every route needs storage or settings
    for status, response in found["responses"].items():
        assert re.fullmatch(r"[2-5]\d\d", status)
        assert response["description"]
        without_body = status == "204" or (status == "401" and route.auth == "functionKey")
        assert ("content" in response) is not without_body
    assert ("401" in found["responses"]) is (route.auth in ("functionKey", "apiKey"))


def test_every_schema_is_valid_and_used() -> None:
    for schema in WHOLE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    references = {node["$ref"] for node in nodes(WHOLE) if "$ref" in node}
    named = {f"#/components/schemas/{name}" for name in WHOLE["components"]["schemas"]}
    assert references <= named
    assert named <= references  # no unused schema


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
def test_monitors_match_the_description(record: Generation) -> None:
    monitor = monitors().build(record, BASE).to_json()
    check("Monitor", monitor)
    check("MonitorList", {"value": [monitor]})


def test_other_answers_match_the_description() -> None:
    service = build(SETTINGS)
    check("ModelList", json.loads(service.models.get(GET).content()))
    problems = [FieldProblem("n", "is 0"), FieldProblem("size", "is big")]
    check("ErrorBody", json.loads(error_response(RequestError.for_fields(problems)).content()))
    check("ErrorBody", json.loads(error_response(HttpError(404, "c", "m")).content()))


def test_check_fails_on_a_wrong_answer() -> None:
    with pytest.raises(ValidationError):
        check("ModelList", {"value": [{"name": "a"}]})
    with pytest.raises(ValidationError):
        check("StartRequest", {"prompt": "x", "sise": "1x1"})  # a typo must not be billed
    check("StartRequest", {"prompt": "x", "size": "1024x1024", "timeoutSeconds": 60, "output_format": "png"})
