"""Functions that a setting disables."""

from __future__ import annotations

import base64
import time

import pytest
import requests

from local.host.settings import HostSettings
from tests.host.conftest import Queues, RunHost


@pytest.mark.parametrize(
    ("environ", "disabled"),
    [
        ({"AzureWebJobs.f.Disabled": "1"}, True),
        ({"AzureWebJobs.f.Disabled": "True"}, True),
        ({"AzureWebJobs_f_Disabled": "true"}, True),
        ({"AzureWebJobs.f.Disabled": "0"}, False),
        ({"AzureWebJobs.f.Disabled": "false"}, False),
        ({"AzureWebJobs.f.Disabled": "yes"}, False),  # neither 1 nor a boolean of .NET
        ({"AzureWebJobs.g.Disabled": "1"}, False),
        ({}, False),
    ],
)
def test_setting_disables_a_function(environ: dict[str, str], disabled: bool) -> None:
    assert HostSettings("id", environ).is_disabled("f") is disabled


def test_disabled_http_function_is_404(run_host: RunHost) -> None:
    with run_host("http", **{"AzureWebJobs.a_literal.Disabled": "1"}) as (child, base):
        # It keeps its route: the request does not reach the function `echo/{id}`.
        answer = requests.get(f"{base}/echo/literal", timeout=10)
        assert (answer.status_code, answer.content) == (404, b"")
        assert requests.get(f"{base}/echo/other", timeout=10).status_code == 200
        child.wait_for(r"a_literal: \[all\] .*/echo/literal \(disabled\)$")


def test_disabled_queue_function_receives_nothing(run_host: RunHost, queues: Queues) -> None:
    queues.incoming.create_queue()
    queues.incoming.send_message(base64.b64encode(b"hello").decode())
    with run_host("queues", **queues.env, AzureWebJobs_answer_Disabled="1") as (child, _):
        time.sleep(1)  # an enabled one polls at once
        assert child.terminate() == 0
    (message,) = queues.incoming.peek_messages()
    assert message.dequeue_count == 0
