"""Errors as gateways and services really send them: both kinds of API read them in the same way."""

from __future__ import annotations

import base64
import html
import json
import random
import string
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import pytest
from azure.core.credentials import AccessToken

from imagegen.deployments import ImageApi
from imagegen.generation import GenerationError, Status
from imagegen.lifecycle.changes import failed
from imagegen.upstream.direct import DirectUpstream
from imagegen.upstream.masking import mask_secrets, masking
from imagegen.upstream.openai_images import openai_images
from imagegen.upstream.protocol import Ended, ImageRefused, Lost, Produced, Throttled, Unavailable
from imagegen.upstream.reasons import reason_in
from imagegen.upstream.service_errors import read_error
from tests.app.generations import NOON, new, running
from tests.app.upstream import test_direct, test_operations
from tests.app.upstream.test_direct import KEY, generate, images
from tests.app.upstream.test_operations import poll, submit
from tests.scripted_server import ScriptedServer, http

type Call = Callable[[ScriptedServer, bytes], object]
BOTH = pytest.mark.parametrize("call", [submit, generate], ids=["operations", "direct"])


def ended(outcome: object) -> GenerationError:
    assert isinstance(outcome, Ended), outcome
    assert outcome.status is Status.FAILED
    assert outcome.error
    return outcome.error


def inner_message(error: GenerationError) -> str:
    assert error.innererror
    return error.innererror["message"]


# --- the reason

PAGE = (
    b"<!DOCTYPE html><html><head><title>Access denied</title><style>p > a { color: red }</style>"
    b"<script>if (1 < 2) { track('x') }</script></head><!-- <p>internal</p> --><body><h1>Access denied</h1>"
    b"<p>Blocked by the&nbsp;firewall &amp; logged.<br/>Ask IT"
)


@BOTH
@pytest.mark.parametrize("status", [400, 403, 404, 405, 422])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"statusCode": 401, "message": "Access denied due to missing subscription key."},  # API Management
            "Access denied due to missing subscription key."),
        ({"message": "no Route matched with those values"}, "no Route matched with those values"),  # Kong
        ({"detail": "Not here"}, "Not here"),
        ({"detail": [{"loc": ["body", "size"], "msg": "Input should be 'auto'", "type": "enum"},
                     {"loc": ["body", "n"], "msg": "too large", "type": "x", "input": 11}]},
            "size: Input should be 'auto'; n: too large"),  # FastAPI
        ({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "size is wrong"},
            "Bad Request: size is wrong"),  # RFC 9457
        ({"title": "One or more errors occurred.", "errors": {"Prompt": ["is too long", "is odd"]}},
            "One or more errors occurred: Prompt: is too long; Prompt: is odd"),  # ASP.NET
        ({"errors": [{"message": "one"}, "two"]}, "one; two"),
        ({"error": "prompt is bad"}, "prompt is bad"),
        ({"error": {"message": "prompt is bad"}}, "prompt is bad"),
        ({"error": {"code": None, "message": "prompt is bad"}}, "prompt is bad"),
        ({"error": {"code": None, "message": None}, "message": "outside"}, "outside"),
        ({"error": "Bad Request", "statusCode": 400, "message": ["n is bad", "size is bad"]},
            "Bad Request: n is bad; size is bad"),  # NestJS
        ({"error": "invalid_token", "error_description": "The token has ended"}, "invalid_token: The token has ended"),
        ({"fault": {"faultstring": "No target", "detail": {"errorcode": "x"}}}, "No target"),  # Apigee
        ({"Message": "The request is invalid."}, "The request is invalid."),
        (["first", {"message": "second"}], "first; second"),
        ("text in JSON", "text in JSON"),
        (b"\xef\xbb\xbf" + b'{"message": "after a mark"}', "after a mark"),
        (b"upstream connect error\r\n  or disconnect", "upstream connect error or disconnect"),  # Envoy
        (PAGE, "Access denied Blocked by the firewall & logged. Ask IT"),
        (b"<?xml version='1.0'?><Error><Code>AuthFailed</Code><Message>Bad.</Message></Error>", "AuthFailed Bad."),
        ({"message": "x" * 9_000}, "x" * 500),
        (b"Go away. " * 9_000, ("Go away. " * 60)[:500]),
    ],
)  # fmt: skip
def test_reason_of_every_form_of_body(
    server: ScriptedServer, call: Call, status: int, body: object, reason: str
) -> None:
    error = ended(call(server, http(status, body)))
    assert inner_message(error) == reason
    assert len(server.seen) == 1


@BOTH
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"7", b"{", b"\x89PNG\r\n\x1a\n\x00\x00IHDR", {"statusCode": 403}, {"error": {}}, b"<p>"],
)
def test_body_without_a_reason_says_so(server: ScriptedServer, call: Call, body: object) -> None:
    assert inner_message(ended(call(server, http(403, body)))) == "The image service gave no reason."


