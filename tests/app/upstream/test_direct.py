"""Direct upstreams, against a real server with valid and malformed responses."""

from __future__ import annotations

import base64
import errno
import gc
import json
import logging
import socket
import ssl
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
import trustme
from azure.core.credentials import AccessToken
from pydantic import SecretStr

from imagegen.deployments import Deployment, ImageApi
from imagegen.generation import GenerationRequest, Status
from imagegen.upstream import direct
from imagegen.upstream.direct import DirectUpstream
from imagegen.upstream.disk_room import TEMPORARY_DISK, DiskRoom
from imagegen.upstream.flux import flux
from imagegen.upstream.mai import mai
from imagegen.upstream.openai_images import openai_images
from imagegen.upstream.protocol import (
    Answered,
    Ended,
    ImageBytes,
    ImageRefused,
    ImageSource,
    ImageUrl,
    Lost,
    Throttled,
    Unavailable,
)
from tests.app.generations import ID, PROMPT, TOKEN, new
from tests.scripted_server import Reply, ScriptedServer, drip, http, scripted_server

KEY = "the-key-of-the-image-service"
SAS = "https://images.example.com/i/0.png?se=2026-11-24&sig=s3cret%2bsignature"
ASKED = new(request=GenerationRequest(prompt=PROMPT, size="1024x1024", quality="low", model="ours"))

type Outcome = Answered | Ended | Throttled | Unavailable | Lost


def deployment(endpoint: str, *, api: ImageApi = ImageApi.IMAGES, key: str | None = KEY) -> Deployment:
    return Deployment(
        name="ours",
        api=api,
        endpoint=endpoint,
        deployment="gpt-image-2",
        api_version="preview" if api is ImageApi.FLUX else None,
        api_key=SecretStr(key) if key else None,
        scope="https://cognitiveservices.azure.com/.default",
        model_path="flux-2-pro" if api is ImageApi.FLUX else None,
    )


def upstream(
    endpoint: str,
    *,
    api: ImageApi = ImageApi.IMAGES,
    key: str | None = KEY,
    most: int = 1 << 17,
    disk: DiskRoom = TEMPORARY_DISK,
) -> DirectUpstream:
    where = deployment(endpoint, api=api, key=key)
    direct_api = {ImageApi.IMAGES: openai_images, ImageApi.FLUX: flux, ImageApi.MAI: mai}[api](where)
    return DirectUpstream(where, direct_api, connections=2, max_image_bytes=most, disk=disk)


def generate(server: ScriptedServer, reply: Reply, **options: Any) -> Outcome:
    server.answers(reply)
    return upstream(server.url, **options).generate(ASKED)


def images(outcome: Outcome) -> list[ImageSource]:
    assert isinstance(outcome, Answered), outcome
    return list(outcome.images)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def hang_up(connection: socket.socket) -> None:
    connection.close()


# --- the request


@pytest.mark.parametrize(
    ("api", "target", "header"),
    [
        (ImageApi.IMAGES, "/openai/v1/images/generations", ("api-key", KEY)),
        (
            ImageApi.FLUX,
            "/providers/blackforestlabs/v1/flux-2-pro?api-version=preview",
            ("authorization", f"Bearer {KEY}"),
        ),
        (ImageApi.MAI, "/mai/v1/images/generations", ("api-key", KEY)),
    ],
)
def test_one_call_with_the_route_and_header_of_the_api(
    server: ScriptedServer, api: ImageApi, target: str, header: tuple[str, str]
) -> None:
    assert images(generate(server, http(200, {"data": [{"url": SAS}]}), api=api)) == [ImageUrl(SAS)]
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", target)
    assert (header[0], seen.headers[header[0]]) == header
    assert len({"api-key", "authorization"} & seen.headers.keys()) == 1
    assert seen.headers["content-type"] == "application/json"
    assert int(seen.headers["content-length"]) == len(seen.body)  # FLUX requires it
    assert seen.headers["x-ms-client-request-id"] == ID
    assert json.loads(seen.body)["prompt"] == PROMPT


