"""Downloads from untrusted URLs, against a real server that misbehaves."""

from __future__ import annotations

import gzip
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from imagegen.connections import BoundedAdapter
from imagegen.errors import ImageUnusableError
from imagegen.storage.download import Downloader
from tests.scripted_server import Reply, ScriptedServer, drip, http, scripted_server

BODY = b"0123456789"
FAR = "https://images.example.com"


def downloader(*allowed: str, endpoint: str = "https://endpoint.example.com", seconds: float = 30) -> Downloader:
    return Downloader(allowed_hosts=allowed, endpoints=[endpoint], connections=2, seconds=seconds)


def fetch(source: Downloader, url: str) -> tuple[bytes, int | None]:
    with source.open(url) as download:
        return b"".join(download.chunks), download.length


def refusal(source: Downloader, url: str) -> ImageUnusableError:
    with pytest.raises(ImageUnusableError) as caught:
        fetch(source, url)
    assert "s3cret" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("reply", "length"),
    [
        (http(200, BODY), 10),
        (http(200, BODY, content_length=None), None),  # ends with the connection
        (http(200, b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", transfer_encoding="chunked"), None),
        (http(200, BODY, content_length="10 "), 10),
        # Compressed against the request: the length is that of the compressed bytes.
        (http(200, gzip.compress(BODY), content_encoding="gzip"), None),
        # Digits for str.isdigit, but not a valid length.
        (http(200, BODY, content_length="\xb2"), None),
        (http(200, BODY, content_length="9" * 5_000), None),
    ],
)
def test_download_returns_the_bytes_and_the_announced_length(
    server: ScriptedServer, reply: bytes, length: int | None
) -> None:
    server.answers(reply)
    assert fetch(downloader(endpoint=server.url), f"{server.url}/0.png") == (BODY, length)


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        (http(200, BODY, content_length="11"), True),
        (http(200, b"a\r\n01234", transfer_encoding="chunked"), True),
        (http(200, b"5\r\n01234\r\n", transfer_encoding="chunked"), True),  # no last chunk
        (http(200, b"xyz\r\n01234\r\n", transfer_encoding="chunked"), True),
        (http(200, b"no gzip", content_encoding="gzip"), True),
        (b"", True),
        (b"SSH-2.0-OpenSSH_9.6\r\n", True),
        (http(204), True),
        (http(206, BODY), True),
        (http(403), True),  # an expired link; the next poll returns a new one
        (http(404), True),
        (http(429), True),
        (http(500), True),
        (http(304), True),
        # A retry would not help.
        (http(400), False),
        (http(401), False),
        (http(410), False),
        (http(451), False),
    ],
)
def test_failed_download_says_whether_to_retry(server: ScriptedServer, reply: Reply, again: bool) -> None:
    server.answers(reply)
    error = refusal(downloader(endpoint=server.url), f"{server.url}/0.png?sig=s3cret")
    assert (error.code, error.again) == ("imageUnavailable", again)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 Scripted\r\nX-Drip: ", http(200, content_length="1000000")])
def test_dripping_server_ends_at_the_time_limit(server: ScriptedServer, start: bytes) -> None:
    server.answers(drip(start))
    began = time.monotonic()
    error = refusal(downloader(endpoint=server.url, seconds=0.4), f"{server.url}/?sig=s3cret")
    assert time.monotonic() - began < 5
    assert (error.code, error.again) == ("imageUnavailable", True)


def test_redirects_share_one_time_limit(server: ScriptedServer) -> None:
    server.answers(http(302, location="/next"), drip(b"HTTP/1.1 200 Scripted\r\nX-Drip: "))
    began = time.monotonic()
    assert refusal(downloader(endpoint=server.url, seconds=0.4), server.url).again
    assert time.monotonic() - began < 5
    assert [seen.target for seen in server.seen] == ["/", "/next"]


def test_limit_of_a_download_does_not_bound_other_responses(server: ScriptedServer) -> None:
    """The images are written to storage while the download is open."""

    def slow(connection: socket.socket) -> None:
        time.sleep(0.5)
        connection.sendall(http(200, BODY))

    with scripted_server() as storage, requests.Session() as session:
        storage.answers(slow)
        session.mount("http://", BoundedAdapter(pool_maxsize=1))
        server.answers(http(200, BODY))
        with downloader(endpoint=server.url, seconds=0.4).open(server.url) as download:
            assert b"".join(download.chunks) == BODY
            assert session.get(storage.url, timeout=10).content == BODY


