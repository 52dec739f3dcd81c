"""Requests to blobs, at a scripted server. Azurite checks their signatures: tests/app/storage/test_records.py."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ServiceResponseError
from azure.storage.blob import BlobServiceClient

from imagegen.storage import blob_requests
from imagegen.storage.blob_requests import BlobRequests
from tests.scripted_server import ScriptedServer, http


class Credential:
    """An identity whose tokens live this long."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self.asked = 0

    def get_token(self, *_: str) -> AccessToken:
        self.asked += 1
        return AccessToken(f"t{self.asked}", int(time.time()) + self._seconds)


def open_requests(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, lifetime: int = 3600) -> BlobRequests:
    monkeypatch.setattr(blob_requests.time, "sleep", Mock())
    # Not a client of the SDK, which refuses to send tokens without TLS.
    service = SimpleNamespace(url=server.url, credential=Credential(lifetime))
    return BlobRequests(cast("BlobServiceClient", service), "generations")


@pytest.mark.parametrize("status", [408, 500, 503])
def test_temporary_failure_is_repeated(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    server.answers(http(status), b"", http(201, ETag="1"))  # the second one is no response
    requests = open_requests(server, monkeypatch)
    assert requests.send("PUT", "active/1", content=b"{}").headers["ETag"] == "1"
    assert [(seen.method, seen.target, seen.body) for seen in server.seen] == 3 * [
        ("PUT", "/generations/active/1", b"{}")
    ]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 501])
def test_refusal_is_not_repeated(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    server.answers(http(status, **{"x-ms-error-code": "Code"}))
    with pytest.raises(HttpResponseError) as caught:
        open_requests(server, monkeypatch).send("GET", "active/1")
    assert (caught.value.status_code, getattr(caught.value, "error_code", None)) == (status, "Code")
    assert len(server.seen) == 1


def test_tries_end(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers(b"")
    requests = open_requests(server, monkeypatch)
    with pytest.raises(ServiceResponseError):
        requests.send("GET", "active/1")
    assert len(server.seen) == 3
    with pytest.raises(ServiceResponseError):
        requests.send("GET", "active/1", tries=1)
    assert len(server.seen) == 4


@pytest.mark.parametrize(("lifetime", "tokens"), [(3600, ["Bearer t1", "Bearer t1"]), (60, ["Bearer t1", "Bearer t2"])])
def test_token_is_used_until_it_is_about_to_end(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, lifetime: int, tokens: list[str]
) -> None:
    server.answers(http(200))
    requests = open_requests(server, monkeypatch, lifetime)
    for _ in range(2):
        requests.send("GET", "active/1")
    assert [seen.headers["authorization"] for seen in server.seen] == tokens