@pytest.mark.parametrize("api", [ImageApi.IMAGES, ImageApi.FLUX, ImageApi.MAI])
def test_call_without_a_key_sends_an_entra_token(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, api: ImageApi
) -> None:
    class Credential:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            assert scopes == ("https://cognitiveservices.azure.com/.default",)
            return AccessToken("an-entra-token", 2_000_000_000)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    assert images(generate(server, http(200, {"data": [{"url": SAS}]}), api=api, key=None)) == [ImageUrl(SAS)]
    [seen] = server.seen
    assert seen.headers["authorization"] == "Bearer an-entra-token"
    assert "api-key" not in seen.headers


def test_completed_request_names_the_deployment(server: ScriptedServer) -> None:
    assert upstream(server.url).complete(GenerationRequest(prompt="x")).model == "ours"


# --- images


ANOTHER = {"error": {"code": "contentFilter", "message": "No."}}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([{"b64_json": b64(b"abc")}], [ImageBytes(b"abc")]),
        ([{"b64_json": b64(b"abc"), "revised_prompt": "nicer"}], [ImageBytes(b"abc", "nicer")]),
        ([{"revised_prompt": "nicer", "b64_json": b64(b"abc")}], [ImageBytes(b"abc", "nicer")]),
        ([{"url": SAS}], [ImageUrl(SAS)]),  # verbatim
        ([{"url": SAS, "revised_prompt": "nicer"}], [ImageUrl(SAS, "nicer")]),
        ([{"b64_json": None, "url": SAS}], [ImageUrl(SAS)]),  # gateways send both
        ([{"b64_json": "", "url": SAS}], [ImageUrl(SAS)]),
        ([{"b64_json": b64(b"abc"), "url": SAS}], [ImageBytes(b"abc")]),  # the image itself, not its URL
        ([{"b64_json": b64(b"0")}, {"url": SAS}, ANOTHER], [ImageBytes(b"0"), ImageUrl(SAS), "contentFilter"]),
        ([{"b64_json": b64(bytes([number]))} for number in range(10)], [ImageBytes(bytes([n])) for n in range(10)]),
        ([{"b64_json": b64(b"0"), "revised_prompt": 7}], [ImageBytes(b"0")]),
        # An unreadable image does not cost the others.
        ([{"b64_json": "not base64!"}, {"b64_json": b64(b"1")}], ["notAnImage", ImageBytes(b"1")]),
        ([{"b64_json": "\u00fc"}, {"b64_json": b64(b"1")}], ["notAnImage", ImageBytes(b"1")]),
        ([{"b64_json": "AAA"}], ["notAnImage"]),  # incomplete
        ([{"b64_json": 7}, {}, {"url": ""}, {"url": 7}], ["noImage"] * 4),
        ([{"b64_json": b64(b"0")}, "text", None, 7, ["x"]], [ImageBytes(b"0"), *["noImage"] * 4]),
        ([{"b64_json": b64(b"0"), "n": 1.5e300, "deep": {"er": [{"est": 1}]}}], [ImageBytes(b"0")]),
    ],
)
def test_every_image_keeps_its_index(
    server: ScriptedServer, data: list[Any], expected: list[ImageSource | str]
) -> None:
    found = images(generate(server, http(200, {"created": 1, "data": data})))
    assert [one.error.code if isinstance(one, ImageRefused) else one for one in found] == expected


