"""Counters: what clients really did. Tests read them."""

from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from local.emulator.auth import Authorization

_MAX_OPERATIONS = 10_000
_MAX_TIMES = 1_000
_MAX_KEYS = 100_000


@dataclass
class OperationStats:
    """The requests for one operation, including refused ones."""

    submits: int = 0
    polls: int = 0
    deletes: int = 0
    image_gets: int = 0
    operation_id_header: str | None = None
    authorization: Authorization | None = None
    poll_urls: list[str] = field(default_factory=list[str])  # path and query as received; the newest 1,000
    poll_times: list[float] = field(default_factory=list[float])  # unix seconds, one for each of poll_urls


@dataclass
class DeploymentStats:
    """The direct calls of one deployment."""

    requests: int = 0  # valid ones, including throttled ones
    calls: int = 0  # reached the generation
    billed: int = 0  # images
    throttled: int = 0  # 429
    impatient: int = 0  # requests during the wait of any 429, after its first half second
    early_retries: int = 0  # requests during the wait of their own 429
    call_times: list[float] = field(default_factory=list[float])  # unix seconds, the newest 1,000
    throttled_times: list[float] = field(default_factory=list[float])  # the same


@dataclass
class Stats:
    """Counters since the start or the last reset. The names are those of ``GET /_emulator/stats``."""

    submits: int = 0
    operations: int = 0
    polls: int = 0
    image_gets: int = 0
    deletes: int = 0
    leaked_credentials: int = 0
    calls: int = 0  # direct calls that reached the generation
    billed: int = 0  # their images
    missing_quality: int = 0  # gpt-image calls without `quality`
    billed_by_prompt: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])  # calls by SHA-256
    billed_by_client_request_id: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    by_deployment: dict[str, DeploymentStats] = field(default_factory=dict[str, DeploymentStats])
    by_operation: OrderedDict[str, OperationStats] = field(default_factory=OrderedDict[str, OperationStats])

    def created(self, operation: str) -> OperationStats:
        """Count a new operation. Beyond 10,000, the oldest is dropped."""
        self.operations += 1
        self.by_operation[operation] = OperationStats()
        if len(self.by_operation) > _MAX_OPERATIONS:
            self.by_operation.popitem(last=False)
        return self.by_operation[operation]

    def operation(self, operation: str) -> OperationStats:
        """Return the operation's counters, or unused ones if it is unknown."""
        return self.by_operation.get(operation, OperationStats())

    def polled(self, operation: str, url: str, now: float) -> None:
        self.polls += 1
        details = self.operation(operation)
        details.polls += 1
        details.poll_urls.append(url)
        details.poll_times.append(now)
        del details.poll_urls[:-_MAX_TIMES], details.poll_times[:-_MAX_TIMES]

    def deployment(self, name: str) -> DeploymentStats:
        return self.by_deployment.setdefault(name, DeploymentStats())

    def called(self, deployment: str, *, digest: str, client_request_id: str | None, images: int, now: float) -> None:
        """Count a call that reached the generation."""
        details = self.deployment(deployment)
        for counts in (self, details):
            counts.calls += 1
            counts.billed += images
        _append(details.call_times, now)
        _count(self.billed_by_prompt, digest)
        if client_request_id is not None:
            _count(self.billed_by_client_request_id, client_request_id)

    def throttled(self, deployment: str, now: float) -> None:
        """Count a 429."""
        details = self.deployment(deployment)
        details.throttled += 1
        _append(details.throttled_times, now)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _append(times: list[float], now: float) -> None:
    times.append(now)
    del times[:-_MAX_TIMES]


def _count(counts: OrderedDict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
    if len(counts) > _MAX_KEYS:
        counts.popitem(last=False)
