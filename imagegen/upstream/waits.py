"""Times to wait that an image service or a gateway states, in a header or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_IN_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_MOST_FROM_WORDS: Final = 60.0
"""Seconds. A text may quote a prompt, which must not pause a deployment for an hour."""
_TIME: Final = r"[0-9][0-9.:]{0,20}(?:\sseconds?)?"
POLICY_SENTENCE: Final = re.compile(
    r"(?:Out of (?:call volume|bandwidth) quota|Rate limit (?:is|was) exceeded)\b"
    rf"(?:\.\s{{1,2}}(?:Quota will be replenished|Try again) in\s{_TIME})?|Quota will be replenished in\s{_TIME}",
    re.IGNORECASE,
)
"""An error of API Management's quota and rate limit policies. Nothing in it comes from a request."""
_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
# A unit of one letter has no blank before it, as in 1m12.5s: "5 h ago" is no time to wait.
_UNIT: Final = r"(?:\s?(?:milliseconds?|ms|days?|hours?|hrs?|minutes?|mins?|seconds?|secs?|s)(?![a-z])|[dhm](?![a-z]))"
_AMOUNT: Final = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_PART: Final = re.compile(rf"({_AMOUNT})({_UNIT})", re.IGNORECASE)
_WORDS: Final = re.compile(
    r"\b(?:retry(?:\s(?:your|the)\srequest)?|try\sagain(?:\slater)?|wait|(?:available\sagain|resets?)(?=\s(?:after|in))"
    r"|replenished)(?:[\s-](?:(?P<after>after)|in|for):?)?\s(?:about\s|at\sleast\s)?(?:"
    # The TimeSpan of .NET, as API Management writes it: 5.03:23:11 has five days.
    r"(?:(?P<days>[0-9]{1,5})\.)?(?P<hours>[0-9]{1,2}):(?P<minutes>[0-9]{2}):(?P<seconds>[0-9]{2})(?![0-9:])"
    rf"|(?P<parts>{_AMOUNT}{_UNIT}(?:(?:,\s|\s|\sand\s)?{_AMOUNT}{_UNIT}){{0,3}})"
    # "Retry after: 30", at the end of a sentence.
    rf"|(?(after)(?P<plain>{_AMOUNT})(?=[.,;)]?(?:\s*$|(?<=\D)\s))|(?!)))",
    re.IGNORECASE | re.ASCII,
)


def wait_in_headers(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds, from a header in milliseconds or from ``Retry-After``; None without a valid header."""
    for name in _IN_MILLISECONDS:
        if _NUMBER.fullmatch(milliseconds := headers.get(name, "").strip()):
            return float(milliseconds) / 1000
    return _parse_retry_after(headers.get("retry-after", ""), now)


def wait_in_words(text: str) -> float | None:
    """Seconds, from a sentence such as "Try again in 15 seconds."; None without one.

    At most 60, unless it is the sentence of API Management's quota policy.
    """
    found = _WORDS.search(text)
    if found is None:
        return None
    by_policy = POLICY_SENTENCE.match(text) and found[0].lower().startswith("replenished")
    return _seconds(found) if by_policy else min(_seconds(found), _MOST_FROM_WORDS)


def _seconds(found: re.Match[str]) -> float:
    if plain := found["plain"]:
        return _number(plain)
    if parts := found["parts"]:
        return sum(_number(amount) * _seconds_of(unit.strip()) for amount, unit in _PART.findall(parts))
    days, hours, minutes, seconds = (int(part or 0) for part in found.group("days", "hours", "minutes", "seconds"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


def _number(amount: str) -> float:
    return float(amount.replace(",", ""))


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