@pytest.mark.parametrize("answer", [{}, {"data": []}, {"data": None}, {"created": 1, "data": {}}, [], None, 7, "text"])
def test_response_without_images_is_one_refused_image(server: ScriptedServer, answer: Any) -> None:
    [refused] = images(generate(server, http(200, answer)))
    assert isinstance(refused, ImageRefused)
    assert (refused.error.code, refused.error.is_refusal) == ("noImages", False)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"total_tokens": 3, "input_tokens": 1}, {"total_tokens": 3, "input_tokens": 1}),
        ({"input_tokens_details": {"text_tokens": 9}}, {"input_tokens_details.text_tokens": 9}),
        ({"total_tokens": "3", "cached": True, "rate": 1.5, "none": None}, None),
        ({}, None),
        (None, None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_token_usage_before_or_after_the_images(
    server: ScriptedServer, usage: Any, expected: dict[str, int] | None, first: bool
) -> None:
    data = {"data": [{"b64_json": b64(b"0")}]}
    answer = {"usage": usage, **data} if first else {**data, "usage": usage}
    outcome = generate(server, http(200, answer))
    assert isinstance(outcome, Answered)
    assert outcome.usage == expected
    assert list(outcome.images) == [ImageBytes(b"0")]


def test_chunked_response(server: ScriptedServer) -> None:
    body = json.dumps({"data": [{"b64_json": b64(b"0" * 9)}]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert images(generate(server, http(200, chunks, transfer_encoding="chunked"))) == [ImageBytes(b"0" * 9)]


# --- lost calls, which may be billed


WHOLE = json.dumps({"data": [{"b64_json": b64(b"0" * 90)}]}).encode()
BOM = b"\xef\xbb\xbf"
HTML = b"<html>a proxy's words</html>"
EVENTS = b'event: image\ndata: {"b64_json": "AAAA"}\n\n'


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (hang_up, "no response (ConnectionError)"),
        (b"not HTTP at all\r\n\r\n", "no response (ConnectionError)"),
        # The connection closed before the announced end.
        (http(200, WHOLE[:50], content_length=str(len(WHOLE))), "no response (ProtocolError)"),
        (http(200, b"ff\r\n" + WHOLE[:50], transfer_encoding="chunked"), "no response (ProtocolError)"),
        # Without a length, the end of the connection may be the end of the response or not.
        (http(200, WHOLE[:50], content_length=None), "status 200 with a body that breaks off"),
        (http(200, BOM + WHOLE[:50], content_length=None), "status 200 with a body that breaks off"),
        (http(200, b"", content_length=None), "status 200 with a body that breaks off"),
    ],
)
def test_call_that_may_be_billed_is_lost(server: ScriptedServer, reply: Reply, reason: str) -> None:
    assert generate(server, reply) == Lost(reason)
    assert len(server.seen) == 1  # no retry


# --- responses that arrived whole


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        (http(200, HTML, content_type="text/html; charset=utf-8"), "200 with text/html"),
        (http(200, HTML, content_type="text/html", content_length=None), "200 with text/html"),
        (http(200, EVENTS, content_type="text/event-stream"), "200 with text/event-stream"),
        (http(200, EVENTS, content_type="text/event-stream", content_length=None), "200 with text/event-stream"),
        (http(200, b"4\r\ndata\r\n0\r\n\r\n", transfer_encoding="chunked"), "200 with no content type"),
        # Incomplete JSON, but its last chunk says that this was all.
        (http(200, b"32\r\n" + WHOLE[:50] + b"\r\n0\r\n\r\n", transfer_encoding="chunked"), "200 with no content type"),
        (http(200, b"", content_type="application/json"), "200 with application/json"),
        (http(200, WHOLE[:50]), "200 with no content type"),  # incomplete, but as long as announced
        (http(200, WHOLE[:-1]), "200 with no content type"),
        (http(200, WHOLE + WHOLE), "200 with no content type"),
        (http(200, b'{"data": [{"b64_json": "\xff"}]}'), "200 with no content type"),
        (http(200, WHOLE.decode().encode("utf-16")), "200 with no content type"),
        (http(200, HTML, content_type="s3cret <script>"), "200 with no content type"),
        (http(200, WHOLE, content_encoding="gzip"), "200 with an encoding that its headers do not state"),
        # With exact numbers, each of these would crash the process or the thread.
        (http(200, b'{"created": 1%s}' % (b"0" * 5_000)), "200 with no content type"),
        (http(200, b'{"created": 1e99999999999999999999}'), "200 with no content type"),
        (http(201, WHOLE), "201 with no content type"),
        (http(202, {"id": "1"}, content_type="application/json"), "202 with application/json"),  # another API
        (http(204), "204 with no content type"),
        # Never followed: a redirect would forward the key.
        (http(301, location="https://evil.example/?key=s3cret"), "301 with a redirect to evil.example"),
        (http(302, location="//user:s3cret@Login.example:443/x"), "302 with a redirect to login.example"),
        (http(302, location="/login"), "302 with a redirect to 127.0.0.1"),
        (http(302, location=f"https://{KEY}/"), "302 with a redirect"),
        (http(302, location="https://[::1/"), "302 with a redirect"),
        (http(307, b"<html>", content_type="text/html"), "307 with text/html"),
    ],
)
def test_whole_response_that_cannot_be_used_ends_the_generation(
    server: ScriptedServer, reply: bytes, stated: str
) -> None:
    outcome = generate(server, reply)
    assert isinstance(outcome, Ended), outcome
    assert outcome.error
    assert (outcome.status, outcome.error.code, outcome.error.is_refusal) == (
        Status.FAILED,
        "upstreamAnswerInvalid",
        False,
    )
    assert outcome.error.message.startswith(f"The image service answered {stated}, which is not the JSON of this API. ")
    assert "Check the endpoint" in outcome.error.message
    assert "may have been billed; the app did not repeat it" in outcome.error.message
    assert len(server.seen) == 1


