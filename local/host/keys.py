"""Function keys, after AuthenticationLevelHandler of azure-functions-host."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from local.host.routes import raw_path

logger = logging.getLogger(__name__)


class KeyCheck:
    """Passes on requests that have the function key. Others are 401 without a body."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _sent_key(Request(scope)) == self._key:
            await self._app(scope, receive, send)
        else:
            logger.info("%s %s: 401, the function key is missing or wrong", scope["method"], raw_path(scope))
            await Response(status_code=401)(scope, receive, send)


def _sent_key(request: Request) -> str | None:
    """Return the first header, or the first value in the query if there is no such header."""
    sent = request.headers.getlist("x-functions-key") or request.query_params.getlist("code")
    return sent[0] if sent else None
