from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from local.host.routes import FunctionRoute, HttpRouter, function_routes
from local.host.settings import ConfigurationError

Found = tuple[str, dict[str, str]]


class App:
    """Answers with its route and parameters."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "found", "found": (scope["route"].name, scope["path_params"])})


app = App()


def find(routes: Sequence[FunctionRoute], method: str, path: str) -> Found | None:
    """Return the function that a request reaches and its route parameters; None: 404."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": method, "raw_path": path.encode(), "headers": []}
    asyncio.run(HttpRouter(routes)(scope, cast("Any", None), send))
    if "found" in sent[0]:
        return sent[0]["found"]
    assert (sent[0]["status"], sent[1]["body"]) == (404, b"")
    return None


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("generations", "/generations", {}),
        ("generations", "/Generations/", {}),  # neither case nor a last slash matters
        ("generations", "/generations/1", None),
        ("generations", "/generations%0A", None),
        ("openai/images/generations:submit", "/openai/images/generations:submit", {}),
        ("openai/images/generations:submit", "/openai/images/generationsXsubmit", None),
        ("openai/operations/images/{id}", "/openai/operations/images/abc", {"id": "abc"}),
        ("openai/operations/images/{id}", "/openai/operations/images/", None),
        ("{id}", "/a%20b%2Fc", {"id": "a b%2Fc"}),  # decoded, but an encoded slash stays one segment
        ("{id}", "/%C3%BC", {"id": "ü"}),
        ("{id}", "/a%0Ab", {"id": "a\nb"}),
        ("files/{*rest}", "/files/a/b/c", {"rest": "a/b/c"}),
        ("files/{*rest}", "/files/a%0Ab", {"rest": "a\nb"}),
        ("files/{*rest}", "/files", {}),
        ("files/{*rest}", "/filesystem", None),
        ("{*rest}", "/anything/at/all", {"rest": "anything/at/all"}),
        ("images/{id}.{format}", "/images/1.png", {"id": "1", "format": "png"}),
        ("deployments/{name}:cancel", "/deployments/x:cancel", {"name": "x"}),
        ("a.b", "/axb", None),  # a dot is no wildcard
    ],
)
def test_template_matches_as_in_azure(template: str, path: str, parameters: dict[str, str] | None) -> None:
    found = find(function_routes("f", template, app), "GET", path)
    assert found == (None if parameters is None else ("f", parameters))


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("a_rest", "b_literal"), "a_rest"),  # not the more literal one
        (("z_rest", "b_literal"), "b_literal"),
        (("Z_rest", "a_literal"), "a_literal"),  # in any case
        (("a_rest", "ab_literal"), "ab_literal"),  # compared in upper case, where _ comes after B
    ],
)
def test_routes_are_tried_by_function_name(names: tuple[str, str], first: str) -> None:
    rest = function_routes(names[0], "images/{*all}", app)
    literal = function_routes(names[1], "images/generations", app)
    for routes in (rest + literal, literal + rest):
        found = find(routes, "GET", "/images/generations")
        assert found is not None
        assert found[0] == first


@pytest.mark.parametrize(
    ("methods", "method", "matches"),
    [
        ((), "PATCH", True),  # no methods: all of them
        (("post",), "POST", True),  # the case in the decorator does not matter
        (("GET",), "HEAD", False),  # GET does not imply it
        (("GET", "HEAD"), "HEAD", True),
        (("POST",), "HEAD", False),
        (("GET",), "POST", False),
    ],
)
def test_wrong_method_does_not_match(methods: tuple[str, ...], method: str, matches: bool) -> None:
    assert (find(function_routes("f", "x", app, methods=methods), method, "/x") is not None) is matches


def test_method_selects_among_functions_of_one_route() -> None:
    routes = [
        *function_routes("read", "x/{id}", app, methods=["GET"]),
        *function_routes("remove", "x/{id}", app, methods=["DELETE"]),
        *function_routes("unknown", "{*path}", app),
    ]
    assert find(routes, "GET", "/x/1") == ("read", {"id": "1"})
    assert find(routes, "DELETE", "/x/1") == ("remove", {"id": "1"})
    assert find(routes, "PUT", "/x/1") == ("unknown", {"path": "x/1"})


@pytest.mark.parametrize(("prefix", "path"), [("api", "/api/x"), ("", "/x"), ("a/b", "/a/b/x")])
def test_route_prefix_comes_first(prefix: str, path: str) -> None:
    assert find(function_routes("f", "x", app, prefix=prefix), "GET", path) == ("f", {})


def test_repeated_parameter_is_named_with_function() -> None:
    with pytest.raises(ConfigurationError, match="function get_thing: Duplicated param name id"):
        function_routes("get_thing", "{id}/x/{id}", app)


@pytest.mark.parametrize(
    "template", ["{id", "id}", "{id:guid}", "{id?}", "{id=1}", "{*rest}/x", "x{*rest}", "{**rest}"]
)
def test_unsupported_template_is_named_with_function(template: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        function_routes("get_thing", template, app)
    assert str(raised.value).startswith(f"function get_thing: the local host does not support the route {template!r}")


@pytest.mark.parametrize("template", ["admin", "Admin/things", "/admin/things", "administrators", "runtime/x"])
def test_reserved_route_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^function f: Azure reserves routes that start with 'admin'"):
        function_routes("f", template, app, prefix="api")


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (("x/{id}", "GET"), ("X/{ID}/", "get"), True),
        (("x/{id}", "GET HEAD"), ("x/{id}", "HEAD"), True),
        (("x/{id}", "GET"), ("x/{id}", ""), True),  # no methods: all of them
        (("{*path}", ""), ("{*path}", ""), True),
        (("x/{id}", "GET"), ("x/{id}", "HEAD"), False),
        (("x/{id}", ""), ("x/{name}", ""), False),  # as in Azure: another template
        (("x", ""), ("x/{*rest}", ""), False),
    ],
)
def test_conflicting_routes_are_refused(one: tuple[str, str], other: tuple[str, str], *, conflict: bool) -> None:
    routes = [
        *function_routes("b", one[0], app, methods=one[1].split()),
        *function_routes("a", other[0], app, methods=other[1].split()),
    ]
    if not conflict:
        HttpRouter(routes)
        return
    with pytest.raises(ConfigurationError, match=r"^function b: its route and a method are those of function a"):
        HttpRouter(routes)