@pytest.mark.parametrize("length", ["known", None])
def test_byte_order_mark_is_skipped(server: ScriptedServer, length: str | None) -> None:
    body = BOM + WHOLE
    reply = http(200, body, content_length=str(len(body)) if length else None)
    assert images(generate(server, reply)) == [ImageBytes(b"0" * 90)]


def test_response_too_long_ends_without_a_second_call(server: ScriptedServer) -> None:
    outcome = generate(server, http(200, b" " * 3_000_000))
    assert isinstance(outcome, Ended)
    assert outcome.error is not None
    assert outcome.error.code == "imageTooLarge"
    assert "MAX_IMAGE_BYTES" in outcome.error.message


def test_read_timeout_is_lost(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)  # until the client disconnects

    monkeypatch.setattr(direct, "READ_SECONDS", 0.2)
    assert generate(server, silent) == Lost("no response (ReadTimeout)")


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 Scripted\r\nX-Drip: ", http(200, b"{", content_length="100000")])
def test_dripping_response_is_lost_at_the_total_deadline(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(direct, "CALL_SECONDS", 0.4)
    began = time.monotonic()
    outcome = generate(server, drip(start))
    assert time.monotonic() - began < 5
    assert isinstance(outcome, Lost), outcome


def test_read_timeout_allows_minutes_of_silence() -> None:
    assert direct.READ_SECONDS >= 250  # seen for large images


# --- calls without effect


def test_refused_connection_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert upstream(url).generate(ASKED) == Unavailable("no response (ConnectionError)")


def test_unknown_host_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    outcome = upstream("https://images.example.com").generate(ASKED)
    assert outcome == Unavailable("no response (ConnectionError)")


def test_untrusted_certificate_is_unavailable(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        outcome = upstream(f"https://127.0.0.1:{listening.getsockname()[1]}").generate(ASKED)
        thread.join()
    assert outcome == Unavailable("no response (SSLError)")


def test_call_without_a_token_is_unavailable(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import CredentialUnavailableError

    class Credential:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            raise CredentialUnavailableError("no identity here")

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    outcome = generate(server, http(200), key=None)
    assert (outcome, server.seen) == (Unavailable("no response (CredentialUnavailableError)"), [])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (http(500, {"error": {"code": "server_error"}}, retry_after="3"),
            Unavailable("status 500", 3.0, "server_error")),
        (http(503, retry_after="20"), Unavailable("status 503", 20.0)),
        (http(503, {"error": {"code": "busy"}}, retry_after="soon"), Unavailable("status 503", code="busy")),
        # A quota concerns the deployment, not this generation alone.
        (http(429), Throttled("status 429")),
        (http(429, retry_after="17"), Throttled("status 429", 17.0)),
        (http(429, retry_after_ms="1500"), Throttled("status 429", 1.5)),
        (http(429, retry_after_ms="1500", retry_after="2"), Throttled("status 429", 1.5)),  # milliseconds win
        (http(429, retry_after_ms="x", retry_after="2"), Throttled("status 429", 2.0)),
        (http(429, {"error": {"code": "429", "message": "Rate limit"}}, retry_after="0"), Throttled("status 429", 0.0)),
        (http(403, {"error": {"code": "403", "message": "Your resource has been temporarily blocked because …"}}),
            Throttled("temporarily blocked", 300.0)),  # every call would extend the block
    ],
)  # fmt: skip
def test_call_without_effect_is_unavailable_or_throttled(
    server: ScriptedServer, reply: bytes, expected: Outcome
) -> None:
    assert generate(server, reply) == expected
    assert len(server.seen) == 1


def test_retry_after_with_a_date(server: ScriptedServer) -> None:
    later = datetime.now(UTC) + timedelta(seconds=40)
    outcome = generate(server, http(429, retry_after=format_datetime(later, usegmt=True)))
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == pytest.approx(40, abs=3)


# --- the table of docs/reliability.md

OWN_ERROR = {"error": {"code": "server_error", "message": "The server had an error."}}
GATEWAY_ERROR = {"statusCode": 500, "message": "Internal server error"}


@pytest.mark.parametrize(
    ("status", "expected"), [(401, Ended), (429, Throttled), (502, Lost), (504, Lost), (529, Unavailable)]
)
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {"content_length": "99"}),
        (b"not gzip", {"content_encoding": "gzip"}),
        (b" " * (2**20 + 1), {}),
        (b"zz\r\n", {"transfer_encoding": "chunked"}),
    ],
    ids=["cut", "wrong encoding", "too long", "wrong chunk"],
)
def test_status_counts_when_its_body_is_broken(
    server: ScriptedServer, status: int, expected: type[Outcome], body: bytes, headers: dict[str, str]
) -> None:
    assert type(generate(server, http(status, body, **headers))) is expected


