"""Times to wait that an image service or a gateway states, in a header or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_IN_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_UNIT: Final = r"(?:milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)"
_PART: Final = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)\s?({_UNIT})", re.IGNORECASE)
_WORDS: Final = re.compile(
    r"\b(?:retry|try\sagain|replenished|wait|reset|resets|available)\s(?:(?:after|in|for)\s)?(?:about\s)?(?:"
    # The TimeSpan of .NET, as API Management writes it: 5.03:23:11 has five days.
    r"(?:(?P<days>[0-9]{1,5})\.)?(?P<hours>[0-9]{1,2}):(?P<minutes>[0-9]{2}):(?P<seconds>[0-9]{2})(?![0-9:])"
    rf"|(?P<parts>[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?\s?{_UNIT}"
    rf"(?:(?:,\s|\s|\sand\s)?[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?\s?{_UNIT}){{0,3}})\b)",
    re.IGNORECASE | re.ASCII,
)


def wait_in_headers(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds, from a header in milliseconds or from ``Retry-After``; None without a valid header."""
    for name in _IN_MILLISECONDS:
        if _NUMBER.fullmatch(milliseconds := headers.get(name, "").strip()):
            return float(milliseconds) / 1000
    return _parse_retry_after(headers.get("retry-after", ""), now)


def wait_in_words(text: str) -> float | None:
    """Seconds, from a sentence such as "Try again in 15 seconds."; None without one."""
    found = _WORDS.search(text)
    if found is None:
        return None
    if found["parts"] is None:
        days, hours, minutes, seconds = (int(part or 0) for part in found.group("days", "hours", "minutes", "seconds"))
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    return sum(float(number) * _seconds_of(unit) for number, unit in _PART.findall(found["parts"]))


def _seconds_of(unit: str) -> float:
    unit = unit.lower()
    return 0.001 if unit == "ms" or unit.startswith("milli") else _UNITS[unit[0]]


def _parse_retry_after(header: str, now: datetime) -> float | None:
    """Seconds from a number or from an HTTP date."""
    header = header.strip()
    if _NUMBER.fullmatch(header):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
