"""The messages, read and written by the runtime's own converters."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
import pytest
from azure.storage.queue import QueueMessage

from local.host import messages
from local.host.queues import metadata_of

meta: Any = importlib.import_module("azure_functions_runtime.bindings.meta")
meta.load_binding_registry()


def decode(binding: str, value: messages.TypedData, metadata: dict[str, messages.TypedData] | None = None) -> Any:
    parameter = messages.ParameterBinding(name="x", data=value)
    return meta.from_incoming_proto(binding, parameter, pytype=None, trigger_metadata=metadata, function_name="f")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (messages.TypedData(), None),
        (messages.TypedData(string=""), "string"),  # empty is not absent
        (messages.TypedData(bytes=b""), "bytes"),
        (messages.TypedData(json="{}"), "json"),
        (messages.TypedData(http=messages.RpcHttp()), "http"),
    ],
)
def test_typed_data_names_its_kind(value: messages.TypedData, kind: str | None) -> None:
    assert value.WhichOneof("data") == kind


def test_http_request_reaches_function() -> None:
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


def test_request_without_body_has_empty_body() -> None:
    request = decode("httpTrigger", messages.TypedData(http=messages.RpcHttp(body=messages.TypedData())))
    assert request.get_body() == b""


def test_http_response_reaches_host() -> None:
    response = func.HttpResponse(b"\x00", status_code=201, headers={"X-A": "b"})
    data: messages.TypedData = meta.to_outgoing_proto("http", response, pytype=None, protos=messages)
    assert data.http is not None
    assert data.http.body == messages.TypedData(bytes=b"\x00")
    assert (data.http.status_code, data.http.headers["X-A"]) == ("201", "b")


def test_timer_reaches_function() -> None:
    timer = decode("timerTrigger", messages.TypedData(json='{"IsPastDue": true, "ScheduleStatus": null}'))
    assert timer.past_due is True


def test_queue_message_and_metadata_reach_function() -> None:
    moment = datetime(2026, 11, 23, 2, 4, tzinfo=UTC)
    times = {"inserted_on": moment, "expires_on": moment, "next_visible_on": moment}
    message = QueueMessage("aGk=", id="id", pop_receipt="receipt", dequeue_count=3, **times)
    received = decode("queueTrigger", messages.TypedData(bytes=b"hi"), metadata_of(message))
    assert (received.id, received.pop_receipt, received.dequeue_count) == ("id", "receipt", 3)
    assert received.get_body() == b"hi"
    assert [received.insertion_time, received.expiration_time, received.time_next_visible] == [moment] * 3