@pytest.mark.parametrize(
    ("expected", "status", "body"),
    [
        (Ended, 201, WHOLE),
        (Ended, 202, b""),
        (Ended, 204, b""),
        (Ended, 301, b""),
        (Ended, 400, b""),
        (Ended, 401, b""),
        (Ended, 403, b""),
        (Ended, 404, b""),
        (Ended, 405, b""),
        (Lost, 408, b""),
        (Unavailable, 409, b""),
        (Ended, 413, b""),
        (Ended, 415, b""),
        (Ended, 422, b""),
        (Unavailable, 425, b""),
        (Throttled, 429, b""),
        (Lost, 499, b""),
        # Only the service sends the error object of the API.
        (Unavailable, 500, OWN_ERROR),
        (Lost, 500, b""),
        (Lost, 500, b"<html>"),
        (Lost, 500, GATEWAY_ERROR),
        (Lost, 500, {"error": "Internal Server Error"}),
        (Lost, 500, {"error": {}}),
        # A proxy that wraps its own error.
        (Lost, 500, {"error": {"code": "500", "message": "Backend timed out"}}),
        (Lost, 500, {"error": {"code": 500, "type": "None", "param": "None", "message": "litellm.APIConnectionError"}}),
        (Lost, 500, {"error": {"code": "502", "message": "x"}}),
        (Lost, 500, {"error": {"code": "None", "type": None, "message": "x"}}),
        (Lost, 500, {"error": {"code": None, "type": "api_connection_error", "message": "x"}}),
        (Lost, 500, {"error": {"code": None, "type": ["server_error"], "message": "x"}}),
        (Lost, 500, {"error": {"code": "api_connection_error", "type": "server_error", "message": "x"}}),
        (Lost, 503, {"error": {"code": "UpstreamTimeout", "message": "x"}}),
        (Lost, 503, {"error": {"code": "timed_out", "message": "x"}}),
        (Lost, 503, {"message": "Try again in 5 seconds."}),
        (Unavailable, 500, {"error": {"message": "x", "type": "server_error", "param": None, "code": None}}),
        (Ended, 501, b""),
        (Lost, 502, OWN_ERROR),
        # A gateway answers 503 too when the service did not answer in time.
        (Unavailable, 503, OWN_ERROR),
        (Lost, 503, b""),
        (Lost, 503, b"<html>"),
        (Lost, 504, b""),
        (Ended, 505, b""),
        (Lost, 507, b""),
        (Lost, 520, b""),
        (Unavailable, 521, b""),
        (Lost, 522, b""),
        (Unavailable, 523, b""),
        (Lost, 524, b""),
        (Unavailable, 525, b""),
        (Unavailable, 526, b""),
        (Unavailable, 529, b""),
        (Lost, 530, b""),
        (Lost, 598, b""),
        (Lost, 599, b""),
    ],
)
def test_outcome_of_each_status(
    server: ScriptedServer, expected: type[Outcome], status: int, body: bytes | dict[str, Any]
) -> None:
    outcome = generate(server, http(status, body))
    assert type(outcome) is expected
    if isinstance(outcome, Unavailable | Lost | Throttled):
        assert outcome.reason == f"status {status}"
    assert len(server.seen) == 1


