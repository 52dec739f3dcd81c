"""The answer of the catch-all: repeated slashes, another image API, a wrong path or method."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

import function_app
from imagegen.settings import read_settings
from imagegen.web.http import Handler, Request, Response, answer
from imagegen.web.route_table import ROUTES
from imagegen.web.unmatched import unmatched
from tests.app.generations import ID
from tests.app.web.test_routes import BASE, SETTINGS

SUBMIT = "openai/images/generations:submit"


def handler(name: str) -> Callable[[], Handler]:
    """Answers with its own name and with the parameters of the route."""
    return lambda: lambda request: Response(200, {"handler": name, "route": dict(request.route)})


HANDLERS = {name: handler(name) for name in function_app.CHECKED_BY_APP}


def ask(method: str, path: str, query: str = "") -> tuple[Response, Any]:
    request = Request(method, f"http://localhost/api/{path}{query}", {}, {}, {"path": path}, b"")
    handle = partial(unmatched, handlers=HANDLERS, settings=lambda: read_settings(SETTINGS))
    response = answer(request, handle)
    return response, json.loads(response.content())


def test_no_route_with_a_function_key_has_a_handler() -> None:
    """The catch-all is anonymous: a handler here would be a way around the key."""
    assert HANDLERS.keys() == {route.operation_id for route in ROUTES if route.auth != "functionKey"}


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", f"/generations/{ID}", "getGeneration"),
        ("GET", f"generations//{ID}", "getGeneration"),
        ("GET", f"//generations//{ID}///result", "getGenerationResult"),
        ("POST", f"/generations/{ID}/cancel", "cancelGeneration"),
        ("DELETE", f"/generations/{ID}//", "deleteGeneration"),
        ("POST", f"/{SUBMIT}", "submitOldGeneration"),
        ("POST", f"/{SUBMIT}/", "submitOldGeneration"),
        ("POST", "openai//images///generations:submit", "submitOldGeneration"),
        ("POST", "/OpenAI/Images/generations:submit", "submitOldGeneration"),
        ("GET", f"/openai/operations/images/{ID}", "getOldOperation"),
        ("DELETE", f"/openai/operations/images//{ID}", "deleteOldOperation"),
        ("GET", "/health", "getHealth"),
        ("HEAD", "//health", "getHealth"),
        ("GET", "/openapi.json", "getOpenApi"),
    ],
)
def test_repeated_slashes_are_one(method: str, path: str, name: str) -> None:
    response, body = ask(method, path)
    assert response.status == 200
    assert body == {"handler": name, "route": {"id": ID} if ID in path else {}}


@pytest.mark.parametrize(
    ("method", "path", "query", "location"),
    [
        ("POST", "/generations", "", "/generations"),
        ("POST", "///generations//", "", "/generations"),
        (
            "GET",
            "/generations",
            "?status=failed&after=a%2Fb%20c&code=k%3D",
            "/generations?status=failed&after=a%2Fb%20c&code=k%3D",
        ),
        ("GET", "/Generations", "?x=//evil.example", "/generations?x=//evil.example"),
        ("GET", "//models", "", "/models"),
    ],
)
def test_route_with_a_function_key_is_redirected(method: str, path: str, query: str, location: str) -> None:
    response, body = ask(method, path, query)
    assert response.status == 308  # keeps method and body
    assert response.headers["Location"] == BASE + location
    assert body["error"]["message"] == f"The path has repeated slashes. Use {BASE}{location.partition('?')[0]}."


@pytest.mark.parametrize(
    "path",
    [
        "/evil.example/generations",
        "//evil.example//generations",
        "/evil.example%2Fgenerations",
        "/%2Fgenerations",
        "%2F%2Fgenerations",
        "/./generations",
        "/../generations",
        "/.//generations",
        "/\\evil.example\\generations",
        "/generations\n",
        "/generations?x",
        "/@evil.example/generations",
        "/https://evil.example/generations",
        "/g\u0435nerations",  # a Cyrillic letter
        "/generation\u017f",  # a long s, which equals s without letter case
    ],
)
def test_no_path_redirects_elsewhere(path: str) -> None:
    for method in ("GET", "POST"):
        response, _ = ask(method, path)
        assert response.status in (404, 405)
        assert "Location" not in response.headers


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
def test_every_redirect_stays_on_the_base_of_the_app(route: Any) -> None:
    response, _ = ask(route.method, "//" + route.path.replace("{id}", "evil.example"))
    location = response.headers.get("Location", BASE)
    assert (response.status == 308) is (route.auth == "functionKey")
    assert urlsplit(location).netloc == urlsplit(BASE).netloc


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("PUT", "generations", 405, "GET, POST"),
        ("PUT", "Generations", 405, "GET, POST"),
        ("PUT", "//generations", 405, "GET, POST"),
        ("POST", f"generations/{ID}", 405, "GET, DELETE"),
        ("GET", f"generations/{ID}/cancel", 405, "POST"),
        ("DELETE", "health", 405, "GET, HEAD"),
        ("GET", SUBMIT, 405, "POST"),
        ("GET", "openapi_json", 404, None),  # the dot in "openapi.json" matches only a dot
        ("GET", "generations/a/b", 404, None),
        ("GET", "", 404, None),
        ("GET", "/", 404, None),
    ],
)
def test_unknown_route_is_404_and_wrong_method_is_405(method: str, path: str, status: int, allow: str | None) -> None:
    response, body = ask(method, path)
    assert (response.status, response.headers.get("Allow")) == (status, allow)
    assert body["error"]["code"] == ("methodNotAllowed" if allow else "notFound")
    assert allow is None or body["error"]["message"] == f"This route does not accept {method}. Use {allow}."


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation_id)
def test_accepted_method_is_never_called_unaccepted(route: Any) -> None:
    response, body = ask(route.method, route.path.replace("{id}", ID))
    assert (response.status, body["error"]["message"]) == (404, "This route is not available in this app.")


@pytest.mark.parametrize(
    "path",
    [
        "images/generations",
        "/images/generations",
        "v1/images/generations",
        "openai/v1/images/generations",
        "openai/images/generations",
        "openai/deployments/dall-e-3/images/generations",
        "/openai//deployments/gpt-image-2/images/generations/",
        "openai/deployments/gpt-image-2/images/edits",
        "images/edits",
        "v1/images/variations",
    ],
)
def test_synchronous_api_is_404_with_the_route_to_use(path: str) -> None:
    response, body = ask("POST", path)
    message = body["error"]["message"]
    assert (response.status, body["error"]["code"]) == (404, "notFound")
    assert f"POST {BASE}/generations" in message
    assert ("no input images" in message) is ("generations" not in path)


def test_unknown_route_needs_no_settings() -> None:
    def fail() -> Any:
        raise AssertionError("read")

    request = Request("GET", "http://localhost/api/x", {}, {}, {"path": "x"}, b"")
    assert answer(request, partial(unmatched, handlers={}, settings=fail)).status == 404