@BOTH
def test_declared_charset_is_used(server: ScriptedServer, call: Call) -> None:
    reply = http(403, "Zugriff für Gäste gesperrt".encode("latin-1"), content_type="text/plain; charset=ISO-8859-1")
    assert inner_message(ended(call(server, reply))) == "Zugriff für Gäste gesperrt"
    unknown = http(403, "für".encode(), content_type='text/plain; charset="klingon"')
    assert inner_message(ended(call(server, unknown))) == "für"


@BOTH
@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("utf-7", b"half +2AA- of a pair"),
        ("unicode_escape", rb"half \ud800 of a pair"),
        ("raw_unicode_escape", rb"half \ud800 of a pair"),
    ],
)
def test_text_in_an_unlisted_charset_fits_into_a_record(
    server: ScriptedServer, call: Call, charset: str, body: bytes
) -> None:
    error = ended(call(server, http(403, body, content_type=f"text/plain; charset={charset}")))
    json.dumps(failed(running(), error, NOON).to_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize("text", ["half \ud800 of a pair", "\udfff"])
def test_lone_surrogates_are_replaced(text: str) -> None:
    stated = {"code": text, "message": text, "innererror": {text: [text]}}
    for error in (read_error(stated), read_error(text), read_error({"detail": text}, mask=masking("a key"))):
        error.model_dump_json()
        assert "?" in error.message


@BOTH
def test_infinite_number_is_not_recorded(server: ScriptedServer, call: Call) -> None:
    body = b'{"error": {"code": "x", "message": "m", "innererror": {"a": 1e999}}}'
    assert "inf" not in repr(ended(call(server, http(405, body))))


PAGE_WITH_A_HUGE_NUMBER = b"<html>Sorry &#" + b"9" * 5_000 + b"; &#x" + b"f" * 5_000 + b"; &#65;sk IT</html>"


@BOTH
def test_page_with_a_huge_character_number(server: ScriptedServer, call: Call) -> None:
    assert inner_message(ended(call(server, http(403, PAGE_WITH_A_HUGE_NUMBER)))) == "Sorry Ask IT"
    assert call(server, http(429, PAGE_WITH_A_HUGE_NUMBER)) == Throttled("status 429")
    expected = Unavailable("status 503", 7.0)
    assert call(server, http(503, PAGE_WITH_A_HUGE_NUMBER, retry_after="7")) == expected


@BOTH
def test_unreadable_reason_is_no_reason(server: ScriptedServer, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise RuntimeError("a body that the tests do not know")

    monkeypatch.setattr("imagegen.upstream.response.reason_in", fails)
    assert inner_message(ended(call(server, http(403, b"x")))) == "The image service gave no reason."
    assert call(server, http(429, b"x", retry_after="7")) == Throttled("status 429", 7.0)


@BOTH
def test_code_at_the_top_of_the_body_is_kept(server: ScriptedServer, call: Call) -> None:
    error = ended(call(server, http(403, {"code": "IpBlocked", "message": "no"})))
    assert error.innererror == {"code": "IpBlocked", "message": "no"}


@pytest.mark.parametrize(
    "part", [b"<", b"<a ", b"<!--", b"</", b'<a b="', b"<script>", b"<!DOCTYPE [", b"&", b"<svg/>"]
)
def test_hostile_page_is_read_in_linear_time(part: bytes) -> None:
    began = time.process_time()
    reason_in(part * (2**20 // len(part)), "text/html")
    assert time.process_time() - began < 1


# --- secrets

# Made here: a key in this file would be a finding of the secret scanner. The same in every run.
_DICE = random.Random(4711)
OLD_MODEL_KEY = _DICE.randbytes(16).hex()
MODEL_KEY = "".join(_DICE.choices(string.ascii_letters + string.digits, k=84))
STORAGE_KEY = base64.b64encode(_DICE.randbytes(64)).decode()
FUNCTION_KEY = f"{base64.urlsafe_b64encode(_DICE.randbytes(30)).decode()}AzFu{_DICE.randbytes(4).hex()}=="
WEB_TOKEN = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"RS256"}', b'{"aud":"x"}', b"signature")
)
MADE_KEYS = (OLD_MODEL_KEY, MODEL_KEY, STORAGE_KEY, FUNCTION_KEY, WEB_TOKEN)


@BOTH
@pytest.mark.parametrize("status", [400, 403, 405])
@pytest.mark.parametrize(
    "secret",
    [
        f"api-key: {KEY}",
        "api-key: s3cret-value",
        "api-key=s3cret",
        '"Ocp-Apim-Subscription-Key": "s3cret-1"',
        "https://gw.example.com/x?subscription-key=s3cret&n=1",
        "https://f.example.com/api?code=s3cret",
        "https://images.example.com/i.png?se=2026&sig=s3cret%2bx",
        "https://user:s3cret@gw.example.com/x",
        "Authorization: Bearer s3cret.token-value",
        f"Bearer {WEB_TOKEN}",
        f"the token {WEB_TOKEN}",
        f"Basic {base64.b64encode(b'user:s3cret').decode()}",
        "key provided: sk-proj-s3cret",
        f"key {OLD_MODEL_KEY}",
        f"key '{MODEL_KEY}'",
        f"key {STORAGE_KEY}",
        f"key {FUNCTION_KEY}",
        f"AccountName=a;AccountKey={STORAGE_KEY};x=1",
    ],
)
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_secret_in_an_error_is_masked(
    server: ScriptedServer, call: Call, status: int, secret: str, as_json: bool
) -> None:
    text = f"Refused {secret} by policy"
    body: object = {"error": {"message": text, "innererror": {"quoted": [text]}}} if as_json else text.encode()
    outcome = repr(ended(call(server, http(status, body))))
    assert "***" in outcome
    for part in (KEY, "s3cret", "dXNlcjpz", *(key[4:16] for key in MADE_KEYS)):
        assert part not in outcome
    assert "Refused " in outcome


def test_key_with_json_escapes_is_masked(server: ScriptedServer) -> None:
    key = "a+b/c&d"
    server.answers(http(400, rb'{"message": "wrong key a\u002Bb\/c\u0026d."}'))
    error = ended(test_direct.upstream(server.url, key=key).generate(test_direct.ASKED))
    assert error.message == "wrong key ***."


def test_secret_is_masked_in_the_errors_of_an_operation(server: ScriptedServer) -> None:
    quoted = {"code": "x", "message": f"key {KEY}", "innererror": {KEY: f"?sig=s3cret {KEY}"}}
    failed = poll(server, http(200, {"status": "failed", "error": quoted}))
    [image] = images(generate(server, http(200, {"data": [{"error": quoted}]})))
    produced = poll(server, http(200, {"status": "succeeded", "result": {"data": [{"error": quoted}]}}))
    for outcome in (failed, image, produced):
        assert KEY not in repr(outcome)
        assert "s3cret" not in repr(outcome)
        assert "***" in repr(outcome)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("Authorization: ApiKey abcDEF-ghi_JKL", "Authorization: ApiKey ***"),
        ("{'Authorization': ['SharedKey abcDEF-ghi_JKL']}", "{'Authorization': ['SharedKey ***']}"),
        ("Authorization=abcDEF-ghi_JKL", "Authorization=***"),
        ("{'Ocp-Apim-Subscription-Key': ['0f8fad5b-d9cb']}", "{'Ocp-Apim-Subscription-Key': ['***']}"),
        (r'{\"x-api-key\":\"abc123defgh\"}', r'{\"x-api-key\":\"***"}'),
        ("?se=1&sig%3Dabcdef", "?se=1&sig%3D***"),
        ("%3Fse%3D1%26sig%3Dabcdef", "%3Fse%3D1%26sig%3D***"),
        ("refresh_token: aBcDxF123456", "refresh_token: ***"),
        ("api_token=xyz", "api_token=***"),
        ("secretAccessKey=def123", "secretAccessKey=***"),
        ("Uid=a;Pwd=Geheim1;x=1", "Uid=a;Pwd=***;x=1"),
        (f"key_{OLD_MODEL_KEY}_x", "key_***_x"),
    ],
)  # fmt: skip
def test_common_forms_of_secrets_are_masked(text: str, expected: str) -> None:
    assert mask_secrets(text) == expected