# --- failures


def stated(code: str, message: str = "because", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


@pytest.mark.parametrize(
    ("reply", "code", "inner", "is_refusal"),
    [
        # Three codes for a content filter, and two names for its details.
        (http(400, stated("contentFilter")), "contentFilter", "contentFilter", True),
        (http(400, stated("content_policy_violation", inner_error={"code": "i"})), "contentFilter", "i", True),
        (http(400, stated("moderation_blocked", innererror={"code": "i"})), "contentFilter", "i", True),
        (http(400, stated("invalid_value")), "invalidPayload", "invalid_value", True),
        (http(400, stated("Bad Code!")), "invalidPayload", "http400", True),  # the app sends the code as a header
        (http(400), "invalidPayload", "http400", True),
        # For the operator, with a hint.
        (http(401, stated("401")), "upstreamUnauthorized", "401", False),
        (http(403, stated("Forbidden")), "upstreamForbidden", "Forbidden", False),
        (http(404, stated("DeploymentNotFound")), "upstreamNotFound", "DeploymentNotFound", False),
        (http(404, b"<html>"), "upstreamNotFound", "http404", False),
        (http(405), "http405", None, False),
        (http(413, stated("tooLarge")), "tooLarge", None, False),
    ],
)
def test_refused_call_ends_with_a_code_and_a_hint(
    server: ScriptedServer, reply: bytes, code: str, inner: str | None, is_refusal: bool
) -> None:
    outcome = generate(server, reply)
    assert isinstance(outcome, Ended)
    assert outcome.status is Status.FAILED
    assert outcome.error
    assert (outcome.error.code, (outcome.error.innererror or {}).get("code")) == (code, inner)
    assert outcome.error.is_refusal is is_refusal
    if code.startswith("upstream"):
        assert "Check the" in outcome.error.message
    assert KEY not in str(outcome)
    assert len(server.seen) == 1


# --- memory


def test_images_are_decoded_one_by_one(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = weakref.WeakSet[Any]()
    decode = base64.b64decode

    class Image(ImageBytes):
        __slots__ = ("__weakref__",)

    def count(content: bytes, revised_prompt: str | None = None) -> Image:
        image = Image(content, revised_prompt)
        alive.add(image)
        return image

    decoded: list[int] = []

    def note(encoded: str, *, validate: bool) -> bytes:
        decoded.append(len(alive))
        return decode(encoded, validate=validate)

    monkeypatch.setattr(direct, "ImageBytes", count)
    monkeypatch.setattr("base64.b64decode", note)
    outcome = generate(server, http(200, {"data": [{"b64_json": b64(b"0")}] * 10}))
    assert isinstance(outcome, Answered)
    assert decoded == []  # nothing is decoded before the iteration
    at_once: list[int] = []
    for _ in outcome.images:
        gc.collect()
        at_once.append(len(alive))
    assert len(decoded) == len(at_once) == 10
    assert max(at_once) <= 1
    assert max(decoded) <= 1


def test_large_response_is_not_held_in_memory(server: ScriptedServer) -> None:
    each, count = 4 << 20, 8
    body = json.dumps({"data": [{"b64_json": b64(bytes(each))}] * count}).encode()
    server.answers(http(200, body))
    caller = upstream(server.url, most=each)
    del body
    tracemalloc.start()
    try:
        outcome = caller.generate(ASKED)
        assert isinstance(outcome, Answered)
        read = tracemalloc.get_traced_memory()[1]
        lengths = [_length(source) for source in _in_turn(outcome)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lengths == [each] * count
    # Two images, and the base64 of one in the parser; the response has 43 MB.
    assert read < 5 * each
    assert peak < 6 * each


def _in_turn(outcome: Answered) -> Iterator[ImageSource]:
    yield from outcome.images


def _length(source: ImageSource) -> int:
    assert isinstance(source, ImageBytes)
    return len(source.content)


# --- the temporary disk


def test_call_without_room_on_the_disk_is_not_made(server: ScriptedServer) -> None:
    outcome = generate(server, http(200, WHOLE), disk=DiskRoom(lambda: 1_000))
    assert outcome == Unavailable("no room for the response on the temporary disk", 10.0)
    assert server.seen == []


def test_small_image_limit_needs_less_room(server: ScriptedServer) -> None:
    # ASKED is for one image: 4/3 of its bytes for the response, and the image itself.
    assert images(generate(server, http(200, WHOLE), most=6_000, disk=DiskRoom(lambda: 17_500)))
    assert isinstance(generate(server, http(200, WHOLE), most=6_000, disk=DiskRoom(lambda: 17_000)), Unavailable)


def test_unexpected_error_leaves_no_file_and_no_reservation(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools: list[SpooledTemporaryFile[bytes]] = []

    def opened(**options: Any) -> SpooledTemporaryFile[bytes]:
        spools.append(SpooledTemporaryFile(**options))  # noqa: SIM115 - the upstream closes it
        return spools[-1]

    def fails(*_: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(direct, "SpooledTemporaryFile", opened)
    monkeypatch.setattr(direct, "throttle_of", fails)
    room = DiskRoom(lambda: 800_000_000)
    for _ in range(20):
        with pytest.raises(RuntimeError, match="unexpected"):
            generate(server, http(503), most=64 * 2**20, disk=room)
    assert [spool.closed for spool in spools] == [True] * 20
    assert room.reserve(639_000_000)


@dataclass
class Disk:
    """The disk of a Flex instance, which the answers in flight fill."""

    free: int = 800_000_000

    def __call__(self) -> int:
        return self.free


def test_twelve_answers_of_ten_images_do_not_fill_the_disk(server: ScriptedServer) -> None:
    disk = Disk()
    caller = upstream(server.url, most=64 * 2**20, disk=DiskRoom(disk))
    server.answers(http(200, WHOLE))
    ten = new(request=GenerationRequest(prompt=PROMPT, n=10, model="ours"))
    waiting, stored = 12, 0
    in_flight: list[Answered] = []
    while waiting or in_flight:
        outcome = caller.generate(ten) if waiting else None
        if isinstance(outcome, Answered):
            waiting -= 1
            in_flight.append(outcome)
            disk.free -= 10 * 27_000_000
            assert disk.free > 0
        else:
            assert outcome is None or outcome == Unavailable("no room for the response on the temporary disk", 10.0)
            assert in_flight, "an empty disk has room for a call"
            list(in_flight.pop(0).images)
            disk.free += 10 * 27_000_000
            stored += 1
    assert stored == 12
    assert len(server.seen) == 12  # each was called once


@pytest.mark.parametrize("status", [200, 400, 429, 500, 502, 503])
def test_room_is_free_again_after_a_call_without_images(server: ScriptedServer, status: int) -> None:
    room = DiskRoom(lambda: 800_000_000)
    caller = upstream(server.url, most=64 * 2**20, disk=room)
    server.answers(http(status, {"data": []}))
    outcomes = [caller.generate(ASKED) for _ in range(20)]
    assert len(server.seen) == 20
    assert room.reserve(639_000_000)
    assert outcomes


def test_full_disk_fails_the_generation_without_a_second_call(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(SpooledTemporaryFile[bytes]):
        def seek(self, offset: int, whence: int = 0) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(direct, "SpooledTemporaryFile", Full)
    outcome = generate(server, http(200, WHOLE))
    assert isinstance(outcome, Ended)
    assert outcome.error
    assert outcome.error.code == "internalError"
    assert "No space left on device" in outcome.error.message
    assert len(server.seen) == 1


# --- connections


class KeepAliveServer(ThreadingHTTPServer):
    """Keeps every connection open, even against ``Connection: close``. Counts the connections of each method."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, int, str | None]] = []
        """Method, client port and ``Connection`` header of each request."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, KeepAliveServer)
        self.server.seen.append((self.command, self.client_address[1], self.headers["Connection"]))
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(WHOLE)))
        self.end_headers()
        self.wfile.write(WHOLE)
        self.close_connection = False

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the method of the server
        pass


def test_paid_call_never_uses_an_idle_connection() -> None:
    with KeepAliveServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        caller = upstream(f"http://127.0.0.1:{server.server_port}")
        assert caller.check() is None
        for _ in range(3):
            assert images(caller.generate(ASKED)) == [ImageBytes(b"0" * 90)]
        assert caller.check() is None
        server.shutdown()
    checks = [port for method, port, _ in server.seen if method == "GET"]
    calls = [(port, header) for method, port, header in server.seen if method == "POST"]
    assert len(set(checks)) == 1  # a connection of health checks is reused
    assert {header for _, header in calls} == {"close"}
    assert len({port for port, _ in calls} - set(checks)) == 3


# --- the log, health


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_log_holds_no_prompt_key_or_image(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"data": [{"url": SAS}], "error": {"code": "x", "message": f"{PROMPT} {KEY}"}}
    outcome = generate(server, http(status, body, x_ms_request_id="upstream-4711"))
    assert not isinstance(outcome, Answered) or list(outcome.images) == [ImageUrl(SAS)]
    [line] = [record.getMessage() for record in caplog.records if record.name == "imagegen"]
    assert line.startswith(f"upstream.called id={ID} status={status} upstream_request_id=upstream-4711 ms=")
    for secret in (PROMPT, KEY, TOKEN, "s3cret"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (http(200, {"data": []}), None),
        (http(401), "the service answered 401. Check the key"),
        (http(403), "the service answered 403. Check the network rules and the firewall"),
        (http(500), "the service answered 500"),
        (hang_up, "the 'images' API is out of reach: no response (ConnectionError). Check its endpoint"),
    ],
)
def test_health_check_is_free_and_names_the_problem(server: ScriptedServer, reply: Reply, problem: str | None) -> None:
    server.answers(reply)
    found = upstream(server.url).check()
    if problem is None:
        assert found is None
    else:
        assert found
        assert found.certain
        assert found.message.startswith(problem)
    [seen] = server.seen
    assert (seen.method, seen.target, seen.body) == ("GET", "/openai/v1/models", b"")
    assert KEY not in str(found)


@pytest.mark.parametrize("path", ["", "/imagegw", "/openai/v1"])
@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        (http(404), "404"),  # a gateway that offers the route for images only, or a wrong path
        (http(404, {"statusCode": 404, "message": "Resource not found"}), "404"),
        (http(302, location="https://login.example.com"), "302"),
        (http(200, b"<html>", content_type="text/html"), "200 with text/html"),
        # Some gateways send all errors with 200.
        (http(200, {"error": {"code": "401"}}, content_type="application/json"), "200 with application/json"),
        (http(200, {"statusCode": 401, "message": "Access denied"}), "200 with no content type"),
        (http(200, {}), "200 with no content type"),
        (http(405), "405"),
        (http(400), "400"),
        (http(402), "402"),
        (http(407), "407"),
        (http(201, b"{}"), "201"),
    ],
)
def test_health_check_notices_a_missing_route(server: ScriptedServer, path: str, reply: Reply, stated: str) -> None:
    server.answers(reply)
    found = upstream(f"{server.url}{path}").check()
    assert found
    assert not found.certain
    assert found.message.startswith(f"the 'images' API: the service answered {stated} for its list of models")
    assert server.host not in found.message


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (http(429), 429),
        (http(403, {"error": {"code": "insufficient_quota", "message": "x"}}), 403),  # no wrong credential
        (http(403, {"message": "Out of call volume quota. Quota will be replenished in 00:12:34."}), 403),
        (http(403, retry_after="20"), 403),
        (http(402, {"error": {"code": "insufficient_quota", "message": "x"}}), 402),
    ],
)
def test_health_check_says_that_the_service_throttles(server: ScriptedServer, reply: Reply, status: int) -> None:
    server.answers(reply)
    found = upstream(server.url).check()
    assert found
    assert not found.certain
    assert f"answered {status} for its list of models" in found.message
    assert "The service is there, but throttles." in found.message


def test_calls_run_in_parallel() -> None:
    with scripted_server() as running:
        both = threading.Barrier(2, timeout=10)

        def together(connection: socket.socket) -> None:
            both.wait()
            connection.sendall(http(200, {"data": [{"url": SAS}]}))

        running.answers(together)
        caller = upstream(running.url)
        outcomes: list[Outcome] = []
        threads = [threading.Thread(target=lambda: outcomes.append(caller.generate(ASKED))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [list(outcome.images) for outcome in outcomes if isinstance(outcome, Answered)] == [[ImageUrl(SAS)]] * 2
