"""Requests a minute: a fixed window for each deployment, and who came back before it was over."""

import math
from dataclasses import dataclass

NEWS = 0.5
"""Seconds after a 429 in which others may come who cannot have heard of it: they were on their way."""


@dataclass(frozen=True)
class Room:
    """What is left of a deployment's window after one more request."""

    limit: int
    left: int
    wait: float | None
    """Seconds until there is room again; None: there is."""

    def headers(self) -> dict[str, str]:
        """As every answer says it."""
        return {"x-ratelimit-limit-requests": str(self.limit), "x-ratelimit-remaining-requests": str(self.left)}


@dataclass
class _Window:
    ends: float
    used: int = 0


class Quotas:
    """The windows. One begins with the first request after the end of the last."""

    def __init__(self, limit: int | None, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}

    def take(self, deployment: str, now: float) -> Room | None:
        """Count one request; None where there is no limit. ``now`` in unix seconds."""
        if self._limit is None:
            return None
        window = self._windows.get(deployment)
        if window is None or now >= window.ends:
            window = self._windows[deployment] = _Window(now + self._seconds)
        if window.used >= self._limit:
            return Room(self._limit, 0, window.ends - now)
        window.used += 1
        return Room(self._limit, self._limit - window.used, None)


@dataclass(frozen=True)
class _Throttle:
    since: float
    until: float


class ClientThrottles:
    """Until when each deployment's callers were told to wait."""

    def __init__(self) -> None:
        self._throttles: dict[str, _Throttle] = {}

    def told(self, deployment: str, headers: dict[str, str], now: float) -> None:
        """A 429 went out with these headers; of two different waits the shorter one counts."""
        waits = [
            float(headers[name]) / unit
            for name, unit in (("retry-after", 1), ("retry-after-ms", 1000))
            if headers.get(name, "").isdecimal()
        ]
        if not waits:
            return
        throttle = self._throttles.get(deployment)
        if throttle is None or now >= throttle.until:
            throttle = _Throttle(now, now)
        self._throttles[deployment] = _Throttle(throttle.since, max(throttle.until, now + min(waits)))

    def on(self, deployment: str, now: float) -> bool:
        """Whether a caller who comes now has not waited, though the 429 had time to reach all of the caller."""
        throttle = self._throttles.get(deployment)
        return throttle is not None and throttle.since + NEWS <= now < throttle.until


def pause(seconds: float) -> dict[str, str]:
    """A wait as both headers say it, rounded up."""
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}
