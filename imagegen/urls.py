"""URLs in settings and responses: their origin, and the rules for a base URL."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL in one normal form: ``https://example.com:443``.

    Raises
    ------
    ValueError
        Without an http or https scheme or a host, or with an invalid port.
    """
    # URL parsers disagree about these characters, and the validator and the client must agree on the host.
    authority = re.split(r"[/?#]", url.partition("://")[2])[0]
    if not url.isprintable() or any(mark in url for mark in '\\ <>"') or "@" in authority:
        raise ValueError("contains a user, a space, a backslash, a quote or an angle bracket. Remove it.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose message quotes a part of the URL
        raise ValueError("is not a URL. Use one such as https://example.com.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https URL. Use one such as https://example.com.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{(443 if parts.scheme == 'https' else 80) if port is None else port}"


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def _base_url(url: str) -> str:
    origin_of(url)
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment. Use the scheme and host, with the path of a gateway if any.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("uses http. Use https; http is accepted only for this machine, such as http://localhost:7072.")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