@pytest.mark.parametrize("form", ["{}", "%{:02X}", "%{:02x}", "&#{};", "&#x{:x};", "\\u{:04x}", "\\u{:04X}"])
def test_escaped_key_of_the_deployment_is_masked(form: str) -> None:
    escaped = "".join(one if one.isalnum() else form.format(one if form == "{}" else ord(one)) for one in "a+b/c&d'e")
    assert masking("a+b/c&d'e")(f"wrong key {escaped}.") == "wrong key ***."


def test_key_escaped_by_libraries_is_masked() -> None:
    key = """a+b/c&d"e'f<g"""
    for escaped in (quote(key), quote(key, safe=""), html.escape(key), json.dumps(key)[1:-1], r"a+b\/c&d\"e'f<g"):
        assert masking(key)(f"wrong key ({escaped})") == "wrong key (***)"


@pytest.mark.parametrize(
    "part", ["key", "-key", "authorization: ", "key: a", "a1", "a-", '\\"', "eyJ.", "bearer a", "%3D"]
)
def test_hostile_text_is_masked_in_linear_time(part: str) -> None:
    began = time.process_time()
    masking("a+b/c&d")(part * (2**20 // len(part)))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: header is missing",
        "Access denied due to invalid subscription key or wrong API endpoint.",
        "The api-key: required header is missing",
        "error code=404, token limit: 4000, max_tokens=4000",
        "deployment my-company-gpt-image-2-deployment-eastus-01 in /openai/deployments/gpt-image-2/images/generations",
        "request id 0190a1b2-1111-7222-8333-444455556666",
        "Bearer authentication is not enabled",
        "Use https://aka.ms/oai/quotaincrease?x=1",
    ],
)
def test_ordinary_text_is_not_masked(text: str) -> None:
    assert mask_secrets(text) == text


