from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from azure.storage.queue import QueueClient

    from tests.host.conftest import QueuePair, RunHost


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def next_message(pair: QueuePair, client: QueueClient, *, within: float = 20) -> str:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        content = pair.take(client)
        if content is not None:
            return content
        time.sleep(0.05)
    return pytest.fail(f"no message in {client.queue_name} within {within} s")


def test_a_message_is_processed_once_and_its_output_is_sent(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env) as (child, _):
        queue_pair.incoming.send_message(encoded("hello"))
        # all metadata were there, at the first delivery
        assert next_message(queue_pair, queue_pair.outgoing) == encoded("hello True 1")
        child.wait_for(rf"answer \(queue {queue_pair.env['IN']}\) ok \d+ ms")
        assert child.terminate() == 0
    assert queue_pair.incoming.get_queue_properties().approximate_message_count == 0


def test_a_message_that_keeps_failing_is_poison(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env) as (child, _):
        queue_pair.incoming.send_message(encoded("poison"))
        assert next_message(queue_pair, queue_pair.poison) == encoded("poison")
        child.wait_for("answer got poison, time 2")  # maxDequeueCount
        child.wait_for("ValueError: cannot digest this")
        assert "answer got poison, time 3" not in child.output


def test_a_message_that_is_not_base64_is_poison_and_stops_no_other(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env):
        queue_pair.incoming.send_message("plain text, not base64")
        queue_pair.incoming.send_message(encoded("hello"))
        assert next_message(queue_pair, queue_pair.poison) == "plain text, not base64"
        assert next_message(queue_pair, queue_pair.outgoing) == encoded("hello True 1")


def test_a_message_of_a_killed_host_is_processed_after_a_restart(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env) as (child, _):
        queue_pair.incoming.send_message(encoded("hang once"))
        child.wait_for("answer got hang once, time 1")
        child.kill()
    with run_host("queues", **queue_pair.env):
        assert next_message(queue_pair, queue_pair.outgoing, within=40) == encoded("hang once True 2")


def test_http_functions_send_to_queues_after_they_succeeded(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env) as (_, base):
        assert requests.post(f"{base}/send?fail=1", timeout=10).status_code == 500
        assert requests.post(f"{base}/send", timeout=10).status_code == 202
        sent = [next_message(queue_pair, queue_pair.outgoing) for _ in range(3)]
        assert sent == [encoded(text) for text in ("first", "second", "third")]
        assert queue_pair.take(queue_pair.outgoing) is None  # nothing of the failed call


def test_messages_are_plain_when_host_json_says_so(run_host: RunHost, queue_pair: QueuePair) -> None:
    setting = {"AzureFunctionsJobHost__extensions__queues__messageEncoding": "none"}
    with run_host("queues", **queue_pair.env, **setting):
        queue_pair.incoming.send_message("<plain & simple>")
        assert next_message(queue_pair, queue_pair.outgoing) == "<plain & simple> True 1"


def test_a_queue_function_can_be_started_by_hand(run_host: RunHost, queue_pair: QueuePair) -> None:
    with run_host("queues", **queue_pair.env) as (_, base):
        url = f"{base.removesuffix('/api')}/admin/functions/answer"
        assert requests.post(url, json={"input": "by hand"}, timeout=10).status_code == 202
        assert next_message(queue_pair, queue_pair.outgoing) == encoded("by hand True 1")
