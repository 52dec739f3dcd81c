"""TCP keep-alive on every connection of the app.

No test here runs through a NAT that drops silent flows: the kernel sends the probes, so the options of the real sockets
are what the app decides.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest
import requests
import urllib3.util.connection
from pydantic import SecretStr

from imagegen.deployments import Deployment, ImageApi
from imagegen.settings import Settings, read_settings
from imagegen.storage.clients import open_storage
from imagegen.storage.download import Downloader
from imagegen.storage.work_queue import CALLS_QUEUE, WorkQueue
from imagegen.upstream.registry import open_upstream
from imagegen.upstream.response import NoResponseError
from imagegen.upstream.session import UpstreamSession
from local.azurite import Azurite
from tests.app.generations import new
from tests.scripted_server import ScriptedServer, drip, http

KEPT_ALIVE = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 30, "TCP_NODELAY": 1}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Options of each socket that urllib3 connects, read from the connected socket."""
    found: list[dict[str, int]] = []
    connect = urllib3.util.connection.create_connection

    def note(*given: object, **named: object) -> socket.socket:
        sock = connect(*given, **named)  # pyright: ignore[reportArgumentType] - as given
        found.append({name: sock.getsockopt(_level(name), getattr(socket, name)) for name in KEPT_ALIVE})
        return sock

    monkeypatch.setattr(urllib3.util.connection, "create_connection", note)
    return found


def _level(name: str) -> int:
    return socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP


def all_kept_alive(opened: Iterable[dict[str, int]], *, count: int) -> bool:
    return list(opened) == [KEPT_ALIVE] * count


@pytest.mark.parametrize("api", [ImageApi.IMAGES, ImageApi.OPERATIONS])
def test_upstream_connections(server: ScriptedServer, opened: list[dict[str, int]], api: ImageApi) -> None:
    server.answers(http(400))
    upstream = open_upstream(_deployment(server.url, api), allowed_origins=(), max_image_bytes=1_000, connections=1)
    upstream.check()
    if api is ImageApi.IMAGES:
        upstream.generate(new())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    else:
        upstream.submit(new())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert all_kept_alive(opened, count=2)


def test_connections_through_a_proxy(
    server: ScriptedServer, opened: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    session = UpstreamSession(_deployment("http://images.example.com", ImageApi.IMAGES), connections=1)
    server.answers(drip(b"HTTP/1.1 200 Scripted\r\nX-Drip: "))
    with pytest.raises(NoResponseError, match=r"no response \(Read"):
        session.send("GET", "http://images.example.com/a", event="test", generation_id="1", total_seconds=0.4)
    assert [request.target for request in server.seen] == ["http://images.example.com/a"]
    assert all_kept_alive(opened, count=1)


def test_storage_connections(azurite: Azurite, opened: list[dict[str, int]]) -> None:
    settings = _settings(azurite)
    list(open_storage(settings, connections=1).list_containers())
    assert all_kept_alive(opened, count=1)
    WorkQueue(settings, CALLS_QUEUE, connections=1).send(["an-id"])
    assert all_kept_alive(opened, count=2)


@pytest.mark.parametrize("public", [False, True])
def test_download_connections(
    server: ScriptedServer, opened: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch, public: bool
) -> None:
    server.answers(http(200, b"x"))
    endpoint = "https://elsewhere.example.com" if public else server.url
    downloader = Downloader(allowed_hosts=[], endpoints=[endpoint], connections=1, seconds=5)
    if public:  # the session for unknown hosts, which refuses http and this machine's own addresses

        def session_for(_: str) -> requests.Session:
            return downloader._public  # pyright: ignore[reportPrivateUsage]

        def own_address(*_: object, **__: object) -> str:
            return "127.0.0.1"

        monkeypatch.setattr(downloader, "_session_for", session_for)
        monkeypatch.setattr("requests_hardened.ip_filter_adapter.filter_host", own_address)
    with downloader.open(server.url) as download:
        assert list(download.chunks) == [b"x"]
    assert all_kept_alive(opened, count=1)


def _deployment(endpoint: str, api: ImageApi) -> Deployment:
    return Deployment(
        name="ours", api=api, endpoint=endpoint, deployment="ours", api_version=None, api_key=SecretStr("k"), scope=""
    )


def _settings(azurite: Azurite) -> Settings:
    return read_settings(
        {
            "AzureWebJobsStorage": azurite.connection_string,
            "AZURE_OPENAI_ENDPOINT": "https://images.example.com",
            "AZURE_OPENAI_DEPLOYMENT": "gpt-image-2",
            "POLL_SCHEDULE": "0 * * * * *",
        }
    )
