"""Responses that attack the app: compressed and nested bombs, quoted keys, line breaks in headers."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from imagegen.upstream.protocol import Ended, Unavailable
from imagegen.upstream.session import ResponseTooLongError, UpstreamSession
from tests.app.generations import ID, NOON, new, running
from tests.app.upstream.test_direct import generate, images
from tests.app.upstream.test_operations import KEY, deployment, submit, upstream
from tests.scripted_server import ScriptedServer, http

MEGABYTE = 2**20
BOMB = gzip.compress(b" " * (256 * MEGABYTE))


@contextmanager
def memory_below(limit: int) -> Generator[None]:
    """Check the peak of the memory that the code inside allocates, in bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", BOMB), ("gzip, gzip", gzip.compress(BOMB))], ids=["once", "twice"]
)
def test_compressed_bomb_stops_at_the_limit(server: ScriptedServer, encoding: str, body: bytes) -> None:
    server.answers(http(200, body, content_encoding=encoding))
    session = UpstreamSession(deployment(server.url), connections=1)
    with memory_below(16 * MEGABYTE), pytest.raises(ResponseTooLongError):
        session.send("GET", server.url, event="test", generation_id=ID)


def test_compressed_bomb_ends_a_call_without_repetition(server: ScriptedServer) -> None:
    with memory_below(16 * MEGABYTE):
        outcome = generate(server, http(200, BOMB, content_encoding="gzip"))
    assert isinstance(outcome, Ended)
    assert outcome.error
    assert outcome.error.code == "imageTooLarge"
    assert len(server.seen) == 1


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_json_takes_little_memory(server: ScriptedServer, opening: bytes, closing: bytes) -> None:
    body = b'{"data": ' + opening * 20_000 + b"1" + closing * 20_000 + b"}"
    with memory_below(32 * MEGABYTE):
        outcome = generate(server, http(200, body))
    assert isinstance(outcome, Ended)
    assert outcome.error
    assert outcome.error.code == "upstreamAnswerInvalid"


def test_surplus_images_are_ignored(server: ScriptedServer) -> None:
    assert len(images(generate(server, http(200, {"data": [{"b64_json": "MDAw"}] * 10_000})))) == 10


def test_deep_json_of_an_operation_is_unavailable(server: ScriptedServer) -> None:
    server.answers(http(200, b'{"status": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
    outcome = upstream(server.url).poll(running(operation_location=f"{server.url}/o/1"), NOON)
    assert isinstance(outcome, Unavailable)


@pytest.mark.parametrize("call", [submit, generate])
@pytest.mark.parametrize("status", [400, 401, 404, 451])
def test_key_that_the_service_quotes_is_removed(
    server: ScriptedServer, call: Callable[[ScriptedServer, bytes], object], status: int
) -> None:
    body = {"error": {"code": KEY, "message": f"no access with api-key: {KEY}", "innererror": {"key": KEY}}}
    outcome = call(server, http(status, body))
    assert isinstance(outcome, Ended)
    assert "***" in repr(outcome)
    assert KEY not in repr(outcome)


@pytest.mark.parametrize("end", ["\r\n X-Injected: yes", "\r\n\tX-Injected: yes", "\x0bx", "\x85x", "\x7fx"])
def test_operation_location_with_a_line_break_is_refused(server: ScriptedServer, end: str) -> None:
    outcome = submit(server, http(202, operation_location=f"{server.url}/o/1{end}"))
    assert isinstance(outcome, Ended)
    assert outcome.error
    assert outcome.error.code == "operationLocationInvalid"


def test_line_breaks_of_a_caller_add_no_header_upstream(server: ScriptedServer) -> None:
    text = "a\r\nX-Injected: yes\r\n\r\n"
    request = new().request.model_copy(update={"prompt": text, "user": text})
    server.answers(http(400))
    upstream(server.url).submit(new(request=request))
    assert "x-injected" not in server.seen[0].headers
    assert server.seen[0].body.count(b"\n") == 0
