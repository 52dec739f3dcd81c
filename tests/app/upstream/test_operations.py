"""The asynchronous API, against a real server with valid and malformed responses."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from pydantic import SecretStr

from imagegen.deployments import Deployment, ImageApi
from imagegen.errors import RequestError
from imagegen.generation import Generation, GenerationError, GenerationRequest, Status
from imagegen.upstream.operations import MOST_SUBMITS, OperationsUpstream
from imagegen.upstream.protocol import (
    Accepted,
    Ended,
    ImageRefused,
    ImageUrl,
    Missing,
    Produced,
    Throttled,
    Unavailable,
    Working,
)
from imagegen.upstream.response import NoResponseError
from imagegen.upstream.service_errors import read_error
from imagegen.upstream.session import UpstreamSession
from imagegen.web.http import as_http_error
from tests.app.generations import ID, NOON, PROMPT, TOKEN, new, running, seconds
from tests.scripted_server import Reply, ScriptedServer, drip, http, scripted_server

KEY = "the-key-of-the-image-service"
VERSION = "2023-06-01-preview"
SAS = "https://images.example.com/i/0.png?se=2026-11-24&sig=s3cret%2bsignature"


def deployment(endpoint: str, key: str | None = KEY) -> Deployment:
    return Deployment(
        name="dalle",
        api=ImageApi.OPERATIONS,
        endpoint=endpoint,
        deployment="dalle",
        api_version=VERSION,
        api_key=SecretStr(key) if key else None,
        scope="https://cognitiveservices.azure.com/.default",
    )


def upstream(endpoint: str, *allowed: str, key: str | None = KEY) -> OperationsUpstream:
    return OperationsUpstream(deployment(endpoint, key), allowed_origins=allowed, connections=2)


def submit(server: ScriptedServer, reply: Reply) -> Accepted | Ended | Throttled | Unavailable:
    server.answers(reply)
    return upstream(server.url).submit(new())


def poll(
    server: ScriptedServer, reply: Reply, *, generation: Generation | None = None, now: datetime = NOON
) -> Working | Produced | Ended | Missing | Unavailable:
    server.answers(reply)
    asked = generation or running()
    return upstream(server.url).poll(asked.changed(operation_location=f"{server.url}/o/1"), now)


def hang_up(connection: socket.socket) -> None:
    connection.close()


# --- submit


def test_submit_request_follows_the_api_reference(server: ScriptedServer) -> None:
    submit(server, http(202, {"id": "1", "status": "notRunning"}, operation_location=f"{server.url}/o/1"))
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", f"/openai/images/generations:submit?api-version={VERSION}")
    assert (seen.headers["api-key"], seen.headers["operation-id"]) == (KEY, ID)
    assert "authorization" not in seen.headers
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body) == {"prompt": PROMPT, "n": 1, "size": "1024x1024"}


def test_submit_sends_the_user_field(server: ScriptedServer) -> None:
    server.answers(http(429))
    request = GenerationRequest(prompt="x", n=5, size="256x256", user="someone")
    upstream(server.url).submit(new(request=request))
    assert json.loads(server.seen[0].body) == {"prompt": "x", "n": 5, "size": "256x256", "user": "someone"}


def test_submit_without_a_key_sends_an_entra_token(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Credential:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            return AccessToken(f"token-for-{scopes[0]}", 4_000_000_000)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    server.answers(http(429))
    upstream(server.url, key=None).submit(new())
    assert server.seen[0].headers["authorization"] == "Bearer token-for-https://cognitiveservices.azure.com/.default"
    assert "api-key" not in server.seen[0].headers


def test_submit_without_a_token_is_unavailable(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.identity import CredentialUnavailableError

    class Credential:
        def get_token(self, *_: str, **__: Any) -> AccessToken:
            raise CredentialUnavailableError("no identity here")

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    assert upstream(server.url, key=None).submit(new()) == Unavailable("no response (CredentialUnavailableError)")
    assert server.seen == []


@pytest.mark.parametrize(
    ("reply", "reason", "retry_after"),
    [
        (http(408, {"error": {"code": "Timeout"}}), "status 408", None),
        (http(409), "status 409", None),  # the service works on this Operation-Id already
        (http(425), "status 425", None),
        (http(500), "status 500", None),
        (http(502, b"<html>bad gateway</html>"), "status 502", None),
        (http(503, retry_after="garbage"), "status 503", None),
        (hang_up, "no response (ConnectionError)", None),
        (b"not HTTP at all\r\n\r\n", "no response (ConnectionError)", None),
    ],
)
def test_inconclusive_submit_is_unavailable(
    server: ScriptedServer, reply: Reply, reason: str, retry_after: float | None
) -> None:
    outcome = submit(server, reply)
    assert isinstance(outcome, Unavailable)
    assert outcome.retry_after == retry_after
    assert outcome.reason == reason


@pytest.mark.parametrize(
    ("reply", "retry_after", "code"),
    [
        (http(429, retry_after="7"), 7.0, None),
        (http(429, {"error": {"code": "tooManyRequests"}}, retry_after_ms="1500"), 1.5, "tooManyRequests"),
        (http(429), None, None),
    ],
)
def test_submit_with_status_429_is_throttled(
    server: ScriptedServer, reply: bytes, retry_after: float | None, code: str | None
) -> None:
    assert submit(server, reply) == Throttled("status 429", retry_after, code)


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        # Only a 202 has an operation, whatever the headers are.
        (http(200, {"id": "1"}, operation_location="/o/1"), "http200", "answered 200 to POST http://127.0.0.1:"),
        (http(201, operation_location="/o/1"), "http201", "answered 201 to POST http://127.0.0.1:"),
        (
            http(302, location="/elsewhere"),
            "http302",
            "answered 302 with a redirect to 127.0.0.1 to POST http://127.0.0.1:",
        ),
        # For the caller.
        (http(400, {"error": {"code": "contentFilter", "message": "No."}}), "contentFilter", "No."),
        (http(400, {"error": {"code": "invalidPayload", "message": "Bad."}}), "invalidPayload", "Bad."),
        (http(400), "invalidPayload", "no reason"),
        (http(400, b"<html>nope</html>"), "invalidPayload", "nope"),
        (http(400, {"error": "prompt is bad"}), "invalidPayload", "prompt is bad"),
        (http(413, {"error": {"code": 413, "message": "Long."}}), "http413", "answered 413 to POST"),
        # For the operator: the message names the settings.
        (http(401, {"error": {"code": "401", "message": "x"}}), "upstreamUnauthorized", "AZURE_OPENAI_API_KEY"),
        (http(401), "upstreamUnauthorized", "(http401)"),
        (http(403, {"error": {"code": "forbidden"}}), "upstreamForbidden", "Check the network rules and the firewall"),
        (http(404, b"<html>no such page</html>"), "upstreamNotFound", "AZURE_OPENAI_API_VERSION"),
    ],
)
def test_refused_submit_ends_with_a_code_and_a_hint(
    server: ScriptedServer, reply: Reply, code: str, message: str
) -> None:
    outcome = submit(server, reply)
    assert isinstance(outcome, Ended)
    assert outcome.status is Status.FAILED
    assert outcome.error is not None
    assert outcome.error.code == code
    assert message in outcome.error.message
    assert KEY not in str(outcome)
    assert len(server.seen) == 1  # no redirect, no retry


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (http(202, {"id": "1"}), "operationLocationMissing"),
        (http(202, operation_location=" "), "operationLocationMissing"),
        (http(202, operation_location="https://[::1"), "operationLocationInvalid"),
        (http(202, operation_location="/o/\u00e9"), "operationLocationInvalid"),  # no request can be sent there
    ],
)
def test_accepted_submit_without_location_is_repeated(server: ScriptedServer, reply: bytes, code: str) -> None:
    server.answers(reply, http(202, operation_location="/o/1"))
    assert upstream(server.url).submit(new()) == Accepted(f"{server.url}/o/1", None)
    assert [request.headers["operation-id"] for request in server.seen] == [ID, ID]

    server.answers(reply)
    outcome = upstream(server.url).submit(new())
    assert isinstance(outcome, Ended)
    assert outcome.error
    assert outcome.error.code == code
    assert "AZURE_OPENAI_ENDPOINT" in outcome.error.message
    assert len(server.seen) == MOST_SUBMITS


@pytest.mark.parametrize(
    "reply",
    [
        http(202, b"{", content_length="500", operation_location="/o/1"),
        http(202, b" " * (2**20 + 1), operation_location="/o/1"),
    ],
    ids=["cut", "too long"],
)
def test_accepted_submit_needs_no_body(server: ScriptedServer, reply: bytes) -> None:
    assert submit(server, reply) == Accepted(f"{server.url}/o/1", None)


# --- which hosts may receive the key

ELSEWHERE = "https://elsewhere.example.com:443"


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("https://evil.example.com/o/1", "https://evil.example.com:443"),
        ("http://elsewhere.example.com/o/1", "http://elsewhere.example.com:80"),  # plain http
        ("https://elsewhere.example.com:8443/o/1", "https://elsewhere.example.com:8443"),
        ("https://elsewhere.example.com:0/o/1", "https://elsewhere.example.com:0"),
        ("https://elsewhere.example.com.evil.example.com/", "https://elsewhere.example.com.evil.example.com:443"),
        ("https://{host}/o/1", "https://{host}"),
        ("http://127.0.0.1/o/1", "http://127.0.0.1:80"),
        ("http://localhost:1/o/1", "http://localhost:1"),
        ("//evil.example.com/o/1", "http://evil.example.com:80"),
        ("http://[::1]/o/1", "http://[::1]:80"),
    ],
)
def test_operation_at_another_origin_is_refused_without_a_poll(
    server: ScriptedServer, location: str, origin: str
) -> None:
    server.answers(http(202, operation_location=location.format(host=server.host)))
    outcome = upstream(server.url, ELSEWHERE).submit(new())
    assert isinstance(outcome, Ended)
    assert outcome.error is not None
    assert outcome.error.code == "operationLocationNotAllowed"
    assert f" is at {origin.format(host=server.host)}, " in outcome.error.message
    assert "OPERATION_LOCATION_ALLOWED_ORIGINS" in outcome.error.message


@pytest.mark.parametrize(
    "location",
    [
        # URL parsers disagree about the host of these.
        "http://{host}@evil.example.com/o/1",
        "http://{host}\\@evil.example.com/",
        "http://evil.example.com\\@{host}/",
        "http://user:{host}@evil.example.com/",
        "ftp://{host}/o/1",
        "https:///o/1",
        "http://{host}port/",
        "https://[::1/o",
        "urn:o:1",
    ],
)
def test_operation_location_that_is_not_a_url_fails(server: ScriptedServer, location: str) -> None:
    outcome = submit(server, http(202, operation_location=location.format(host=server.host)))
    assert isinstance(outcome, Ended)
    assert outcome.error is not None
    assert outcome.error.code == "operationLocationInvalid"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://{host}/o/1?a=%2f&b=2", "http://{host}/o/1?a=%2f&b=2"),
        ("HTTP://{host}/o/1", "HTTP://{host}/o/1"),
        ("  http://{host}/o/1  ", "http://{host}/o/1"),
        ("/o/1?a=%2f&b=2", "http://{host}/o/1?a=%2f&b=2"),  # relative to the request URL
        ("https://elsewhere.example.com/o/1", "https://elsewhere.example.com/o/1"),
        ("https://elsewhere.example.com:443/o/1", "https://elsewhere.example.com:443/o/1"),  # explicit default port
        ("https://ELSEWHERE.example.COM/o/1", "https://ELSEWHERE.example.COM/o/1"),
    ],
)
def test_allowed_operation_location_is_kept_verbatim(server: ScriptedServer, location: str, expected: str) -> None:
    server.answers(http(202, operation_location=location.format(host=server.host), retry_after="3"))
    assert upstream(server.url, ELSEWHERE).submit(new()) == Accepted(expected.format(host=server.host), 3.0)


def test_poll_does_not_follow_redirects(server: ScriptedServer) -> None:
    with scripted_server() as elsewhere:
        elsewhere.answers(http(200, {"status": "succeeded"}))
        outcome = poll(server, http(307, location=f"{elsewhere.url}/o/1"))
        assert outcome == Unavailable("status 307")
        assert elsewhere.seen == []


def test_netrc_and_cookies_are_not_sent(server: ScriptedServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers(http(200, {"status": "running"}, set_cookie="session=1; Path=/"))
    service = upstream(server.url)
    for _ in range(2):
        service.poll(running(operation_location=f"{server.url}/o/1"), NOON)
    assert all("authorization" not in seen.headers and "cookie" not in seen.headers for seen in server.seen)


# --- poll


@pytest.mark.parametrize(
    "target",
    [
        "/openai/dalle/operations/images/1?api-version=2023-06-01-preview",
        "/o/1?a=1&b=2&a=3",
        "/o/a%2fb%2Bc?sig=ab%2bcd%3d",  # lower-case escapes, which a signature may cover
        "/o/1?empty=&x",
        "/o/../1/./2",
        "/o/1?q=[x]|{y}",
    ],
)
def test_poll_sends_the_url_byte_for_byte(server: ScriptedServer, target: str) -> None:
    server.answers(http(200, {"status": "running"}))
    assert upstream(server.url).poll(running(operation_location=server.url + target), NOON) == Working(None)
    assert server.seen[0].target == target
    assert server.seen[0].headers["api-key"] == KEY


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"status": "notRunning"}, Working(None)),
        ({"status": "running"}, Working(None)),
        ({"status": "RUNNING"}, Working(None)),
        ({"status": "postProcessing"}, Working(None)),  # a status of a later API version
        ({"status": None}, Working(None)),
        ({}, Working(None)),
        ({"status": "canceled"}, Ended(Status.CANCELED)),
        ({"status": "Cancelled"}, Ended(Status.CANCELED)),
        (
            {"status": "Failed", "error": {"code": "internalFailure", "message": "Oops."}},
            Ended(Status.FAILED, GenerationError(code="internalFailure", message="Oops.")),
        ),
        (
            {"status": "failed"},
            Ended(Status.FAILED, GenerationError(code="upstreamFailure", message="The image service gave no reason.")),
        ),
        ({"status": "succeeded", "result": {"data": [{"url": SAS}]}}, Produced((ImageUrl(SAS),))),
        ({"status": "Succeeded", "result": {"created": 1, "data": [{"url": SAS}]}}, Produced((ImageUrl(SAS),))),
        (
            {"status": "succeeded", "result": {"data": [{"url": SAS, "revised_prompt": "nicer"}, {"url": "b"}]}},
            Produced((ImageUrl(SAS, "nicer"), ImageUrl("b"))),
        ),
        # A malformed revised_prompt does not cost the image.
        ({"status": "succeeded", "result": {"data": [{"url": SAS, "revised_prompt": 7}]}}, Produced((ImageUrl(SAS),))),
    ],
)
def test_status_of_the_operation_is_the_outcome(
    server: ScriptedServer, operation: dict[str, Any], expected: Working | Produced | Ended
) -> None:
    assert poll(server, http(200, operation)) == expected


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"error": {"code": "contentFilter", "message": "No."}}, "contentFilter"),
        ({"error": {"code": "content_policy_violation"}}, "contentFilter"),
        ({"error": None}, "upstreamFailure"),
        ({"url": ""}, "noImage"),
        ({"url": None}, "noImage"),
        ({"url": 7}, "noImage"),
        ({}, "noImage"),
        ("text", "noImage"),
        (None, "noImage"),
    ],
)
def test_missing_image_keeps_its_index_and_reason(server: ScriptedServer, item: object, code: str) -> None:
    outcome = poll(server, http(200, {"status": "succeeded", "result": {"data": [{"url": SAS}, item]}}))
    assert isinstance(outcome, Produced)
    first, second = outcome.images
    assert first == ImageUrl(SAS)
    assert isinstance(second, ImageRefused)
    assert second.error.code == code


@pytest.mark.parametrize(
    "result", [None, {}, [], "text", {"data": None}, {"data": []}, {"data": {"url": SAS}}, {"data": SAS}]
)
def test_success_without_images_fails(server: ScriptedServer, result: object) -> None:
    outcome = poll(server, http(200, {"status": "succeeded", "result": result}))
    assert isinstance(outcome, Ended)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == (Status.FAILED, "noImages")


def test_operation_deleted_upstream_fails(server: ScriptedServer) -> None:
    outcome = poll(server, http(200, {"status": "deleted"}))
    assert isinstance(outcome, Ended)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == (Status.FAILED, "operationDeleted")


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("1686762999", datetime(2023, 6, 14, 17, 16, 39, tzinfo=UTC)),
        ("1686762999.5", datetime(2023, 6, 14, 17, 16, 39, 500_000, tzinfo=UTC)),
        # Invalid, and ignored.
        ("null", None),
        ('"1686762999"', None),
        ("true", None),
        ("0", None),
        ("-1", None),
        ("-100000000000", None),
        ("1e30", None),
        ("1e999", None),
        ("253402300800", None),  # the year 10000
        ("1686762999000", None),  # milliseconds
    ],
)
def test_expiry_time_of_the_images(server: ScriptedServer, expires: str, expected: datetime | None) -> None:
    body = f'{{"status": "succeeded", "expires": {expires}, "result": {{"data": [{{"url": "u"}}]}}}}'
    assert poll(server, http(200, body.encode())) == Produced((ImageUrl("u"),), expected)


DATE = "Mon, 23 Nov 2026 12:00:{:02d} GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry_after": "10"}, 10.0),
        ({"retry_after": " 10 "}, 10.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": DATE.format(9)}, 9.0),
        ({"retry_after": DATE.format(9).removeprefix("Mon, ")}, 9.0),
        ({"retry_after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),  # in the past
        ({"retry_after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0.0),  # the obsolete form of RFC 9110
        ({"retry_after": "Mon, 23 Nov 2026 12:00:09 -0000"}, 9.0),  # Python reads -0000 as no zone
        ({"retry_after": ""}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "."}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "\xb2"}, None),  # a digit for str.isdigit
        ({"retry_after": "9" * 400}, float("inf")),  # the state machine limits it
        # Dates outside the range of datetime.
        ({"retry_after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}, None),
        ({"retry_after": f"Mon, 01 Jan 2026 {'9' * 20}:00:00 GMT"}, None),
        ({"retry_after": f"Mon, 01 Jan 2026 00:00:00 +{'9' * 23}"}, None),
        ({"retry_after": "Mon, 01 Jan 0001 00:00:00 +2359"}, 0.0),
        # Valid milliseconds take precedence.
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
        ({"retry_after_ms": "\xb2", "retry_after": "9"}, 9.0),
        ({"retry_after_ms": "-1", "retry_after": "9"}, 9.0),
        ({"retry_after_ms": "9" * 5_000}, float("inf")),
    ],
)
def test_retry_after_in_every_form(server: ScriptedServer, headers: dict[str, str], expected: float | None) -> None:
    assert poll(server, http(200, {"status": "running"}, **headers)) == Working(expected)
    assert poll(server, http(503, **headers)) == Unavailable("status 503", expected)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        # None of these says anything about the operation, which is running and billed.
        (http(400), "status 400"),
        (http(401), "status 401"),  # during a key rotation
        (http(403), "status 403"),
        (http(410), "status 410"),
        (http(429), "status 429"),
        (http(500), "status 500"),
        (http(204), "status 204"),
        (http(302, location="/login"), "status 302"),
        (hang_up, "no response (ConnectionError)"),
        (http(200, b"{", content_length="99"), "no response (ProtocolError)"),
        (http(200, b"5\r\n{", transfer_encoding="chunked"), "no response (ProtocolError)"),
        (http(200, b""), "status 200 with a body that is not a JSON object"),
        (http(200, b"<html>maintenance</html>"), "status 200 with a body that is not a JSON object"),
        (http(200, [{"status": "succeeded"}]), "status 200 with a body that is not a JSON object"),
        (http(200, b'{"status": "succ'), "status 200 with a body that is not a JSON object"),
        (http(200, b"\xff\xfe{}"), "status 200 with a body that is not a JSON object"),
        (http(200, b'{"a":' * 100_000), "status 200 with a body that is not a JSON object"),
        (http(200, b'{"a":' * 300 + b"1" + b"}" * 300), "status 200 with a body that is not a JSON object"),
        # A lone surrogate can be parsed, but a record with it cannot be written.
        (
            http(200, b'{"status": "failed", "error": {"code": "x", "message": "\\ud83d"}}'),
            "status 200 with a body that is not a JSON object",
        ),
        (http(200, b'{"status":"running"}' + b" " * 2**20), "a response of more than 1,048,576 bytes"),
        (http(200, b" " * 2**21, content_length=None), "a response of more than 1,048,576 bytes"),
    ],
)
def test_failed_poll_never_ends_a_generation(server: ScriptedServer, reply: Reply, reason: str) -> None:
    late = NOON + timedelta(hours=1)
    assert poll(server, reply, now=late) == Unavailable(reason)


def test_refused_connection_never_ends_a_generation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert upstream(url).poll(running(operation_location=f"{url}/o/1"), NOON) == Unavailable(
        "no response (ConnectionError)"
    )


@pytest.mark.parametrize("age", [seconds(0), seconds(31), timedelta(days=2)])
def test_poll_with_404_never_ends_a_generation_alone(server: ScriptedServer, age: timedelta) -> None:
    reply = http(404, {"error": {"code": "notFound"}}, retry_after="7")
    assert poll(server, reply, generation=running(submitted=NOON), now=NOON + age) == Missing(7)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 Scripted\r\nX-Drip: ", http(200, b"{", content_length="1000")])
def test_dripping_response_ends_at_the_deadline(server: ScriptedServer, start: bytes) -> None:
    server.answers(drip(start))
    session = UpstreamSession(deployment(server.url), connections=1)
    began = time.monotonic()
    with pytest.raises(NoResponseError, match=r"no response \(Read"):
        session.send("GET", server.url, event="test", generation_id=ID, total_seconds=0.4)
    assert time.monotonic() - began < 5


def test_origin_that_is_no_longer_allowed_gets_no_request(server: ScriptedServer) -> None:
    server.answers(http(200, {"status": "running"}))
    accepted = running(operation_location=f"{server.url}/o/1")
    with_origin = upstream("https://images.example.com", server.url)
    assert isinstance(with_origin.poll(accepted, NOON), Working)
    without = upstream("https://images.example.com").poll(accepted, NOON)
    assert without == Unavailable("origin of the operation-location not in OPERATION_LOCATION_ALLOWED_ORIGINS")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (http(404, {"error": {"code": "notFound"}}), None),  # the credential was accepted
        (http(200, {"status": "deleted"}), None),
        (http(401), "AZURE_OPENAI_API_KEY"),
        (http(403), "Check the network rules and the firewall"),
        (http(500), "answered 500"),
        (hang_up, "the 'operations' API is out of reach"),
    ],
)
def test_health_check_is_free_and_names_the_problem(server: ScriptedServer, reply: Reply, expected: str | None) -> None:
    server.answers(reply)
    problem = upstream(server.url).check()
    assert [seen.method for seen in server.seen] == ["GET"]
    assert KEY not in str(problem)
    if expected is None:
        assert problem is None
    else:
        assert problem
        assert problem.certain
        assert re.search(expected, problem.message)


@pytest.mark.parametrize(
    ("reply", "stated"),
    [
        (http(404), "404"),
        (http(404, b"<html>", content_type="text/html"), "404"),
        (http(404, {"statusCode": 404, "message": "Resource not found"}), "404"),  # API Management
        (http(404, {"error": {"code": "404", "message": "Resource not found"}}), "404"),  # Azure, another route
        (http(302, location="https://login.example.com"), "302"),
        (http(200, b"<html>", content_type="text/html"), "200 with text/html"),
        # A gateway that sends all errors with 200: no operation.
        (http(200, {"error": {"code": "401"}}, content_type="application/json"), "200 with application/json"),
        (http(200, {}), "200 with no content type"),
        (http(405), "405"),
        (http(404, {"error": {"code": "NotFound", "message": "No route"}}), "404"),  # a router
        (http(404, {"error": {"code": "ResourceNotFound"}}), "404"),
        (http(400), "400"),
        (http(402), "402"),
        (http(407), "407"),
        (http(429), "429"),
        (http(403, {"error": {"code": "insufficient_quota", "message": "x"}}), "403"),  # no wrong credential
    ],
)
def test_health_check_notices_a_missing_route(server: ScriptedServer, reply: Reply, stated: str) -> None:
    server.answers(reply)
    problem = upstream(server.url).check()
    assert problem
    assert not problem.certain  # the submit may have a route all the same
    assert f"the service answered {stated} for an operation (/openai/operations/images/" in problem.message
    assert server.host not in problem.message


# --- errors


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"code": "x", "message": "m"}, GenerationError(code="x", message="m")),
        ({"code": "contentFilter", "message": "m"}, {"code": "contentFilter"}),
        ({"code": "content_filter"}, {"code": "content_filter"}),
        ({"code": "ContentFilter"}, {"code": "ContentFilter"}),
        ({"code": "moderation_blocked", "innererror": {"code": "i"}}, {"code": "i"}),
        ({"code": "content_policy_violation", "inner_error": {"code": "i", "more": [1]}}, {"code": "i", "more": [1]}),
        ({"code": "content_filter", "innererror": "text"}, {"code": "content_filter"}),
        ({"code": 429, "message": ["a", "b"]}, GenerationError(code="429", message="a; b")),
        ({"code": "", "message": ""}, GenerationError(code="upstreamFailure", message="@")),
        ({"code": "x\r\nSet-Cookie: y", "message": "m"}, GenerationError(code="upstreamFailure", message="m")),
        ({"code": "\u00fcber", "message": "m"}, GenerationError(code="upstreamFailure", message="m")),
        ({"code": {"a": 1}, "message": "m"}, GenerationError(code="upstreamFailure", message="m")),
        ("Unauthorized", GenerationError(code="upstreamFailure", message="Unauthorized")),
        (None, GenerationError(code="upstreamFailure", message="@")),
        ([1], GenerationError(code="upstreamFailure", message="@")),
        ({"message": "m" * 5_000}, GenerationError(code="upstreamFailure", message="m" * 2_000)),
    ],
)
def test_read_error_in_every_form(stated: object, expected: GenerationError | dict[str, Any]) -> None:
    error = read_error(stated)
    if isinstance(expected, dict):
        assert (error.code, error.innererror, error.is_refusal) == ("contentFilter", expected, True)
    else:
        silent = "The image service gave no reason."
        assert error == expected.model_copy(update={"message": expected.message.replace("@", silent)})


# --- limits


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": "x" * 1_001}, ["prompt"]),
        ({"n": 6}, ["n"]),
        ({"size": "auto"}, ["size"]),
        ({"size": "1792x1024"}, ["size"]),
        ({"quality": "hd"}, ["quality"]),
        ({"style": "vivid", "background": "opaque"}, ["background", "style"]),
        ({"output_format": "png", "output_compression": 0}, ["output_format", "output_compression"]),
        ({"prompt": "x" * 1_001, "n": 10, "size": "1x1"}, ["prompt", "n", "size"]),  # every problem at once
    ],
)
def test_invalid_fields_are_refused_before_the_submit(fields: dict[str, Any], named: list[str]) -> None:
    request = GenerationRequest.model_validate({"prompt": "x"}).model_copy(update=fields)
    with pytest.raises(RequestError) as caught:
        upstream("https://images.example.com").complete(request)
    assert [problem.field for problem in caught.value.problems] == named
    assert as_http_error(caught.value).status == 400


@pytest.mark.parametrize("size", ["256x256", "512x512", "1024x1024", None])
def test_default_size_is_the_largest(size: str | None) -> None:
    complete = upstream("https://images.example.com").complete(GenerationRequest(prompt="x" * 1_000, n=5, size=size))
    assert complete == GenerationRequest(prompt="x" * 1_000, n=5, size=size or "1024x1024", model="dalle")


# --- the log


def test_log_has_ids_and_no_secret(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "imagegen")
    caplog.set_level(logging.INFO)
    location = f"{server.url}/o/1?sig=s3cret"
    submit(server, http(202, operation_location=location, x_ms_request_id="r-1"))
    submit(server, http(401, {"error": {"message": PROMPT}}, apim_request_id="r-2"))
    submit(server, hang_up)
    poll(server, http(200, {"status": "succeeded", "result": {"data": [{"url": SAS}]}}))
    poll(server, http(500))
    # urllib3 logs a warning with the URL on broken headers.
    server.answers(b"HTTP/1.1 200 OK\r\nBroken header line\r\n\r\n")
    upstream(server.url).poll(running(operation_location=location), NOON)

    said = [record.getMessage() for record in caplog.records]
    assert f"upstream.submitted id={ID} status=202 upstream_request_id=r-1" in said[0]
    assert f"upstream.submitted id={ID} status=401 upstream_request_id=r-2" in said[1]
    assert said[2].startswith(f"upstream.submitted.unanswered id={ID} error=ConnectionError deployment=127.0.0.1:")
    for secret in (KEY, PROMPT, TOKEN, "s3cret", "sig="):
        assert secret not in caplog.text
