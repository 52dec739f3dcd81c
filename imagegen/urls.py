"""URLs in settings and answers: what they must be, and whose they are."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling: ``https://example.com:443``.

    Raises
    ------
    ValueError
        When the URL has no http(s) scheme, no host, or a port that is none.
    """
    # Parsers disagree about these, and who checks must not read another host than who connects.
    authority = re.split(r"[/?#]", url.partition("://")[2])[0]
    if not url.isprintable() or any(mark in url for mark in '\\ <>"') or "@" in authority:
        raise ValueError("holds what an http or https URL does not have: a user, a space or a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text holds a part of the URL
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{(443 if parts.scheme == 'https' else 80) if port is None else port}"


def is_loopback(host: str) -> bool:
    """Whether this host name means the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def _base_url(url: str) -> str:
    origin_of(url)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be scheme and host (a gateway's path may follow), no user, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https (http is taken for this machine's own addresses only)")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