# --- throttles


QUOTA = "Out of call volume quota. Quota will be replenished in 00:12:34."


@BOTH
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (http(403, {"statusCode": 403, "message": QUOTA}), Throttled(QUOTA[:-1], 754.0)),
        (http(403, {"statusCode": 403, "message": QUOTA}, retry_after="700"), Throttled(QUOTA[:-1], 700.0)),
        (http(403, {"message": "Out of bandwidth quota. Quota will be replenished in 5.03:23:11."}),
            Throttled("Out of bandwidth quota. Quota will be replenished in 5.03:23:11", 444_191.0)),
        (http(403, {"message": "Out of call volume quota."}), Throttled("Out of call volume quota")),
        (http(403, QUOTA.encode()), Throttled(QUOTA[:-1], 754.0)),
        (http(403, retry_after="26"), Throttled("status 403", 26.0)),
        (http(403, retry_after="0"), Throttled("status 403")),  # not at once: the pause grows
        (http(403, retry_after_ms="1500"), Throttled("status 403", 1.5)),
        (http(403, {"error": {"code": "insufficient_quota", "message": "Try again in 60 minutes."}}),
            Throttled("status 403", 60.0, "insufficient_quota")),
        (http(403, {"error": {"code": "insufficient_quota", "message": "x"}}),
            Throttled("status 403", code="insufficient_quota")),
        (http(403, {"error": {"message": "This resource is temporarily blocked."}}),
            Throttled("temporarily blocked", 300.0)),
        (http(403, {"error": {"message": "This resource is temporarily blocked."}}, retry_after="900"),
            Throttled("temporarily blocked", 900.0)),
        (http(429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 15 seconds."}),
            Throttled("Rate limit is exceeded. Try again in 15 seconds", 15.0)),
        (http(429, {"error": {"code": "429", "message": "… pricing tier. Please retry after 26 seconds. See x."}}),
            Throttled("status 429", 26.0)),
        (http(429, {"error": {"code": "rate_limit_exceeded", "message": "Please try again in 12.5s. Visit x"}}),
            Throttled("status 429", 12.5, "rate_limit_exceeded")),
        (http(429, {"error": {"code": "RateLimitReached", "message": "Please retry after 1 minute."}}),
            Throttled("status 429", 60.0, "RateLimitReached")),
        (http(429, {"message": "try again in 500ms"}), Throttled("status 429", 0.5)),
        (http(429, {"message": "Try again in 6 months, or retry after 2027-01-01."}), Throttled("status 429")),
        (http(429, {"message": "Try again in 15 seconds."}, retry_after="7"), Throttled("status 429", 7.0)),
        (http(429, x_ms_retry_after_ms="2500"), Throttled("status 429", 2.5)),
        (http(429, x_ms_retry_after_ms="2500", retry_after="9"), Throttled("status 429", 2.5)),
        (http(429, retry_after_ms="250.5"), Throttled("status 429", 0.2505)),
        (http(429, {"error": {"code": None, "type": "insufficient_quota", "message": "You exceeded your quota"}}),
            Throttled("status 429", code="insufficient_quota")),
        # OpenAI's spending limit: an operator can raise it while the generation waits.
        (http(400, {"error": {"code": "billing_hard_limit_reached", "message": "x", "type": "invalid_request_error"}}),
            Throttled("status 400", code="billing_hard_limit_reached")),
        (http(402, {"error": {"code": "insufficient_quota", "message": "x"}}),
            Throttled("status 402", code="insufficient_quota")),
        (http(400, {"error": {"code": "quotaExceeded", "message": "x"}}),
            Throttled("status 400", code="quotaExceeded")),
    ],
)  # fmt: skip
def test_used_up_quota_is_a_throttle(server: ScriptedServer, call: Call, reply: bytes, expected: Throttled) -> None:
    assert call(server, reply) == expected
    assert len(server.seen) == 1


@BOTH
@pytest.mark.parametrize("status", [403, 429])
def test_throttle_with_a_date(server: ScriptedServer, call: Call, status: int) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    outcome = call(server, http(status, retry_after=later))
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after == pytest.approx(40, abs=3)


