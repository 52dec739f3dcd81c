"""Counters, for tests to ask what a client really did."""

from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from local.openai.auth import Authorization

_MOST_OPERATIONS = 10_000
_MOST_POLLS = 1_000


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
class Stats:
    """What happened since the start or the last reset."""

    submits: int = 0
    operations_created: int = 0
    polls: int = 0
    image_gets: int = 0
    deletes: int = 0
    leaked_credentials: int = 0
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
        del details.poll_urls[:-_MOST_POLLS], details.poll_times[:-_MOST_POLLS]

    def shown(self) -> dict[str, Any]:
        """As ``GET /_emulator/stats`` answers."""
        counters = asdict(self)
        details = counters.pop("by_operation")
        counters["operations"] = counters.pop("operations_created")
        return counters | {"by_operation": details}
