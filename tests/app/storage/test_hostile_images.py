"""Image URLs and images that attack the app: disguised addresses, DNS rebinding, bombs, content of other types."""

from __future__ import annotations

import gzip
import socket
import struct
import subprocess
import sys
import tracemalloc
import zlib
from typing import Any

import pytest

from imagegen.errors import ImageUnusableError
from imagegen.storage.image_checks import check_image
from tests.app.storage.test_download import BODY, FAR, downloader, fetch, refusal
from tests.scripted_server import ScriptedServer, http

MEGABYTE = 2**20
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse all connections, and record their addresses. Names are resolved for real."""
    addresses: list[str] = []

    def connect(where: tuple[str, int], *_: object, **__: object) -> None:
        addresses.append(where[0].strip("[]"))
        raise ConnectionRefusedError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    return addresses


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",  # 127.0.0.1 as one number
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "2852039166",  # 169.254.169.254, the metadata service
        "0xa9fea9fe",
        "169.254.43518",
        "%31%32%37.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[2002:a9fe:a9fe::]",
        "[2001::80ff:fffe]",
        "[fec0::1]",
        "[fd00:ec2::254]",
        "168.63.129.16",  # the platform service of every machine in Azure: a public number that is not public
    ],
)
def test_private_address_in_any_spelling_is_refused(connected: list[str], host: str) -> None:
    error = refusal(downloader(), f"https://{host}/0.png?sig=s3cret")
    assert (error.code, error.again) == ("imageUrlNotAllowed", False)
    assert connected == []


@pytest.mark.parametrize(
    "host", ["\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "a..b", "x" * 300, "[fe80::1%25eth0]"]
)
def test_host_that_parsers_disagree_about_is_not_reached(connected: list[str], host: str) -> None:
    assert refusal(downloader(), f"https://{host}/0.png?sig=s3cret").code in ("imageUrlNotAllowed", "imageUnavailable")
    assert connected == []


@pytest.mark.parametrize(
    "url", ["https://a.example.com/\r\nX-Injected: yes", "https://a.example.com\r\n", "https://a\tb/", "https://a\x00/"]
)
def test_url_with_a_line_break_is_refused(connected: list[str], url: str) -> None:
    assert refusal(downloader(), url).code == "imageUrlNotAllowed"
    assert connected == []


def test_second_answer_of_the_dns_is_not_used(connected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a public address for the check, a private one for the connection."""
    asked: list[str] = []

    def rebind(host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    refusal(downloader(), f"{FAR}/0.png")
    assert asked[0] == "images.example.com"
    assert connected == ["93.184.216.34"]


@pytest.mark.parametrize("allowed", [(), ("images.example.com",)])
def test_redirect_of_the_service_to_the_metadata_address_is_refused(
    server: ScriptedServer, allowed: tuple[str, ...]
) -> None:
    server.answers(http(302, location="http://169.254.169.254/metadata/identity/oauth2/token"))
    assert refusal(downloader(*allowed, endpoint=server.url), server.url).code == "imageUrlNotAllowed"
    assert len(server.seen) == 1


# --- bombs


def test_compressed_image_stops_at_the_limit(server: ScriptedServer) -> None:
    server.answers(http(200, gzip.compress(PNG + b"0" * (256 * MEGABYTE)), content_encoding="gzip"))
    tracemalloc.start()
    with (
        pytest.raises(ImageUnusableError) as caught,
        downloader(endpoint=server.url).open(server.url) as download,
        check_image(download.chunks, limit=4 * MEGABYTE, length=download.length),
    ):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (caught.value.code, caught.value.again) == ("imageTooLarge", False)
    assert peak < 32 * MEGABYTE


def test_image_of_a_billion_pixels_costs_only_its_bytes() -> None:
    """A valid PNG of 65,000 x 65,000 pixels: decoding it would take 12 GB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(4 * MEGABYTE))
    content = PNG + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    tracemalloc.start()
    with check_image([content], limit=MEGABYTE, length=None) as image:
        assert image.length == len(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEGABYTE


def test_app_imports_no_image_decoder() -> None:
    code = "import sys, function_app; print({name.partition('.')[0].lower() for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "imagegen" in loaded
    assert [name for name in ("PIL", "cv2", "imageio", "numpy") if f"'{name.lower()}'" in loaded] == []


@pytest.mark.parametrize(
    "content",
    [
        b"<script>alert(1)</script>",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"GIF89a",
        b"%PDF-1.7",
        BODY,
    ],
)
def test_content_that_a_browser_could_run_is_not_stored(server: ScriptedServer, content: bytes) -> None:
    server.answers(http(200, content, content_type="image/png"))
    body, length = fetch(downloader(endpoint=server.url), server.url)
    with pytest.raises(ImageUnusableError) as caught, check_image([body], limit=MEGABYTE, length=length):
        pass
    assert caught.value.code == "notAnImage"