def test_no_credential_is_sent(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers(http(200, BODY, set_cookie="session=1; Path=/"))
    source = downloader(endpoint=server.url)
    for url in (server.url, f"{server.url}/again"):
        fetch(source, url)
    assert len(server.seen) == 2
    for seen in server.seen:
        assert not {"authorization", "cookie", "api-key", "referer"} & seen.headers.keys()
        assert seen.headers["accept-encoding"] == "identity"


# --- redirects


def test_three_redirects_are_followed(server: ScriptedServer) -> None:
    server.answers(
        http(302, location="/1"), http(307, location=f"{server.url}/2"), http(301, location="3?b=2"), http(200, BODY)
    )
    assert fetch(downloader(endpoint=server.url), f"{server.url}/0") == (BODY, 10)
    assert [seen.target for seen in server.seen] == ["/0", "/1", "/2", "/3?b=2"]


def test_endless_redirects_are_not_followed(server: ScriptedServer) -> None:
    server.answers(http(302, location="/again"))
    error = refusal(downloader(endpoint=server.url), server.url)
    assert (error.code, error.again) == ("imageUnavailable", False)
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://169.254.169.254/metadata/identity/oauth2/token", "it is not https"),
        ("https://169.254.169.254/", "its host has a private address"),
        ("https://localhost/", "its host has a private address"),
        ("https://[::1]/", "its host has a private address"),
        ("file:///etc/passwd", "it is not an http or https URL"),
        ("ftp://example.com/0.png", "it is not an http or https URL"),
    ],
)
def test_redirect_target_is_checked_like_the_url(server: ScriptedServer, target: str, reason: str) -> None:
    server.answers(http(302, location=target))
    error = refusal(downloader(endpoint=server.url), server.url)
    assert (error.code, error.again) == ("imageUrlNotAllowed", False)
    assert error.message.endswith(reason)


# --- allowed hosts


@pytest.mark.parametrize(
    ("allowed", "url", "expected"),
    [
        ("images.example.com", "https://images.example.com/", True),
        ("images.example.com", "http://IMAGES.example.com:81/", True),  # listed hosts may use http
        ("images.example.com", "https://x.images.example.com/", False),
        ("images.example.com", "https://images.example.com.evil.example/", False),
        ("images.example.com:8443", "https://images.example.com:8443/", True),
        ("images.example.com:443", "https://images.example.com/", True),
        ("images.example.com:80", "https://images.example.com/", False),
        ("images.example.com:8443", "https://images.example.com/", False),
        (".example.com", "https://a.b.example.com/", True),
        (".example.com", "https://example.com/", False),
        (".example.com", "https://evilexample.com/", False),
        (".example.com:8443", "https://a.example.com:8443/", True),
        (".example.com:8443", "https://a.example.com/", False),
        ("127.0.0.1", "http://127.0.0.1:9/", True),
        ("[::1]", "http://[::1]:9/", True),
        ("[::1]:9", "http://[::1]:9/", True),
        ("[::1]:9", "http://[::1]:8/", False),
    ],
)
def test_list_allows_its_hosts_and_no_others(
    allowed: str, url: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = _refuse_connections(monkeypatch, "93.184.216.34")
    error = refusal(downloader("unrelated.example.com", allowed), url)
    assert error.code == ("imageUnavailable" if expected else "imageUrlNotAllowed")
    assert bool(connected) is expected
    if not expected:
        assert error.message.endswith("is not in IMAGE_URL_ALLOWED_HOSTS")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104 - refused
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # the metadata service, which issues tokens
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
    ],
)
def test_host_with_a_private_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = _refuse_connections(monkeypatch, address)
    error = refusal(downloader(), f"{FAR}/0.png?sig=s3cret")
    assert (error.code, error.again) == ("imageUrlNotAllowed", False)
    assert connected == []


def test_client_connects_to_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = _refuse_connections(monkeypatch, "93.184.216.34")
    error = refusal(downloader(), f"{FAR}/0.png")
    assert (error.code, error.again) == ("imageUnavailable", True)
    assert connected == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "url", ["http://images.example.com/", "http://127.0.0.1/", "//images.example.com/", "", "data:,x"]
)
def test_without_a_list_only_https_is_allowed(url: str) -> None:
    assert refusal(downloader(), url).code == "imageUrlNotAllowed"


def test_unresolved_host_may_be_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refusal(downloader(), FAR)
    assert (error.code, error.again) == ("imageUnavailable", True)


def _refuse_connections(monkeypatch: pytest.MonkeyPatch, address: str) -> list[tuple[str, int]]:
    """Resolve every host to this address and refuse all connections. Returns the attempts."""
    connected: list[tuple[str, int]] = []

    def resolve(_host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(where: tuple[str, int], *_: object, **__: object) -> None:
        connected.append((where[0].strip("[]"), where[1]))
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    return connected
