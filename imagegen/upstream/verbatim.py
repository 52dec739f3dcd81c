"""URLs that are sent byte for byte as given.

urllib3 normalizes a URL (``%2f`` becomes ``%2F``). RFC 3986 calls both equal, but a signature may cover the original.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from imagegen.connections import POOLS, BoundedAdapter, BoundedConnection, BoundedSecureConnection

_TARGET: ContextVar[str] = ContextVar("target")
"""Path and query of this thread's request."""


class _Connection(BoundedConnection):
    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        super().putrequest(method, _TARGET.get(url), *args, **options)


class _SecureConnection(BoundedSecureConnection):
    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        super().putrequest(method, _TARGET.get(url), *args, **options)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType] - as in urllib3's own class


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType] - as above


class VerbatimAdapter(BoundedAdapter):
    """Sends the ``url`` of a prepared request unchanged. A proxy for plain http needs the whole URL, normalized."""

    pools = {"http": _Pool, "https": _SecurePool}  # noqa: RUF012 - as in the base class
    proxied_pools = POOLS | {"https": _SecurePool}

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        token = _TARGET.set(request.path_url)
        try:
            return super().send(request, *args, **options)
        finally:
            _TARGET.reset(token)
