"""HTTP steps of workflow engines that run only in Azure, emulated from their documented behaviour.

Where the documentation is silent, an emulated step accepts less than the real one may: an app that works here relies
only on documented behaviour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests

_TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
_EXPONENTIAL: Final = (7.5, 15.0, 30.0, 60.0)
"""Seconds before each of the four default retries of Logic Apps."""


class StepError(Exception):
    """The step fails for a reason that the workflow's author cannot fix."""


@dataclass
class Output:
    """The result that the step passes to the next one."""

    status: int
    body: Any
    posts: int
    polls: int
    retries: int
    """Repetitions of failed posts and polls."""
    waits: list[float]
    """Seconds that the engine would have waited between polls."""

    @property
    def succeeded(self) -> bool:
        """Whether the workflow continues. Only the status counts, not the body."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Step:
    """An HTTP step: a POST, then polls of ``Location`` while the answer is 202."""

    name: str
    default_interval: float
    """Seconds between polls without Retry-After."""
    retries: tuple[float, ...]
    """Seconds before each retry of a transient failure."""
    replayed: Callable[[str], bool]
    """Whether a poll carries this header of the POST."""
    parse_retry_after: Callable[[str], int]
    needs_retry_after: bool = False
    """Whether the step rejects a 202 without Retry-After, in addition to one without Location."""
    largest_body: int | None = None
    """Characters."""
    objects_only: bool = False
    """Whether the step accepts only a JSON object."""
    timeout: float = 120
    """Seconds for one request."""

    def run(self, url: str, body: object, headers: Mapping[str, str], sleep: Callable[[float], None]) -> Output:
        sending = _Sending(self, sleep)
        answer = sending.send("POST", url, headers, json.dumps(body))
        waits: list[float] = []
        while answer.status_code == 202:
            location, stated = answer.headers.get("Location"), answer.headers.get("Retry-After")
            if not location or not urlsplit(location).netloc or (self.needs_retry_after and not stated):
                raise StepError(f"a 202 without an absolute Location, or without Retry-After: {dict(answer.headers)}")
            waits.append(self.parse_retry_after(stated) if stated else self.default_interval)
            sleep(waits[-1])
            replayed = {name: value for name, value in headers.items() if self.replayed(name.lower())}
            answer = sending.send("GET", location, replayed)
        return Output(
            status=answer.status_code,
            body=self._body(answer),
            posts=sending.counts.get("POST", 0),
            polls=sending.counts.get("GET", 0),
            retries=sending.retries,
            waits=waits,
        )

    def _body(self, answer: requests.Response) -> Any:
        if self.largest_body is not None and len(answer.text) > self.largest_body:
            raise StepError(f"the answer has {len(answer.text)} characters")
        body: Any = answer.json()
        if self.objects_only and not isinstance(body, dict):
            raise StepError("the answer is not a JSON object")
        return cast("Any", body)


@dataclass
class _Sending:
    step: Step
    sleep: Callable[[float], None]
    counts: dict[str, int] = field(default_factory=dict[str, int])
    retries: int = 0

    def send(self, method: str, url: str, headers: Mapping[str, str], body: str | None = None) -> requests.Response:
        for pause in (*self.step.retries, None):
            self.counts[method] = self.counts.get(method, 0) + 1
            sent = {**headers, **({"Content-Type": "application/json"} if body is not None else {})}
            try:
                answer = requests.request(
                    method, url, data=body, headers=sent, allow_redirects=False, timeout=self.step.timeout
                )
                if answer.status_code not in _TRANSIENT or pause is None:
                    return answer
            except requests.ConnectionError:
                if pause is None:
                    raise
            self.retries += 1
            self.sleep(pause)
        raise AssertionError("the last try returned or raised")


def _whole_number(text: str) -> int:
    """.NET's int.Parse: no fraction and no date."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", text):
        raise StepError(f"FormatException: Retry-After is {text!r}")
    return int(text)


LOGIC_APPS = Step(
    name="Logic Apps HTTP action",
    default_interval=20,
    retries=_EXPONENTIAL,
    # The action repeats its `authentication` in a poll, but not a plain header such as x-functions-key.
    replayed=lambda name: name == "authorization" or name.startswith("x-ms-"),
    parse_retry_after=_whole_number,
    needs_retry_after=True,
    largest_body=131_072,  # limit of an expression
)
POWER_AUTOMATE = Step(
    name="Power Automate HTTP action",
    default_interval=20,
    retries=_EXPONENTIAL,
    replayed=lambda name: name.startswith("x-ms-"),
    parse_retry_after=_whole_number,
    needs_retry_after=True,
    largest_body=131_072,
)
DURABLE = Step(
    name="Durable Functions call_http",
    default_interval=30,
    retries=(),  # unless the orchestrator configures them
    replayed=lambda name: name != "x-functions-key",
    parse_retry_after=_whole_number,
)
DATA_FACTORY = Step(
    name="Data Factory Web activity",
    default_interval=60,
    retries=(),  # default of the activity's policy
    replayed=lambda _: False,
    parse_retry_after=_whole_number,
    objects_only=True,
    largest_body=4 * 2**20,
    timeout=60,
)
STEPS = (LOGIC_APPS, POWER_AUTOMATE, DURABLE, DATA_FACTORY)
