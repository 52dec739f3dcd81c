"""A client that repeats its requests at other hosts until it has an answer."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import requests

from tests.chaos.scenario import Ending, Start

_PAUSE: Final = 0.5
_TIMEOUT: Final = 30.0
_IMPATIENT_TIMEOUT: Final = 0.03
"""Seconds. The host receives the request, and the client does not wait for the response."""

TERMINAL: Final = frozenset({"succeeded", "failed", "canceled"})


@dataclass(frozen=True, slots=True)
class Accepted:
    """A generation that a host answered with 202."""

    start: Start
    ids: frozenset[str]
    """Of all answers to this key. More than one is a defect."""
    path: str
    """Of the monitor, with the token, without the base URL."""
    deleted: bool

    @property
    def id(self) -> str:
        return min(self.ids)


class UnexpectedAnswerError(Exception):
    """A host refused a valid request, so a repetition makes no sense."""


class Client:
    """Thread-safe.

    Parameters
    ----------
    seconds
        Duration of the faults, in which the client deletes generations that have ended.
    until
        Of `time.monotonic`: no request begins later.
    """

    def __init__(self, base_urls: Sequence[str], *, seconds: float = 0, until: float) -> None:
        self._base_urls = base_urls
        self._seconds = seconds
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        """Of the answers. 0: no answer."""
        self._until = until

    def run(self, start: Start, began: float) -> Accepted | None:
        """Start a generation at its time and do what follows. None: no host accepted it."""
        time.sleep(max(0.0, began + start.at - time.monotonic()))
        if start.impatient:
            with contextlib.suppress(requests.RequestException):
                self._post(start, self._base_urls[start.host], _IMPATIENT_TIMEOUT)
        answer = self._accepted(start, start.host)
        if answer is None:
            return None
        answers = [answer]
        if start.repeated and start.ending is not Ending.DELETE:
            answers += filter(None, [self._accepted(start, start.host + 1)])
        ids = frozenset(one.json()["id"] for one in answers)
        # Any host answers for any generation, and the host that is named in the URL may be down.
        path = answer.headers["Operation-Location"].partition("/api")[2]
        if start.ending is Ending.CANCEL:
            self._ask("POST", path.replace("?", "/cancel?"), {200})
        deleted = start.ending is Ending.DELETE and self._delete_when_terminal(path, began + self._seconds)
        return Accepted(start, ids, path, deleted)

    def delete(self, path: str) -> bool:
        """Delete a generation. Return whether a host answered 204."""
        return self._ask("DELETE", path, {204}) is not None

    def monitor(self, path: str) -> dict[str, Any] | None:
        """The monitor; None when it is 404, or when no host answers in time."""
        answer = self._ask("GET", path, {200, 404})
        return answer.json() if answer is not None and answer.status_code == 200 else None

    def _delete_when_terminal(self, path: str, until: float) -> bool:
        """Return False when the generation does not end in time."""
        while time.monotonic() < until:
            monitor = self.monitor(path)
            if monitor is not None and monitor["status"] in TERMINAL:
                return self.delete(path)
            time.sleep(4 * _PAUSE)
        return False

    def _accepted(self, start: Start, first: int) -> requests.Response | None:
        host = first % len(self._base_urls)
        while time.monotonic() < self._until:
            with contextlib.suppress(requests.RequestException):
                answer = self._post(start, self._base_urls[host], _TIMEOUT)
                if answer.status_code == 202:
                    return answer
                if answer.status_code not in {429, 500, 502, 503, 504}:
                    raise UnexpectedAnswerError(f"{start.key}: status {answer.status_code}: {answer.text[:200]}")
            time.sleep(_PAUSE)
            host = random.randrange(len(self._base_urls))
        return None

    def _post(self, start: Start, base_url: str, timeout: float) -> requests.Response:
        body = {"prompt": start.prompt, "model": start.model, "n": start.n, "size": start.size}
        headers = {"Idempotency-Key": start.key}
        return self._send("POST", f"{base_url}/generations", timeout=timeout, json=body, headers=headers)

    def _ask(self, method: str, path: str, expected: set[int]) -> requests.Response | None:
        while time.monotonic() < self._until:
            with contextlib.suppress(requests.RequestException):
                answer = self._send(method, random.choice(self._base_urls) + path, timeout=_TIMEOUT)
                if answer.status_code in expected:
                    return answer
            time.sleep(_PAUSE)
        return None

    def _send(self, method: str, url: str, *, timeout: float, **options: Any) -> requests.Response:
        status = 0
        try:
            answer = requests.request(method, url, timeout=(_TIMEOUT, timeout), **options)
            status = answer.status_code
            return answer
        finally:
            with self._lock:
                self.statuses[status] += 1
