"""URLs in settings and responses: their origin, and the rules for a base URL."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

AZURE_HOSTS: Final = (
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".api.cognitive.microsoft.com",
    ".services.ai.azure.com",
    ".models.ai.azure.com",
)
"""Ends of the hosts of Azure's image services."""
_FORBIDDEN: Final = {
    " ": "a blank",
    "\\": "a backslash",
    "<": "an angle bracket",
    ">": "an angle bracket",
    '"': "a quote",
}


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL in one normal form: ``https://example.com:443``.

    Raises
    ------
    ValueError
        Without an http or https scheme or a host, or with an invalid port.
    """
    # URL parsers disagree about these characters, and the validator and the client must agree on the host.
    authority = re.split(r"[/?#]", url.partition("://")[2])[0]
    if "@" in authority:
        raise ValueError("contains a user or a password (before @). Remove it.")
    if not url.isprintable() or any(mark in url for mark in _FORBIDDEN):
        found = next((name for mark, name in _FORBIDDEN.items() if mark in url), "a control character")
        raise ValueError(f"contains {found}. Remove it.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose message quotes a part of the URL
        raise ValueError("is not a URL. Use the scheme and the host.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http or https URL. Use one that starts with https://.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{(443 if parts.scheme == 'https' else 80) if port is None else port}"


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def check_transport(url: str) -> None:
    """Check that a URL is valid, and that a key does not leave this machine in plain text.

    Raises
    ------
    ValueError
        The message does not quote the URL.
    """
    origin_of(url)
    parts = urlsplit(url)
    if not re.fullmatch(r"[\w.:-]+", parts.hostname or ""):
        raise ValueError("has a host with characters that no host name has. Correct it.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("uses http, which is accepted only for this machine (localhost). Use https.")


def _base_url(url: str) -> str:
    check_transport(url)
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment. Use the scheme and host, and the path if there is one.")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]
