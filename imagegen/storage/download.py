"""Download of an image from an untrusted URL.

The request carries no credential, reaches no private address, and ends at a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import requests
import requests_hardened.ip_filter
from requests.adapters import HTTPAdapter
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from urllib3.exceptions import HTTPError

from imagegen.connections import BoundedAdapter, bound, response_deadline
from imagegen.errors import ImageUnusableError
from imagegen.urls import origin_of

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 15
_MOST_REDIRECTS: Final = 3
_CHUNK: Final = 1 << 18
_LENGTH: Final = re.compile(r"[0-9]{1,18}")

_FINAL: Final = frozenset({400, 401, 405, 410, 415, 451})
"""Statuses that a retry does not change. 403 and 404 may: a link expires, and the next poll returns a new one."""

# The filter of requests_hardened does not know these.
requests_hardened.ip_filter.EXTRA_BLOCKED_NET_RANGES += (
    ip_network("168.63.129.16/32"),  # Azure's platform service for each machine: public by its number only
    ip_network("::/96"),  # three forms of IPv6 that can reach a private IPv4 address or network
    ip_network("::ffff:0:0:0/96"),
    ip_network("fec0::/10"),
)


@dataclass(frozen=True, slots=True)
class Download:
    length: int | None
    """Bytes, as the server announced; None if it announced none."""
    chunks: Iterable[bytes]


class Downloader:
    """Downloads images. Thread-safe.

    Parameters
    ----------
    allowed_hosts
        Hosts of image URLs, as ``host``, ``host:port`` or ``.suffix``. Empty: any public https host.
    endpoints
        URLs of the image services. Their origins are always allowed.
    connections
        The number of threads that download at the same time.
    seconds
        Time limit for one image.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str],
        endpoints: Iterable[str],
        connections: int,
        seconds: float,
    ) -> None:
        self._allowed = tuple(allowed_hosts)
        self._own_origins = {origin_of(endpoint) for endpoint in endpoints}
        self._seconds = seconds
        self._trusted = _without_credentials(requests.Session())
        self._public = _without_credentials(
            HTTPSession(
                Config(
                    ip_filter_enable=True,
                    ip_filter_allow_loopback_ips=False,
                    never_redirect=True,
                    default_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                )
            )
        )
        for scheme in ("https://", "http://"):
            self._trusted.mount(scheme, BoundedAdapter(pool_maxsize=connections))
        for adapter in self._public.adapters.values():  # of requests_hardened, which filter addresses
            if isinstance(adapter, HTTPAdapter):
                bound(adapter, connections=connections)

    @contextmanager
    def open(self, url: str) -> Generator[Download]:
        """Start the download. Read the chunks within the ``with``.

        Raises
        ------
        ImageUnusableError
            Here, or while the chunks are read. The message never holds the URL, which is a credential.
        """
        try:
            # The deadline belongs to the response of this request. The caller uses storage within the ``with``, whose
            # responses it must not cut.
            with response_deadline(self._seconds):
                response = self._get(url)
            with response:
                if response.status_code != 200:
                    again = response.status_code not in _FINAL
                    raise ImageUnusableError(
                        "imageUnavailable", f"the image URL answered {response.status_code}", again=again
                    )
                yield Download(_content_length(response), _chunks(response))
        except InvalidIPAddress:
            raise _not_allowed("its host has a private address") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            raise ImageUnusableError(
                "imageUnavailable", f"the download failed ({type(error).__name__})", again=True
            ) from None

    def _get(self, url: str) -> Response:
        for _ in range(_MOST_REDIRECTS + 1):
            session = self._session_for(url)
            response = session.get(
                url,
                # Without compression, the announced length is the length of the image.
                headers={"Accept": "image/*", "Accept-Encoding": "identity"},
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
                stream=True,
            )
            target = session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            url = urljoin(url, target)
        raise ImageUnusableError(
            "imageUnavailable", f"the image URL redirects more than {_MOST_REDIRECTS} times", again=False
        )

    def _session_for(self, url: str) -> requests.Session:
        """The session for a URL, which may be that of a redirect. Raises if the URL is not allowed."""
        try:
            origin = origin_of(url)
        except ValueError:
            raise _not_allowed("it is not an http or https URL") from None
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if origin in self._own_origins or any(_matches(host, parts.port, allowed) for allowed in self._allowed):
            return self._trusted
        if self._allowed:
            raise _not_allowed(f"its host '{host}' is not in IMAGE_URL_ALLOWED_HOSTS")
        if parts.scheme != "https":
            raise _not_allowed("it is not https")
        return self._public


def _chunks(response: Response) -> Iterator[bytes]:
    # read1 returns what has arrived, instead of waiting for a whole chunk.
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        yield chunk


def _without_credentials(session: requests.Session) -> requests.Session:
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = _no_auth  # otherwise requests reads a .netrc
    return session


def _no_auth(request: PreparedRequest) -> PreparedRequest:
    return request


def _content_length(response: Response) -> int | None:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None  # the length of the compressed bytes
    stated = response.headers.get("Content-Length", "").strip()
    return int(stated) if _LENGTH.fullmatch(stated) else None


def _matches(host: str, port: int | None, allowed: str) -> bool:
    name, _, stated_port = allowed.rpartition(":") if allowed.rpartition(":")[2].isdigit() else (allowed, "", "")
    if stated_port and stated_port != str(port):
        return False
    return host.endswith(name) if name.startswith(".") else host == name.strip("[]")


def _not_allowed(reason: str) -> ImageUnusableError:
    return ImageUnusableError("imageUrlNotAllowed", f"the image URL is not allowed: {reason}", again=False)
