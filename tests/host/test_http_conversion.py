from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from local.host.bindings import HttpTrigger
from local.host.http import HttpFunction, joined, to_response
from local.host.messages import RpcHttp, TypedData
from local.host.routes import HttpRouter, function_routes
from local.host.runtime import Function, Outcome


class FakeWorker:
    def __init__(self) -> None:
        self.received: list[TypedData] = []

    async def invoke(self, _: Function, data: TypedData, **__: object) -> Outcome:
        self.received.append(data)
        return Outcome(succeeded=True, value=TypedData(http=RpcHttp(status_code="204")))


def post(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[TypedData]]:
    """Post a body in these ASGI messages. Return the messages of the response, and what the function received."""
    worker = FakeWorker()
    function = HttpFunction(Function("1", "upload", HttpTrigger(name="req", route="upload")), cast("Any", worker))
    router = HttpRouter(function_routes("upload", "upload", function))
    sent: list[Mapping[str, Any]] = []
    left = list(messages)

    async def receive() -> Mapping[str, Any]:
        return left.pop(0)

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/upload", "raw_path": b"/upload", "headers": []}
    scope |= {"query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}
    asyncio.run(router(scope, cast("Any", receive), cast("Any", send)))
    return sent, worker.received


def chunks(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": i < last} for i, body in enumerate(bodies)]


def test_body_of_100_mib_is_accepted_but_no_more() -> None:
    mebibytes = bytes(10 * 1024 * 1024)
    sent, received = post(chunks(*[mebibytes] * 10))
    assert sent[0]["status"] == 204
    assert received[0].http is not None
    assert received[0].http.body == TypedData(bytes=mebibytes * 10)
    sent, received = post(chunks(*[mebibytes] * 10, b"x"))
    assert (sent[0]["status"], received) == (413, [])


def test_disconnect_during_body_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "local.host"):
        sent, received = post(
            [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        )
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the client disconnected while it sent the body of POST /upload"]
    assert (sent, received) == ([], [])


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Outcome(succeeded=False), 500, b""),
        (Outcome(succeeded=True, value=TypedData(string="text")), 200, b"text"),
        (
            Outcome(succeeded=True, value=TypedData(http=RpcHttp(status_code="418", body=TypedData(bytes=b"t")))),
            418,
            b"t",
        ),
    ],
)
def test_outcome_becomes_response(outcome: Outcome, status: int, body: bytes) -> None:
    response = to_response(outcome)
    assert (response.status_code, response.body) == (status, body)


def test_server_sets_content_length_not_the_function() -> None:
    headers = {"Content-Length": "99", "Transfer-Encoding": "chunked", "X-Kept": "yes"}
    http = RpcHttp(status_code="200", headers=headers, body=TypedData(bytes=b"four"))
    response = to_response(Outcome(succeeded=True, value=TypedData(http=http)))
    assert response.headers.items() == [("content-length", "4"), ("x-kept", "yes")]


def test_repeated_names_are_joined_under_first_spelling() -> None:
    assert joined([("A", "1"), ("b", "2"), ("a", "3")]) == {"A": "1,3", "b": "2"}
