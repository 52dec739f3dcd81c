"""HTTP triggers: a request becomes an RpcHttp, an RpcHttp a response.

The conversions are those of GrpcMessageConversionExtensions in azure-functions-host: header names in lower case,
repeated headers and repeated query keys joined with a comma, a query key without a value left out.
"""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from local.host.logs import logger
from local.host.messages import RpcHttp, TypedData
from local.host.routes import Route, Router

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from local.host.invocations import Invoker, Outcome
    from local.host.messages import RpcHttpCookie
    from local.host.runtime import Function

    Manual = Callable[[str], Awaitable[None]]

_BODY_LIMIT = 100 * 1024 * 1024
_SAME_SITE = {1: "Lax", 2: "Strict", 3: "None"}
# These describe the message on the wire, which the server writes.
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "upgrade"}


class TooLargeError(Exception):
    """A request body is over the limit."""


class HttpTriggers:
    """The ASGI application: the HTTP functions, and the few paths the Azure host has itself."""

    def __init__(
        self, routes: Mapping[Function, Route], invoker: Invoker, *, manual: Mapping[str, Manual] | None = None
    ) -> None:
        self._functions = {function.name: function for function in routes}
        self._router = Router(routes.values())
        self._invoker = invoker
        self._manual = manual or {}
        self._background: set[asyncio.Future[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except ClientDisconnect:  # nobody is left to answer
            logger.info("the client left in the middle of its %s %s", request.method, request.url.path)
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        found = self._router.find(request.method, _raw_path(request))
        if found is not None:
            route, parameters = found
            return await self._invoke(self._functions[route.function], request, parameters)
        if request.url.path.startswith("/admin/"):
            return await self._admin(request)
        if request.url.path == "/" and request.method in {"GET", "HEAD"}:
            return PlainTextResponse("The local Functions host is up and running.\n")
        return Response(status_code=404)

    async def _invoke(self, function: Function, request: Request, parameters: Mapping[str, str]) -> Response:
        try:
            body = await _body(request)
        except TooLargeError:
            return Response(status_code=413)
        outcome = await self._invoker.invoke(
            function,
            TypedData(http=_rpc_http(request, parameters, body)),
            reason=f"{request.method} {request.url.path}",
            trace_parent=request.headers.get("traceparent", ""),
        )
        return to_response(outcome)

    async def _admin(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/admin/")
        if path == "host/status" and request.method == "GET":
            return JSONResponse({"state": "Running"})
        name = path.removeprefix("functions/")
        if request.method != "POST" or name == path or name not in self._manual:
            return Response(status_code=404)
        try:
            content = json.loads(await _body(request) or b"{}")
            value = str(content.get("input") or "")
        except (ValueError, AttributeError, TooLargeError):
            return PlainTextResponse('the body must be {"input": "..."}\n', status_code=400)
        running = asyncio.ensure_future(self._manual[name](value))
        self._background.add(running)
        running.add_done_callback(self._background.discard)
        return Response(status_code=202)


def to_response(outcome: Outcome) -> Response:
    """Turn what the function returned into the response: nothing is 204, a failed function 500 and empty."""
    if not outcome.succeeded:
        return Response(status_code=500)
    value = outcome.value
    if value is None:
        return Response(status_code=204)
    if value.http is None:
        return _plain(value)
    response = Response(_bytes(value.http.body), status_code=int(value.http.status_code))
    for name, text in value.http.headers.items():
        # Starlette has counted the body; a function may only state another length for HEAD, where there is none.
        if name.lower() not in _HOP_BY_HOP and not (name.lower() == "content-length" and _bytes(value.http.body)):
            response.headers[name] = text
    for cookie in value.http.cookies or ():
        response.headers.append("set-cookie", _set_cookie(cookie))
    return response


def _plain(value: TypedData) -> Response:
    if value.json is not None:
        return Response(value.json, media_type="application/json")
    return Response(_bytes(value), media_type="text/plain" if value.bytes is None else "application/octet-stream")


def _bytes(value: TypedData | None) -> bytes:
    if value is None:
        return b""
    return value.bytes if value.bytes is not None else (value.string or value.json or "").encode()


def _rpc_http(request: Request, parameters: Mapping[str, str], body: bytes) -> RpcHttp:
    return RpcHttp(
        method=request.method,
        url=_url(request),
        headers=joined(request.headers.items()),
        params=parameters,
        query={k: v for k, v in joined(_query(request)).items() if v},
        # A body that is not there is no value at all; the runtime makes it b"".
        body=TypedData(bytes=body) if body else TypedData(),
    )


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join repeated names with a comma. Names are the same in any case, and keep the first one's."""
    spelled: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(spelled.setdefault(name.lower(), name), []).append(value)
    return {name: ",".join(several) for name, several in values.items()}


def _query(request: Request) -> list[tuple[str, str]]:
    return parse_qsl(request.url.query, keep_blank_values=True)


def _raw_path(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.decode("ascii", "replace").partition("?")[0]


def _url(request: Request) -> str:
    host = request.headers.get("host") or request.url.netloc
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.scheme}://{host}{_raw_path(request)}{query}"


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _BODY_LIMIT:
            raise TooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


def _set_cookie(cookie: RpcHttpCookie) -> str:
    parts = [f"{cookie.name}={cookie.value}"]
    if cookie.expires:
        parts.append(f"Expires={formatdate(cookie.expires.value.seconds, usegmt=True)}")
    if cookie.max_age:
        parts.append(f"Max-Age={int(cookie.max_age.value)}")
    # The runtime hands an attribute that was not given as an empty string.
    parts += [
        f"{key}={text.value}" for key, text in (("Domain", cookie.domain), ("Path", cookie.path)) if text and text.value
    ]
    if cookie.same_site in _SAME_SITE:
        parts.append(f"SameSite={_SAME_SITE[cookie.same_site]}")
    parts += [key for key, flag in (("Secure", cookie.secure), ("HttpOnly", cookie.http_only)) if flag and flag.value]
    return "; ".join(parts)
