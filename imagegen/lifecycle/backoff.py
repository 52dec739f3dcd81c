"""Waiting times: how long until the next poll, retry or copy. Pure functions of numbers and times."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds. A Retry-After of the image service is clamped to this range."""

_LONGEST_POLL_WAIT: Final = 10.0
_LONGEST_PAUSE: Final = 3_600.0
_FIRST_PAUSE: Final = 5.0
_MOST_DOUBLINGS: Final = 10
"""Keeps the powers of two small after days of failures."""
_COPY_DOUBLINGS: Final = 5


def clamp(retry_after: float | None, *, default: float) -> float:
    """Seconds to wait: `retry_after` within the allowed range, or `default` when the service sent none."""
    return default if retry_after is None else min(LONGEST_WAIT, max(SHORTEST_WAIT, retry_after))


def poll_wait(retry_after: float | None, age: float) -> timedelta:
    """Time to the next poll. Without Retry-After it grows with the age of the operation, to ten seconds.

    Parameters
    ----------
    age
        Seconds since the submit. Negative when the clocks of two instances differ.
    """
    return timedelta(seconds=clamp(retry_after, default=min(_LONGEST_POLL_WAIT, max(SHORTEST_WAIT, age / 10))))


def fault_wait(retry_after: float | None, faults: int, *, jitter: float) -> timedelta:
    """Time to the next try after `faults` failures in a row: it doubles each time, to a minute.

    Parameters
    ----------
    jitter
        0 to 1. Adds up to a quarter, so that many generations do not retry at the same moment.
    """
    doubled = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(faults - 1, _MOST_DOUBLINGS))
    return timedelta(seconds=clamp(retry_after, default=doubled) * (1 + jitter / 4))


def pause_until(retry_after: float | None, faults: int, now: datetime) -> datetime:
    """End of a throttle: the service's Retry-After, to one hour; without it, the pause doubles with each throttle."""
    doubled = min(LONGEST_WAIT, _FIRST_PAUSE * 2.0 ** min(faults, _MOST_DOUBLINGS))
    wanted = doubled if retry_after is None else min(_LONGEST_PAUSE, retry_after)
    return now + timedelta(seconds=max(SHORTEST_WAIT, wanted))


def copy_wait(attempts: int) -> timedelta:
    """Time to the next copy after `attempts` copies. A claim that ended without a result counts as an attempt."""
    return timedelta(seconds=2.0 ** min(attempts - 1, _COPY_DOUBLINGS))
