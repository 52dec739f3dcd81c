"""Waiting times: polls, retries, throttles, copies."""

from __future__ import annotations

import pytest

from imagegen.lifecycle import backoff
from tests.app.generations import NOON, seconds


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, 3.0),
        (0.0, 1.0),  # an immediate retry would be a busy loop
        (-5.0, 1.0),
        (0.25, 1.0),
        (1.0, 1.0),
        (17.5, 17.5),
        (60.0, 60.0),
        (61.0, 60.0),  # a header must not make a generation sleep past its deadline
        (1e9, 60.0),
        (float("inf"), 60.0),
    ],
)
def test_retry_after_is_clamped(retry_after: float | None, expected: float) -> None:
    assert backoff.clamp(retry_after, default=3.0) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-5, 1.0),  # the clocks of two instances differ
        (0, 1.0),
        (9, 1.0),
        (25, 2.5),  # a tenth of the age
        (100, 10.0),
        (10_000, 10.0),  # more would delay the result noticeably
    ],
)
def test_poll_interval_grows_with_age(age: float, expected: float) -> None:
    assert backoff.poll_wait(None, age) == seconds(expected)


def test_retry_after_sets_the_next_poll() -> None:
    assert backoff.poll_wait(17.5, 100) == seconds(17.5)
    assert backoff.poll_wait(600, 100) == seconds(60)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (5_001, 60)],  # the last one: no overflow after days of faults
)
def test_fault_wait_doubles_to_a_minute(faults: int, expected: float) -> None:
    assert backoff.fault_wait(None, faults, jitter=0) == seconds(expected)


@pytest.mark.parametrize("retry_after", [None, 8.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_jitter_adds_up_to_a_quarter(retry_after: float | None, jitter: float) -> None:
    assert backoff.fault_wait(retry_after, 4, jitter=jitter) == seconds(8 * (1 + jitter / 4))


@pytest.mark.parametrize(
    ("retry_after", "faults", "expected"),
    [
        (30.0, 0, 30),
        (0.0, 0, 1),  # an immediate retry by all generations would be a stampede
        (900.0, 0, 900),  # an hourly quota: a call each minute would be useless
        (1e9, 0, 3_600),
        (None, 0, 5),
        (None, 1, 10),
        (None, 9, 60),
        (None, 5_000, 60),
    ],
)
def test_pause_follows_retry_after_or_doubles(retry_after: float | None, faults: int, expected: float) -> None:
    assert backoff.pause_until(retry_after, faults, NOON) == NOON + seconds(expected)


@pytest.mark.parametrize(("attempts", "expected"), [(1, 1), (2, 2), (3, 4), (4, 8), (6, 32), (10_000, 32)])
def test_copy_wait_doubles_to_half_a_minute(attempts: int, expected: float) -> None:
    assert backoff.copy_wait(attempts) == seconds(expected)
