"""LROPoller of azure-core, which every Azure SDK uses to poll. Only its waits are shortened."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.transport import RequestsTransport
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import (
    LocationPolling,
    LongRunningOperation,
    LROBasePolling,
    OperationResourcePolling,
)
from azure.core.rest import HttpRequest, HttpResponse

from local.stack import Stack
from tests.clients.conftest import fast_sleep, in_parallel

type Body = dict[str, Any]
type Operation = LongRunningOperation[HttpRequest, HttpResponse]


class _Transport(RequestsTransport):
    """Records each request and each wait."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.sent: list[str] = []
        self.waits: list[float] = []

    def send(self, request: Any, **options: Any) -> Any:
        self.sent.append(f"{request.method} {request.url.partition('?')[0]}")
        return super().send(request, **options)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    def sleep(self, duration: float) -> None:
        self.waits.append(duration)
        fast_sleep(duration)


def _begin(stack: Stack, prompt: str, follow: Operation, transport: _Transport) -> LROPoller[Body]:
    """Start as the generated code of an Azure SDK does."""
    client: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(stack.base_url, transport=transport)
    request = HttpRequest("POST", f"{stack.base_url}/generations", json={"prompt": prompt})
    # Generated code gets the initial response for the poller with _return_pipeline_response.
    initial = cast(
        "PipelineResponse[HttpRequest, HttpResponse]", client.send_request(request, _return_pipeline_response=True)
    )
    assert initial.http_response.status_code == 202
    initial.http_response.read()

    def deserialize(response: PipelineResponse[HttpRequest, HttpResponse]) -> Body:
        return cast("Body", response.http_response.json())

    return LROPoller(client, initial, deserialize, LROBasePolling(timeout=30, lro_algorithms=[follow]))


@dataclass(frozen=True)
class Wait:
    """The outcome of one poller."""

    status: str
    monitor: Body | None
    error: HttpResponseError | None
    sent: list[str]
    waits: list[float]


_HEADERS = ("Operation-Location", "Location")
_WORKING = "a lighthouse [status:running:1]"
_ENDS = {
    "a thing [contentFilter]": ("failed", "contentFilter"),
    "a thing [failed:internalFailure]": ("failed", "internalFailure"),
    "a thing [submit-400]": ("failed", "invalidPayload"),  # ended before the first answer
    "a thing [submit-401]": ("failed", "upstreamUnauthorized"),
    "a thing [status:canceled]": ("canceled", "canceled"),
}

type Waits = Mapping[tuple[str, str], Future[Wait]]


@pytest.fixture(scope="module")
def waits(stack: Stack) -> Generator[Waits]:
    """By the header that the poller follows, and by prompt."""
    jobs = {
        (header, prompt): partial(_wait, stack, header, prompt) for header in _HEADERS for prompt in (_WORKING, *_ENDS)
    }
    with in_parallel(jobs) as running:
        yield running


def _wait(stack: Stack, header: str, prompt: str) -> Wait:
    transport = _Transport()
    follow: Operation = OperationResourcePolling() if header == "Operation-Location" else LocationPolling()
    poller = _begin(stack, prompt, follow, transport)
    monitor = error = None
    try:
        monitor = poller.result(60)
    except HttpResponseError as raised:
        error = raised
    return Wait(poller.status(), monitor, error, transport.sent, transport.waits)


_each = pytest.mark.parametrize("header", _HEADERS)


@_each
def test_poller_returns_the_final_monitor(stack: Stack, waits: Waits, header: str) -> None:
    wait = waits[header, _WORKING].result()

    assert wait.error is None
    assert wait.monitor is not None
    assert (wait.status.lower(), wait.monitor["status"]) == ("succeeded", "succeeded")
    assert wait.monitor["result"]["data"][0]["contentType"] == "image/png"
    polled = f"GET {stack.base_url}/generations/{wait.monitor['id']}"
    if header == "Location":
        assert set(wait.sent[1:]) == {f"{polled}/result"}
    else:
        # The last request reads the result of the POST at Location.
        assert (set(wait.sent[1:-1]), wait.sent[-1]) == ({polled}, f"{polled}/result")
    assert set(wait.waits) <= {1, 2, 5}, "waits must follow Retry-After, not the default of 30 s"


@_each
@pytest.mark.parametrize(("prompt", "expected"), _ENDS.items())
def test_poller_raises_with_the_error_code(waits: Waits, header: str, prompt: str, expected: tuple[str, str]) -> None:
    wait = waits[header, prompt].result()
    status, code = expected

    assert wait.error is not None
    body = cast("HttpResponse", wait.error.response).json()
    assert body["status"] == status
    if header == "Operation-Location":
        assert wait.status == status
    if status == "failed" or header == "Location":  # the monitor of a canceled generation has no error
        assert wait.error.error is not None
        assert wait.error.error.code == code
