"""URLs in settings and responses: their origin, and the rules for a base URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

AZURE_HOST: Final = re.compile(
    r".+\.((openai|cognitiveservices|services\.ai|models\.ai)\.azure\.(com|us|cn)"
    r"|api\.cognitive\.microsoft\.com|api\.cognitive\.azure\.cn)"
)
"""A host of Azure's image services, in any cloud."""
_PRIVATE_NETWORKS: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"))
)
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
    if parts.hostname in ("http", "https"):
        raise ValueError("has its scheme twice. Remove one of them.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{(443 if parts.scheme == 'https' else 80) if port is None else port}"


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.example.com
        return False


def is_nearby(host: str) -> bool:
    """Whether this host is the machine itself, or on its private network."""
    try:
        address = ip_address(host)
    except ValueError:
        return is_loopback(host) or re.fullmatch(r"[\w-]+\.local|host\.(docker|containers)\.internal", host) is not None
    return address.is_loopback or any(address in network for network in _PRIVATE_NETWORKS)


def check_transport(url: str, *, http_for: Callable[[str], bool] = is_loopback) -> None:
    """Check that a URL is valid, and that a key does not leave this machine in plain text.

    Parameters
    ----------
    http_for
        Whether http is accepted for a host.

    Raises
    ------
    ValueError
        The message does not quote the URL.
    """
    if re.search(r"[,;|\s]\s*https?://", url, re.IGNORECASE):
        raise ValueError("has two URLs. Use one.")
    origin_of(url)
    parts = urlsplit(url)
    if not re.fullmatch(r"[\w.:-]+", parts.hostname or ""):
        raise ValueError("has a host with characters that no host name has. Correct it.")
    if parts.scheme == "http" and not http_for(parts.hostname or ""):
        nearby = " and its private network" if http_for is is_nearby else ""
        raise ValueError(f"uses http, which is accepted only for this machine (localhost){nearby}. Use https.")


def base_url_of(url: str, *, http_for: Callable[[str], bool] = is_loopback) -> str:
    """Check a URL without a query, and take the slash at its end off.

    Raises
    ------
    ValueError
        The message does not quote the URL.
    """
    check_transport(url, http_for=http_for)
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment. Use the scheme and host, and the path if there is one.")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(base_url_of)]
