"""The answer to a request that matches no trigger: repeated slashes, another image API, a wrong path or method.

The Functions host matches ``//generations`` to no route but the catch-all, which is anonymous. So this module never
calls the handler of a route that needs a function key: it redirects, and the host checks the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from imagegen.settings import Settings
from imagegen.web.http import Handler, HttpError, Request, Response, base_url
from imagegen.web.json_body import EXAMPLE
from imagegen.web.route_table import ROUTES, Route

_SYNCHRONOUS: Final = re.compile(
    r"(openai/)?(v1/|deployments/[^/]+/)?images/(?P<kind>generations|edits|variations)", re.IGNORECASE
)
"""What openai 1.x and 2.x call, with each of their base URLs."""


def unmatched(
    request: Request, *, handlers: Mapping[str, Callable[[], Handler]], settings: Callable[[], Settings]
) -> Response:
    """Answer a request that reached the catch-all.

    Parameters
    ----------
    handlers
        By operation id: the routes whose access the app checks itself. Exactly those without a function key.

    Raises
    ------
    HttpError
        404 or 405.
    """
    sent = request.route.get("path", "")
    path = re.sub("/+", "/", sent).strip("/")
    found = [(route, values) for route in ROUTES if (values := route.match(path)) is not None]
    for route, values in found:
        if request.method in route.methods:
            if "//" not in f"/{sent}":
                raise HttpError(404, "notFound", "This route is not available in this app.")
            return _without_slashes(replace(request, route=values), route, handlers, settings)
    if found:
        allowed = ", ".join(method for route, _ in found for method in route.methods)
        message = f"This route does not accept {request.method}. Use {allowed}."
        raise HttpError(405, "methodNotAllowed", message, headers={"Allow": allowed})
    if synchronous := _SYNCHRONOUS.fullmatch(path):
        base = base_url(request, settings())
        input_images = "" if synchronous["kind"].lower() == "generations" else " It takes no input images."
        message = (
            f"This app has no synchronous image API. Start with POST {base}/generations and a body such as {EXAMPLE}, "
            f"then poll the URL in Location.{input_images}"
        )
        raise HttpError(404, "notFound", message)
    raise HttpError(404, "notFound", "There is no such route. GET /openapi.json lists all routes.")


def _without_slashes(
    request: Request, route: Route, handlers: Mapping[str, Callable[[], Handler]], settings: Callable[[], Settings]
) -> Response:
    """The answer of this route; a redirect to it when the host must check the function key first."""
    if route.auth != "functionKey":
        return handlers[route.operation_id]()(request)
    # The path comes from the table and the host from the settings: no caller can redirect another one elsewhere.
    url = f"{base_url(request, settings())}/{route.path}"
    query = urlsplit(request.url).query
    # 308, because a client repeats the same method and body after it.
    error = HttpError(308, "permanentRedirect", f"The path has repeated slashes. Use {url}.")
    error.headers["Location"] = f"{url}?{query}" if query else url
    raise error
