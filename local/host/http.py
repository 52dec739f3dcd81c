"""HTTP functions: a request becomes an RpcHttp, an RpcHttp becomes a response.

The conversions are those of GrpcMessageConversionExtensions in azure-functions-host: header names are in lower case,
repeated headers and repeated query keys are joined with a comma, a query key without a value is left out, and only a
body with Content-Length is passed on: a chunked body arrives empty.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local.host.messages import RpcHttp, TypedData
from local.host.routes import raw_path
from local.host.runtime import Function, Outcome, Worker

logger = logging.getLogger(__name__)

# The server writes these.
_SERVER_HEADERS = {"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"}


class HttpFunction:
    """The ASGI application that invokes one function."""

    def __init__(self, function: Function, worker: Worker) -> None:
        self._function = function
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        reason = f"{request.method} {raw_path(scope)}"
        try:
            body = await request.body()
        except ClientDisconnect:
            logger.info("the client disconnected while it sent the body of %s", reason)
            return
        data = TypedData(http=_rpc_http(request, body))
        outcome = await self._worker.invoke(self._function, data, reason=reason)
        await to_response(outcome)(scope, receive, send)


def to_response(outcome: Outcome) -> Response:
    """Return the response to a request: 500 without a body if the function failed."""
    if not outcome.succeeded:
        return Response(status_code=500)
    value = outcome.value or TypedData()
    if value.http is None:
        return Response(value.string, media_type="text/plain")
    response = Response(value.http.body and value.http.body.bytes, status_code=int(value.http.status_code))
    for name, text in value.http.headers.items():
        if name.lower() not in _SERVER_HEADERS:
            response.headers[name] = text
    return response


def _rpc_http(request: Request, body: bytes) -> RpcHttp:
    host = request.headers.get("host") or request.url.netloc
    query: str = request.scope["query_string"].decode("latin-1")
    path = f"{raw_path(request.scope)}?{query}" if query else raw_path(request.scope)
    return RpcHttp(
        method=request.method,
        url=f"{request.scope['scheme']}://{host}{path}",
        headers=joined(request.headers.items()),
        params=request.path_params,
        query={key: value for key, value in joined(parse_qsl(query, keep_blank_values=True)).items() if value},
        # An empty body is no value; the runtime makes it b"".
        body=TypedData(bytes=body) if body and "transfer-encoding" not in request.headers else TypedData(),
    )


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join repeated names with a comma. Letter case does not distinguish names; the first spelling stays."""
    spelled: dict[str, str] = {}
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(spelled.setdefault(name.lower(), name), []).append(value)
    return {name: ",".join(several) for name, several in values.items()}
