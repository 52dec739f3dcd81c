"""The routes of the HTTP functions, with starlette's router and the rules of the Azure host.

Azure makes each function one route, and the methods a constraint of that route. So a wrong method is 404 with an empty
body, as an unknown path is, not 405, and GET does not imply HEAD. Routes are tried in the alphabetical order of the
functions' names (FunctionMetadataManager): not the more literal route wins, but the first name. Letter case never
matters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import combinations
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from local.host.settings import ConfigurationError

_RESERVED = ("admin", "runtime")
_BODY_LIMIT = 100 * 1024 * 1024
_TEMPLATE = re.compile(r"(?:[^{}]|\{[A-Za-z]\w*\})*(?:(?<![^/])\{\*[A-Za-z]\w*\})?", re.ASCII)


class FunctionRoute(Route):
    """One path of a function. `app` must be an object: starlette would call a plain function with a Request."""

    def __init__(self, path: str, function: str, app: ASGIApp, methods: Collection[str], template: str) -> None:
        super().__init__(path, app, name=function, max_body_size=_BODY_LIMIT)
        # starlette would add HEAD to GET.
        self.methods = {method.upper() for method in methods} or None
        self._template = template.lower()
        # \Z, because $ also matches before a last line break.
        pattern = self.path_regex.pattern.removesuffix("$") + r"\Z"
        self.path_regex = re.compile(pattern, re.IGNORECASE | re.DOTALL)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match, child_scope) if match is Match.FULL else (Match.NONE, {})

    def conflicts_with(self, other: FunctionRoute) -> bool:
        """Whether both are of different functions with one template and a common method."""
        if self.name == other.name or self._template != other._template:
            return False
        return not self.methods or not other.methods or not self.methods.isdisjoint(other.methods)


class HttpRouter(Router):
    def __init__(self, routes: Iterable[FunctionRoute]) -> None:
        # In upper case, as StringComparer.OrdinalIgnoreCase compares.
        ordered = sorted(routes, key=lambda route: route.name.upper())
        for one, other in combinations(ordered, 2):
            if one.conflicts_with(other):
                raise ConfigurationError(
                    f"function {other.name}: its route and a method are those of function {one.name}. Change one."
                )
        super().__init__(ordered, redirect_slashes=False, default=Response(status_code=404))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__({**scope, "path": _path(scope)}, receive, send)


def function_routes(
    function: str, template: str, app: ASGIApp, *, prefix: str = "", methods: Collection[str] = ()
) -> list[FunctionRoute]:
    """Return the routes of a function: two if its template ends in a catch-all."""
    if not _TEMPLATE.fullmatch(template):
        raise ConfigurationError(
            f"function {function}: the local host does not support the route {template!r}. "
            "It supports {name} and, as the last segment, {*name}."
        )
    if template.strip("/").lower().startswith(_RESERVED):
        raise ConfigurationError(
            f"function {function}: Azure reserves routes that start with 'admin' or 'runtime', such as {template!r}. "
            "Choose another route."
        )
    whole = "/" + "/".join(filter(None, (prefix, template.strip("/"))))
    start, catch_all, name = whole.partition("{*")
    # ASP.NET's {*name} also matches if the path ends before it; starlette needs a second route for that.
    paths = [start.rstrip("/"), f"{start}{{{name[:-1]}:path}}"] if catch_all else [whole]
    try:
        return [FunctionRoute(path or "/", function, app, methods, whole) for path in paths]
    except ValueError as error:  # a parameter twice
        raise ConfigurationError(f"function {function}: {error}") from None


def raw_path(scope: Scope) -> str:
    """Return the path as the client sent it."""
    raw: bytes = scope["raw_path"]
    return raw.decode("ascii", "replace")


def _path(scope: Scope) -> str:
    # Kestrel keeps an encoded slash encoded: it does not separate segments.
    decoded = unquote(re.sub("%2f", "%252F", raw_path(scope), flags=re.IGNORECASE))
    return "/" + decoded.strip("/")