@BOTH
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (http(403), "upstreamForbidden"),
        (http(403, {"statusCode": 403, "message": "Forbidden"}), "upstreamForbidden"),
        (http(403, PAGE, content_type="text/html"), "upstreamForbidden"),
        # A page for people: its "try again" says nothing about a quota.
        (http(403, b"<p>Blocked. Try again in 5 minutes.", content_type="text/html"), "upstreamForbidden"),
        (http(403, retry_after="soon"), "upstreamForbidden"),
        # A text may quote the prompt.
        (http(403, {"message": "Slow down. Try again in 15 seconds."}), "upstreamForbidden"),
        (http(403, {"message": "Prompt 'a sign: try again in 60 minutes' violates the policy"}), "upstreamForbidden"),
        (http(403, {"message": f"Prompt '{QUOTA}' violates the policy"}), "upstreamForbidden"),
        (http(403, {"message": "Prompt 'this resource is temporarily blocked' violates the policy"}),
            "upstreamForbidden"),
        (http(403, {"error": {"code": "PermissionDenied", "message": "x"}}, retry_after="20"), "upstreamForbidden"),
        (http(403, {"error": {"code": "policy_violation", "message": QUOTA}}), "upstreamForbidden"),
        (http(403, {"error": {"code": "content_filter", "message": "x"}}, retry_after="20"), "contentFilter"),
        (http(401, retry_after="20"), "upstreamUnauthorized"),
        (http(404, retry_after="20"), "upstreamNotFound"),
        (http(400, {"message": "try again in 5 seconds"}, retry_after="5"), "invalidPayload"),
        (http(402), "http402"),
    ],
)  # fmt: skip
def test_refusal_without_a_quota_ends_at_once(server: ScriptedServer, call: Call, reply: bytes, code: str) -> None:
    assert ended(call(server, reply)).code == code
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x_ms_retry_after_ms": "2500"}, b"", Unavailable("status 503", 2.5)),
        ({"retry_after_ms": "2500"}, b"", Unavailable("status 503", 2.5)),
        ({"retry_after": "Sun, 06 Nov 1994 08:49:37 GMT"}, b"", Unavailable("status 503", 0.0)),
        ({}, {"error": {"code": "ServerBusy", "message": "x"}}, Unavailable("status 503", None, "ServerBusy")),
        ({}, {"error": {"code": "ServerBusy", "message": "Please retry after 26 seconds."}},
            Unavailable("status 503", 26.0, "ServerBusy")),
    ],
)  # fmt: skip
@BOTH
def test_busy_service_with_a_time_is_unavailable(
    server: ScriptedServer, call: Call, headers: dict[str, str], body: object, expected: Unavailable
) -> None:
    assert call(server, http(503, body, **headers)) == expected


OUTAGE = "Service unavailable. Please try again in 30 seconds."


@pytest.mark.parametrize("body", [f"<html>{OUTAGE}</html>".encode(), OUTAGE.encode(), {"message": OUTAGE}])
def test_outage_in_words_is_a_lost_call(server: ScriptedServer, body: object) -> None:
    assert generate(server, http(503, body)) == Lost("status 503")


def test_busy_gateway_in_words_delays_the_submit(server: ScriptedServer) -> None:
    assert submit(server, http(503, {"message": OUTAGE})) == Unavailable("status 503", 30.0)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (http(403, {"statusCode": 403, "message": QUOTA}), Unavailable("status 403", 754.0)),
        (http(429, {"message": "Rate limit is exceeded. Try again in 9 seconds."}), Unavailable("status 429", 9.0)),
        (http(429, {"error": {"code": "insufficient_quota"}}), Unavailable("status 429", None, "insufficient_quota")),
        (http(503, x_ms_retry_after_ms="2500"), Unavailable("status 503", 2.5)),
        (http(422, {"detail": [{"msg": "x"}]}), Unavailable("status 422")),
    ],
)
def test_throttled_poll_waits_as_stated(server: ScriptedServer, reply: bytes, expected: Unavailable) -> None:
    assert poll(server, reply) == expected


@BOTH
@pytest.mark.parametrize("code", ["a b", "x\r\ny", "\u00fc", "x" * 101, {"a": 1}, KEY, True, 429, "None", "null", ""])
def test_code_of_a_throttle_is_safe(server: ScriptedServer, call: Call, code: object) -> None:
    assert call(server, http(429, {"error": {"code": code}})) == Throttled("status 429")


SAFETY = "Your request was rejected by our safety system. safety_violations=[violence]."


