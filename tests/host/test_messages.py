"""The messages, read by the runtime's own converters."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
import pytest

from local.host import messages
from local.host.outputs import bodies
from local.host.queue_triggers import trigger_metadata
from local.host.queues import Message

meta: Any = importlib.import_module("azure_functions_runtime.bindings.meta")
meta.load_binding_registry()


def decode(binding: str, value: messages.TypedData, metadata: dict[str, messages.TypedData] | None = None) -> Any:
    parameter = messages.ParameterBinding(name="x", data=value)
    return meta.from_incoming_proto(binding, parameter, pytype=None, trigger_metadata=metadata, function_name="f")


def encode(binding: str, value: object) -> messages.TypedData:
    return meta.to_outgoing_proto(binding, value, pytype=None, protos=messages)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (messages.TypedData(), None),
        (messages.TypedData(string=""), "string"),  # empty is not absent
        (messages.TypedData(bytes=b""), "bytes"),
        (messages.TypedData(int=0), "int"),
        (messages.TypedData(json="{}"), "json"),
        (messages.TypedData(http=messages.RpcHttp()), "http"),
    ],
)
def test_typed_data_knows_its_kind(value: messages.TypedData, kind: str | None) -> None:
    assert value.WhichOneof("data") == kind


def test_an_http_request_reaches_the_function() -> None:
    request = decode(
        "httpTrigger",
        messages.TypedData(
            http=messages.RpcHttp(
                method="POST",
                url="http://h/api/x?a=1",
                headers={"content-type": "application/json"},
                params={"id": "7"},
                query={"a": "1"},
                body=messages.TypedData(bytes=b'{"b": 2}'),
            )
        ),
    )
    assert (request.method, request.url, request.get_json()) == ("POST", "http://h/api/x?a=1", {"b": 2})
    assert (request.route_params["id"], request.params["a"]) == ("7", "1")
    assert request.headers["Content-Type"] == "application/json"


def test_a_request_without_a_body_has_an_empty_one() -> None:
    request = decode("httpTrigger", messages.TypedData(http=messages.RpcHttp(body=messages.TypedData())))
    assert request.get_body() == b""


def test_a_response_comes_back_with_its_cookies() -> None:
    response = func.HttpResponse(b"\x00", status_code=201, headers={"X-A": "b"})
    response.headers.add("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; SameSite=Strict; Secure")
    http = encode("http", response).http
    assert http is not None
    assert http.body is not None
    assert (http.status_code, http.headers["X-A"], http.body.bytes) == ("201", "b", b"\x00")
    assert http.cookies is not None
    (cookie,) = http.cookies
    assert cookie.expires is not None
    assert (cookie.name, cookie.value, cookie.same_site) == ("a", "1", messages.RpcHttpCookie.SameSite.Strict)
    assert cookie.secure == messages.NullableBool(value=True)


def test_a_timer_reaches_the_function() -> None:
    timer = decode("timerTrigger", messages.TypedData(json='{"IsPastDue": true, "ScheduleStatus": null}'))
    assert timer.past_due is True


def test_a_queue_message_reaches_the_function_with_its_metadata() -> None:
    moment = datetime(2026, 11, 23, 2, 4, tzinfo=UTC)
    message = Message("id", "receipt", "aGk=", 3, moment, moment, moment)
    received = decode("queueTrigger", messages.TypedData(string="hi"), trigger_metadata(message))
    assert (received.id, received.pop_receipt, received.dequeue_count) == ("id", "receipt", 3)
    assert received.get_body() == b"hi"
    assert [received.insertion_time, received.expiration_time, received.time_next_visible] == [moment] * 3


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text", ["text"]),
        (b"\xff", [b"\xff"]),
        (["a", "b"], ["a", "b"]),
        ([], []),
        ([func.QueueMessage(body="x")], ['{"id": null, "body": "x"}']),  # an object is its JSON, as in Azure
    ],
)
def test_a_queue_output_is_its_messages(value: object, sent: list[str | bytes]) -> None:
    assert bodies(encode("queue", value)) == sent
