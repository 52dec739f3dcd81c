"""Counters, for tests to ask what a client really did."""

from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from local.emulator.auth import Authorization

_MOST_OPERATIONS = 10_000
_MOST_TIMES = 1_000
_MOST_DIGESTS = 100_000


@dataclass
class OperationStats:
    """What happened to one operation. Requests that were refused count too."""

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
    """What calls that answer with the picture did to one deployment."""

    requests: int = 0  # that were right so far, throttled ones too
    calls: int = 0  # that reached the generation
    billed: int = 0  # pictures
    throttled: int = 0  # 429
    impatient: int = 0  # requests that came before the wait of a 429 was over
    call_times: list[float] = field(default_factory=list[float])  # unix seconds, the newest 1,000
    throttled_times: list[float] = field(default_factory=list[float])  # as above


@dataclass
class Stats:
    """What happened since the start or the last reset."""

    submits: int = 0
    operations_created: int = 0
    polls: int = 0
    image_gets: int = 0
    deletes: int = 0
    leaked_credentials: int = 0
    calls: int = 0  # that answer with the picture and reached the generation
    billed: int = 0  # pictures of theirs
    missing_quality: int = 0  # calls of gpt-image without it
    billed_by_prompt: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])  # calls by SHA-256
    billed_by_client_request_id: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    by_deployment: dict[str, DeploymentStats] = field(default_factory=dict[str, DeploymentStats])
    by_operation: OrderedDict[str, OperationStats] = field(default_factory=OrderedDict[str, OperationStats])

    def created(self, operation: str) -> OperationStats:
        """A new operation; beyond 10,000 the oldest is forgotten."""
        self.operations_created += 1
        self.by_operation[operation] = OperationStats()
        if len(self.by_operation) > _MOST_OPERATIONS:
            self.by_operation.popitem(last=False)
        return self.by_operation[operation]

    def of(self, operation: str) -> OperationStats:
        """The operation's counters; for one that is not known, counters nobody reads."""
        return self.by_operation.get(operation, OperationStats())

    def polled(self, operation: str, url: str, now: float) -> None:
        """A poll came in."""
        self.polls += 1
        details = self.of(operation)
        details.polls += 1
        details.poll_urls.append(url)
        details.poll_times.append(now)
        del details.poll_urls[:-_MOST_TIMES], details.poll_times[:-_MOST_TIMES]

    def deployment(self, name: str) -> DeploymentStats:
        """The deployment's counters."""
        return self.by_deployment.setdefault(name, DeploymentStats())

    def billed_call(
        self, deployment: str, *, digest: str, client_request_id: str | None, pictures: int, now: float
    ) -> None:
        """A call reached the generation."""
        details = self.deployment(deployment)
        for counts in (self, details):
            counts.calls += 1
            counts.billed += pictures
        _keep(details.call_times, now)
        _count(self.billed_by_prompt, digest)
        if client_request_id is not None:
            _count(self.billed_by_client_request_id, client_request_id)

    def throttled_call(self, deployment: str, now: float) -> None:
        """A call was answered 429."""
        details = self.deployment(deployment)
        details.throttled += 1
        _keep(details.throttled_times, now)

    def shown(self) -> dict[str, Any]:
        """As ``GET /_emulator/stats`` answers."""
        counters = asdict(self)
        details = counters.pop("by_operation")
        counters["operations"] = counters.pop("operations_created")
        return counters | {"by_operation": details}


def _keep(times: list[float], now: float) -> None:
    times.append(now)
    del times[:-_MOST_TIMES]


def _count(counts: OrderedDict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
    if len(counts) > _MOST_DIGESTS:
        counts.popitem(last=False)