@BOTH
@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (http(403, {"statusCode": 403, "message": QUOTA}),
            "Out of call volume quota. Quota will be replenished in 00:12:34"),
        (http(429, {"message": "Rate limit is exceeded.\r\nTry again\u0000\u202e later."}),
            "Rate limit is exceeded"),
        (http(429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 26 seconds."}),
            "Rate limit is exceeded. Try again in 26 seconds"),
        (http(403, {"message": "Quota will be replenished in 00:12:34. See 'a secret lighthouse'"}),
            "Quota will be replenished in 00:12:34"),
        # Any other text may quote the prompt, and the cause is for all callers and for the log.
        (http(429, b"<h1>429 Too Many Requests</h1>nginx", content_type="text/html"), "status 429"),
        (http(429, {"message": "Too many requests for 'a secret lighthouse'"}), "status 429"),
        (http(429, {"message": "Rate limit is exceeded for 'a secret lighthouse'"}), "Rate limit is exceeded"),
        (http(429, {"error": {"code": "rate_limit_exceeded", "message": "x"}}), "rate_limit_exceeded"),
        (http(429), "status 429"),
    ],
)  # fmt: skip
def test_cause_of_a_throttle_is_a_known_sentence_or_the_status(
    server: ScriptedServer, call: Call, reply: bytes, cause: str
) -> None:
    outcome = call(server, reply)
    assert isinstance(outcome, Throttled)
    assert outcome.cause == cause


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (http(502, b"<html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1>"), "status 502: 502 Bad Gateway"),
        (http(503), "status 503"),
        (http(504, b"stream timeout"), "status 504: stream timeout"),
        (http(500, {"statusCode": 500, "message": "Internal server error"}), "status 500: Internal server error"),
    ],
)
def test_cause_of_a_lost_call_has_the_last_answer(server: ScriptedServer, reply: bytes, cause: str) -> None:
    outcome = generate(server, reply)
    assert isinstance(outcome, Lost)
    assert outcome.cause == cause


# --- requests that HTTP cannot express


@pytest.mark.parametrize("key", ["k\u00e9y\u2026", "key\n", "\ud800", "key\u0000", "a\r\nb: c"])
def test_key_that_no_header_can_hold_ends_without_a_call(server: ScriptedServer, key: str) -> None:
    server.answers(http(200))
    images_api = test_direct.upstream(server.url, key=key)
    flux_api = test_direct.upstream(server.url, key=key, api=ImageApi.FLUX)
    operations_api = test_operations.upstream(server.url, key=key)
    for upstream in (images_api, flux_api, operations_api):
        outcome = (
            upstream.generate(test_direct.ASKED) if isinstance(upstream, DirectUpstream) else upstream.submit(new())
        )
        error = ended(outcome)
        assert error.code == "configurationInvalid"
        assert error.message.startswith("The app cannot send the key of the deployment: ")
        assert "Nothing was sent or billed. Copy the key again (AZURE_OPENAI_API_KEY" in error.message
        found = upstream.check()
        assert found
        assert found.certain
        assert error.message in found.message
        assert key not in f"{error} {found}"
    assert server.seen == []


def test_poll_with_an_unsendable_key_keeps_the_operation(server: ScriptedServer) -> None:
    accepted = running(operation_location=f"{server.url}/o/1")
    outcome = test_operations.upstream(server.url, key="\u2026").poll(accepted, NOON)
    assert isinstance(outcome, Unavailable)
    assert "the key of the deployment" in outcome.reason


def test_unsendable_proxy_password_ends_without_a_call(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{'user'}:%E2%82%AC@{server.host}")
    error = ended(test_direct.upstream("http://a.example").generate(test_direct.ASKED))
    assert error.code == "configurationInvalid"
    assert "its URL, its proxy or a header is invalid (UnicodeEncodeError)" in error.message
    assert server.seen == []


@pytest.mark.parametrize("endpoint", ["http://a..example", f"http://{'a' * 64}.example"])
def test_impossible_host_ends_without_a_call(endpoint: str) -> None:
    error = ended(test_direct.upstream(endpoint).generate(test_direct.ASKED))
    assert error.code == "configurationInvalid"
    assert "its URL, its proxy or a header is invalid (" in error.message


# --- errors with 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "content_policy", "message": "rejected by filter"}},
            ("contentFilter", "rejected by filter")),
        ({"error": {"code": None, "message": SAFETY}, "data": []}, ("contentFilter", SAFETY)),
        ({"error": {"code": "model_overloaded", "message": f"Busy, {KEY}"}}, ("model_overloaded", "Busy, ***")),
        ({"error": "Busy"}, ("noImages", "Busy")),
        ({"data": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]},
            ("contentFilter", "The content filter of the image service removed this image (hate).")),
        ({"error": None}, ("noImages", "The response of the image service holds no image.")),
        ({"x": "y" * 70_000}, ("noImages", "The response of the image service holds no image.")),
    ],
)  # fmt: skip
def test_error_with_200_is_the_error_of_the_service(
    server: ScriptedServer, body: object, expected: tuple[str, str]
) -> None:
    [refused] = images(generate(server, http(200, body)))
    assert isinstance(refused, ImageRefused)
    assert (refused.error.code, refused.error.message) == expected
    assert refused.error.is_refusal is (expected[0] == "contentFilter")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"statusCode": 429, "message": f"Too many calls with {KEY}"}, "Too many calls with ***"),
        ({"detail": "y" * 9_000}, "y" * 500),
        ({"statusCode": 429}, None),
    ],
)
def test_reason_of_a_200_without_images_is_kept(server: ScriptedServer, body: object, reason: str | None) -> None:
    [refused] = images(generate(server, http(200, body)))
    assert isinstance(refused, ImageRefused)
    assert refused.error.code == "noImages"
    assert refused.error.innererror == (reason and {"message": reason})


