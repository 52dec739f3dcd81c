from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from local.host.http import HttpTriggers, joined, to_response
from local.host.invocations import Outcome
from local.host.messages import RpcHttp, TypedData
from local.host.routes import parse
from local.host.runtime import Binding, Function

if TYPE_CHECKING:
    from collections.abc import Mapping


class Invocations:
    """Keeps what functions were given."""

    def __init__(self) -> None:
        self.seen: list[TypedData] = []

    async def invoke(self, _: Function, trigger: TypedData, **__: object) -> Outcome:
        self.seen.append(trigger)
        return Outcome(succeeded=True)


def request(chunks: list[bytes]) -> tuple[int, Invocations]:
    """Post a body in chunks; returns the status and what was invoked."""
    function = Function("1", "upload", Binding("req", "httpTrigger", {}), ())
    invocations = Invocations()
    application = HttpTriggers({function: parse("upload", "upload")}, cast("Any", invocations))
    sent: list[Mapping[str, Any]] = []
    left = list(chunks)

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/upload", "raw_path": b"/upload", "headers": []}
    scope |= {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}
    asyncio.run(application(scope, cast("Any", receive), cast("Any", send)))
    return sent[0]["status"], invocations


def test_a_body_of_100_mb_is_taken_and_one_byte_more_is_not() -> None:
    chunk = bytes(10 * 1024 * 1024)
    status, invocations = request([chunk] * 10)
    assert status == 204
    assert invocations.seen[0].http is not None
    assert invocations.seen[0].http.body == TypedData(bytes=chunk * 10)
    status, invocations = request([*[chunk] * 10, b"x"])
    assert (status, invocations.seen) == (413, [])


def test_a_client_that_leaves_in_the_middle_of_its_body_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    function = Function("1", "upload", Binding("req", "httpTrigger", {}), ())
    invocations = Invocations()
    application = HttpTriggers({function: parse("upload", "upload")}, cast("Any", invocations))
    left = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return left.pop(0)

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/upload", "raw_path": b"/upload", "headers": []}
    scope |= {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}
    with caplog.at_level("INFO", "local.host"):
        asyncio.run(application(scope, cast("Any", receive), cast("Any", send)))
    assert [record.getMessage() for record in caplog.records] == ["the client left in the middle of its POST /upload"]
    assert (invocations.seen, sent) == ([], [])


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Outcome(succeeded=False), 500, b""),
        (Outcome(succeeded=True), 204, b""),  # a function that returned nothing
        (Outcome(succeeded=True, value=TypedData(string="text")), 200, b"text"),
        (Outcome(succeeded=True, value=TypedData(json="[1]")), 200, b"[1]"),
        (
            Outcome(succeeded=True, value=TypedData(http=RpcHttp(status_code="418", body=TypedData(bytes=b"t")))),
            418,
            b"t",
        ),
    ],
)
def test_an_outcome_is_a_response(outcome: Outcome, status: int, body: bytes) -> None:
    response = to_response(outcome)
    assert (response.status_code, response.body) == (status, body)


def test_the_server_counts_the_body_not_the_function() -> None:
    headers = {"Content-Length": "99", "Transfer-Encoding": "chunked", "X-Kept": "yes"}
    http = RpcHttp(status_code="200", headers=headers, body=TypedData(bytes=b"four"))
    response = to_response(Outcome(succeeded=True, value=TypedData(http=http)))
    assert response.headers.items() == [("content-length", "4"), ("x-kept", "yes")]


def test_repeated_names_are_joined_under_the_first_spelling() -> None:
    assert joined([("A", "1"), ("b", "2"), ("a", "3")]) == {"A": "1,3", "b": "2"}
