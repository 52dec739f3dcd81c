"""ASP.NET route templates, as HTTP triggers use them.

What the real host does, from WebScriptHostHttpRoutesManager and WebJobsRouter: every function is one entry in a
RouteCollection, its methods are a route constraint, and a constraint that fails is no match. So a wrong method is
404 with an empty body, as an unknown path is, not 405; and a function that takes GET takes HEAD. Routes are tried in
the order of the functions, which FunctionMetadataManager sorts by name: not the more literal route wins, but the one
whose function comes first in the alphabet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from local.host.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_PARAMETER = re.compile(r"\{(?P<stars>\*{0,2})(?P<name>\w+)(?P<constraints>(?::[^{}=?]+)*)(?P<optional>\?)?\}")
_CONSTRAINT = re.compile(r":(\w+)(?:\(([^)]*)\))?")
_GUID = re.compile(r"\{?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\}?", re.IGNORECASE)

_CONSTRAINTS: Mapping[str, Callable[[str, str], bool]] = {
    "int": lambda value, _: _is_whole(value, bits=32),
    "long": lambda value, _: _is_whole(value, bits=64),
    "bool": lambda value, _: value.lower() in {"true", "false"},
    "guid": lambda value, _: _GUID.fullmatch(value) is not None,
    "alpha": lambda value, _: re.fullmatch("[A-Za-z]*", value) is not None,
    "required": lambda value, _: value != "",
    "length": lambda value, limit: _between(len(value), limit, exact=True),
    "minlength": lambda value, limit: len(value) >= int(limit),
    "maxlength": lambda value, limit: len(value) <= int(limit),
    "min": lambda value, limit: _is_whole(value, bits=64) and int(value) >= int(limit),
    "max": lambda value, limit: _is_whole(value, bits=64) and int(value) <= int(limit),
    "range": lambda value, limit: _is_whole(value, bits=64) and _between(int(value), limit),
    "regex": lambda value, pattern: re.search(pattern, value, re.IGNORECASE) is not None,
}


@dataclass(frozen=True)
class Route:
    """The route of one function."""

    function: str
    template: str
    """With the route prefix."""
    methods: frozenset[str] | None
    """Upper case; None takes every method."""
    pattern: re.Pattern[str]
    constraints: Mapping[str, tuple[tuple[str, str], ...]]

    def match(self, path: str) -> dict[str, str] | None:
        """Return the route parameters if the decoded path fits, without a leading slash."""
        found = self.pattern.fullmatch(path.strip("/"))
        if found is None:
            return None
        parameters = {name: value for name, value in found.groupdict().items() if value is not None}
        for name, value in parameters.items():
            if not all(_CONSTRAINTS[kind](value, argument) for kind, argument in self.constraints[name]):
                return None
        return parameters


class Router:
    def __init__(self, routes: Iterable[Route]) -> None:
        # StringComparer.OrdinalIgnoreCase compares in upper case.
        self._routes = sorted(routes, key=lambda route: route.function.upper())

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the function's route for a request and the route parameters, or None: 404."""
        path = _decoded(raw_path)
        for route in self._routes:
            if route.methods is not None and method not in route.methods:
                continue
            parameters = route.match(path)
            if parameters is not None:
                return route, parameters
        return None


def parse(function: str, template: str, *, prefix: str = "", methods: Iterable[str] | None = None) -> Route:
    """Read a route template.

    Raises
    ------
    ConfigurationError
        It is not a template ASP.NET would take, or uses a constraint unknown here.
    """
    whole = "/".join(part for part in (prefix, template.strip("/")) if part)
    patterns: list[str] = []
    constraints: dict[str, tuple[tuple[str, str], ...]] = {}
    segments = _segments(whole)
    for position, segment in enumerate(segments):
        parameters = list(_PARAMETER.finditer(segment))
        _check(function, segment, parameters, last=position == len(segments) - 1)
        patterns.append(_pattern(segment, parameters, first=position == 0))
        for parameter in parameters:
            constraints[parameter["name"]] = _constraints(function, parameter["constraints"])
    allowed = None if methods is None else {method.upper() for method in methods}
    if allowed and "GET" in allowed:
        allowed.add("HEAD")
    return Route(
        function=function,
        template=whole,
        methods=None if allowed is None else frozenset(allowed),
        pattern=re.compile("".join(patterns), re.IGNORECASE | re.DOTALL),
        constraints=constraints,
    )


def _segments(template: str) -> list[str]:
    # A constraint such as regex(a/b) may hold a slash, so only slashes outside braces separate.
    return [segment for segment in re.split(r"/(?![^{]*\})", template) if segment]


def _check(function: str, segment: str, parameters: list[re.Match[str]], *, last: bool) -> None:
    literal = _PARAMETER.sub("", segment)
    if "{" in literal or "}" in literal:
        raise ConfigurationError(f"function {function}: the route segment {segment!r} is not a route template")
    for parameter in parameters:
        if (parameter["stars"] or parameter["optional"]) and not (last and parameter[0] == segment):
            raise ConfigurationError(f"function {function}: {parameter[0]} must be the last segment, alone")


def _pattern(segment: str, parameters: list[re.Match[str]], *, first: bool) -> str:
    slash = "" if first else "/"
    if parameters and parameters[0]["stars"]:
        return f"(?:{slash}(?P<{parameters[0]['name']}>.*))?"
    if parameters and parameters[0]["optional"]:
        return f"(?:{slash}(?P<{parameters[0]['name']}>[^/]+))?"
    parts: list[str] = []
    end = 0
    for parameter in parameters:
        parts += [re.escape(segment[end : parameter.start()]), f"(?P<{parameter['name']}>[^/]+)"]
        end = parameter.end()
    return slash + "".join(parts) + re.escape(segment[end:])


def _constraints(function: str, text: str) -> tuple[tuple[str, str], ...]:
    found = tuple((name, argument or "") for name, argument in _CONSTRAINT.findall(text))
    for name, _ in found:
        if name not in _CONSTRAINTS:
            raise ConfigurationError(f"function {function}: the local host does not know the constraint {name!r}")
    return found


def _decoded(raw_path: str) -> str:
    # Kestrel decodes everything but an encoded slash, which would otherwise become a separator.
    return unquote(re.sub("%2f", "%252F", raw_path, flags=re.IGNORECASE))


def _is_whole(value: str, *, bits: int) -> bool:
    return re.fullmatch(r"[+-]?\d+", value) is not None and -(2 ** (bits - 1)) <= int(value) < 2 ** (bits - 1)


def _between(number: int, limits: str, *, exact: bool = False) -> bool:
    low, _, high = limits.partition(",")
    if not high:
        return number == int(low) if exact else number >= int(low)
    return int(low) <= number <= int(high)