# --- final statuses


@BOTH
@pytest.mark.parametrize(
    ("status", "body", "check", "reason"),
    [
        (405, b"", "Check the endpoint and the API in the settings, and whether a gateway allows this method.", None),
        (405, b"<h1>Method Not Allowed</h1>", "Check the endpoint and the API", "Method Not Allowed"),
        (405, {"error": {"code": "405"}}, "Check the endpoint and the API", None),  # the status is no code
        (413, {"statusCode": 413, "message": "Too large"}, "Check the limit of a gateway", "Too large"),
        (415, b"", "Check the endpoint and the API in the settings, and the policies of a gateway before it.", None),
    ],
)
def test_final_status_names_the_url_and_what_to_check(
    server: ScriptedServer, call: Call, status: int, body: object, check: str, reason: str | None
) -> None:
    error = ended(call(server, http(status, body)))
    assert error.code == f"http{status}"
    assert error.message.startswith(f"The image service answered {status} to POST {server.url}/openai/")
    assert f". {check}" in error.message
    assert "?" not in error.message
    assert error.innererror == (reason and {"code": f"http{status}", "message": reason})


@pytest.mark.parametrize("status", [501, 505])
def test_unsupported_call_names_the_url(server: ScriptedServer, status: int) -> None:
    error = ended(generate(server, http(status)))
    assert error.message.startswith(f"The image service answered {status} to POST {server.url}/openai/")


@pytest.mark.parametrize(
    ("key", "check"),
    [
        (
            KEY,
            "Check the network rules and the firewall of the image service, whether it allows keys, and the policies",
        ),
        (None, "Check the role of the app's identity on the image service, and the network rules of that service."),
    ],
)
def test_403_names_what_can_be_wrong(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, key: str | None, check: str
) -> None:
    class Credential:
        def get_token(self, *_: str, **__: object) -> AccessToken:
            return AccessToken("an-entra-token", 2_000_000_000)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    server.answers(http(403))
    upstream = test_direct.upstream(server.url, key=key)
    error = ended(upstream.generate(test_direct.ASKED))
    assert check in error.message
    found = upstream.check()
    assert found
    assert check in found.message


# --- refusals of the input


@BOTH
@pytest.mark.parametrize(
    "error",
    [
        {"code": None, "message": SAFETY},
        {"code": None, "message": SAFETY, "type": "image_generation_user_error"},
        {"code": "400", "message": "Your request was rejected as a result of our safety system."},
        {"code": "BadRequest", "message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": None, "message": "x", "inner_error": {"content_filter_results": {"hate": {"filtered": True}}}},
        SAFETY,
        {"code": "400", "message": "The prompt was flagged by content filter."},
        {"code": "400", "message": "Your input was Blocked by our content filters."},
    ],
)
@pytest.mark.parametrize("status", [400, 403, 422])
def test_safety_system_is_a_content_filter(server: ScriptedServer, call: Call, error: object, status: int) -> None:
    found = ended(call(server, http(status, {"error": error})))
    assert (found.code, found.is_refusal) == ("contentFilter", True)
    assert len(server.seen) == 1


def test_failed_operation_by_the_safety_system(server: ScriptedServer) -> None:
    outcome = poll(server, http(200, {"status": "failed", "error": {"code": None, "message": SAFETY}}))
    assert (ended(outcome).code, ended(outcome).message) == ("contentFilter", SAFETY)


FILTERED = {"hate": {"filtered": False}, "violence": {"filtered": True, "severity": "high"}}


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"content_filter_results": FILTERED}, "contentFilter"),
        ({"url": None, "b64_json": None, "error": None, "content_filter_results": FILTERED}, "contentFilter"),
        ({"prompt_filter_results": FILTERED}, "contentFilter"),
        ({"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}]}, "contentFilter"),
        ({"content_filter_results": {"violence": {"filtered": False}}}, "noImage"),
        ({"content_filter_results": {"violence": {"filtered": "true"}}}, "noImage"),
        ({"content_filter_results": "violence"}, "noImage"),
    ],
)
def test_item_with_filter_results_only(server: ScriptedServer, item: dict[str, Any], code: str) -> None:
    [called] = images(generate(server, http(200, {"data": [item]})))
    produced = poll(server, http(200, {"status": "succeeded", "result": {"data": [item]}}))
    assert isinstance(produced, Produced)
    assert (called,) == produced.images
    assert isinstance(called, ImageRefused)
    assert called.error.code == code
    if code == "contentFilter":
        assert "violence" in called.error.message
        assert called.error.innererror
        assert set(called.error.innererror) <= item.keys()


def test_image_with_filter_results_is_an_image(server: ScriptedServer) -> None:
    item = {"b64_json": "AAAA", "content_filter_results": FILTERED, "prompt_filter_results": FILTERED}
    [image] = images(generate(server, http(200, {"data": [item]})))
    assert not isinstance(image, ImageRefused)


