"""Rate limits: a fixed window for each deployment, and a record of clients that ignore Retry-After.

Azure evaluates a quota in windows of 1 or 10 seconds too: 10 calls a minute may mean 2 in 10 seconds.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

GRACE = 0.5
"""Seconds after a 429 in which requests from other workers are no offence: they may have been on their way."""

_MAX_WAITS = 10_000


@dataclass(frozen=True)
class Allowance:
    """The state of a deployment's window after one more request."""

    limit: int
    remaining: int
    wait: float | None
    """Seconds until the next window if the request exceeds the quota."""

    def headers(self) -> dict[str, str]:
        return {"x-ratelimit-limit-requests": str(self.limit), "x-ratelimit-remaining-requests": str(self.remaining)}


@dataclass
class _Window:
    ends: float
    limit: int
    used: int = 0


class Quotas:
    """The windows. A window begins with the first request after the end of the previous one.

    Parameters
    ----------
    part
        Seconds of a shorter window, in which a proportional part of the quota is available. None: only the whole one.
    """

    def __init__(self, limit: int | None, seconds: float, part: float | None = None) -> None:
        self._limit = limit
        self._seconds = seconds
        self._part = part if part and part < seconds else None
        self._windows: dict[tuple[str, float], _Window] = {}

    def take(self, deployment: str, now: float) -> Allowance | None:
        """Count one request at ``now`` (unix seconds). Returns None if there is no limit."""
        if self._limit is None:
            return None
        whole = self._window(deployment, self._seconds, self._limit, now)
        windows = [whole]
        if self._part:
            share = math.ceil(self._limit * self._part / self._seconds)
            windows.append(self._window(deployment, self._part, share, now))
        full = [window.ends - now for window in windows if window.used >= window.limit]
        if full:
            return Allowance(self._limit, self._limit - whole.used, max(full))
        for window in windows:
            window.used += 1
        return Allowance(self._limit, self._limit - whole.used, None)

    def _window(self, deployment: str, seconds: float, limit: int, now: float) -> _Window:
        window = self._windows.get((deployment, seconds))
        if window is None or now >= window.ends:
            window = self._windows[deployment, seconds] = _Window(now + seconds, limit)
        return window


@dataclass(frozen=True)
class _Wait:
    since: float
    until: float


class RetryAfterWaits:
    """The waits that 429s ask for. A key is a deployment, or one client request at a deployment."""

    def __init__(self) -> None:
        self._waits: dict[Hashable, _Wait] = {}

    def add(self, key: Hashable, headers: dict[str, str], now: float) -> None:
        """Record the headers of a 429. If they name two different waits, the shorter one counts."""
        seconds = [
            float(headers[name]) / unit
            for name, unit in (("retry-after", 1), ("retry-after-ms", 1000))
            if headers.get(name, "").isdecimal()
        ]
        if not seconds:
            return
        if len(self._waits) > _MAX_WAITS:
            self._waits = {old: wait for old, wait in self._waits.items() if now < wait.until}
        wait = self._waits.get(key)
        if wait is None or now >= wait.until:
            wait = _Wait(now, now)
        self._waits[key] = _Wait(wait.since, max(wait.until, now + min(seconds)))

    def ignored_at(self, key: Hashable, now: float, *, grace: float = 0.0) -> bool:
        """Whether a request at ``now`` comes before the end of the wait, but not within ``grace`` of its begin."""
        wait = self._waits.get(key)
        return wait is not None and wait.since + grace <= now < wait.until


def retry_after_headers(seconds: float) -> dict[str, str]:
    """Return a wait in both headers, rounded up."""
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}