@BOTH
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": [{"loc": ["body", "size"], "msg": "unknown size", "type": "value_error"}]}, "size: unknown size"),
        ({"detail": "unknown size"}, "unknown size"),
        ({"error": {"code": "invalid_value", "message": "unknown size"}}, "unknown size"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_refused_input_is_an_invalid_payload(
    server: ScriptedServer, call: Call, body: dict[str, Any], message: str, status: int
) -> None:
    error = ended(call(server, http(status, body)))
    assert (error.code, error.message, error.is_refusal) == ("invalidPayload", message, True)
    assert inner_message(error) == message


@BOTH
def test_details_of_a_refusal_are_kept(server: ScriptedServer, call: Call) -> None:
    stated = {"code": "invalid_value", "message": "m", "innererror": {"code": "deep"}}
    error = ended(call(server, http(400, {"error": stated})))
    assert error.innererror == stated


# --- 404


def not_found(server: ScriptedServer, api: ImageApi, body: object = b"", *, path: str = "") -> str:
    server.answers(http(404, body))
    where = f"{server.url}{path}"
    if api is ImageApi.OPERATIONS:
        return ended(test_operations.upstream(where).submit(running())).message
    return ended(test_direct.upstream(where, api=api).generate(test_direct.ASKED)).message


@pytest.mark.parametrize(
    ("api", "path", "causes"),
    [
        (ImageApi.OPERATIONS, "/openai/images/generations:submit",
            ("The API (", "The endpoint (", "The API version (")),
        (ImageApi.IMAGES, "/openai/v1/images/generations", ("The endpoint (", "The API version (", "The deployment: ")),
        (ImageApi.FLUX, "/providers/blackforestlabs/v1/flux-2-pro",
            ("The endpoint (", "The model path: ", "The API version (", "The deployment: ")),
        (ImageApi.MAI, "/mai/v1/images/generations", ("The endpoint (", "The deployment: ")),
    ],
)  # fmt: skip
def test_missing_route_names_the_url_and_its_causes(
    server: ScriptedServer, api: ImageApi, path: str, causes: tuple[str, ...]
) -> None:
    message = not_found(server, api, {"error": {"code": "404", "message": "Resource not found"}})
    assert message.startswith(f"The image service answered 404 (404) to POST {server.url}{path}. Check the causes, ")
    places = [message.index(f"{number}. {cause}") for number, cause in enumerate(causes, 1)]
    assert places == sorted(places)
    assert f"{len(causes) + 1}. " not in message
    assert "?" not in message
    assert KEY not in message


@pytest.mark.parametrize("api", [ImageApi.IMAGES, ImageApi.FLUX, ImageApi.MAI])
def test_missing_deployment_is_the_first_cause(server: ScriptedServer, api: ImageApi) -> None:
    message = not_found(server, api, {"error": {"code": "DeploymentNotFound", "message": "It does not exist."}})
    assert "1. The deployment: 'gpt-image-2' must be its exact name" in message
    assert "2. The endpoint (" in message


@pytest.mark.parametrize("api", list(ImageApi))
def test_path_of_the_endpoint_is_named_as_a_cause(server: ScriptedServer, api: ImageApi) -> None:
    message = not_found(server, api, b"<html>", path="/openai/v1")
    assert f"to POST {server.url}/openai/v1/" in message
    assert "it has the path '/openai/v1', which is right for a gateway or a project only" in message


def test_secret_in_the_path_of_a_url_is_masked(server: ScriptedServer) -> None:
    message = not_found(server, ImageApi.IMAGES, path=f"/gateway/{KEY}/{OLD_MODEL_KEY}")
    assert "/gateway/***/***/openai/v1/images/generations" in message
    assert KEY not in message
    assert OLD_MODEL_KEY not in message


def test_missing_operation_stays_a_missing_poll(server: ScriptedServer) -> None:
    server.answers(http(404, {"statusCode": 404, "message": "Resource not found"}, retry_after_ms="1500"))
    outcome = test_operations.upstream(server.url).poll(running(operation_location=f"{server.url}/o/1"), NOON)
    assert getattr(outcome, "retry_after", None) == 1.5


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (None, "it is not set, which is right for Azure. If your gateway needs a date, set 2025-04-01-preview (with"),
        ("2025-04-01", "it is '2025-04-01'; use 2025-04-01-preview (with its suffix), or leave it out."),
    ],
)
def test_version_as_a_cause_fits_the_settings(version: str | None, cause: str) -> None:
    where = test_direct.deployment("https://a.example").model_copy(update={"api_version": version})
    causes = openai_images(where).not_found.in_order(GenerationError(code="404", message="x"))
    assert f"The API version (AZURE_OPENAI_API_VERSION, or apiVersion in IMAGE_DEPLOYMENTS): {cause}" in causes
