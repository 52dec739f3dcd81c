"""When a caller is told to come back: soon while something moves, later the longer the queue is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from imagegen.generation import Generation, Status, StoredImage
from imagegen.web.monitor import Monitors
from tests.app.generations import NOON, new, running, seconds


class NoLinks:
    def link(self, image: StoredImage) -> str:
        raise NotImplementedError

    def blob_url(self, image: StoredImage) -> str:
        raise NotImplementedError


def told(generation: Generation, backlog: int = 0) -> str | None:
    monitors = Monitors(links=NoLinks(), retention=timedelta(days=30), clock=lambda: NOON, backlog=lambda: backlog)
    return monitors.retry_after(generation).get("Retry-After")


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        (0, "5"),
        (3, "5"),
        (4, "6"),  # a second for each four that are in the queue
        (40, "15"),
        (200, "55"),  # the burst of 200
        (220, "60"),
        (100_000, "60"),  # a minute at most: whoever waits longer thinks that it is dead
    ],
)
def test_what_waits_in_the_queue_is_asked_for_the_more_seldom_the_longer_it_is(backlog: int, expected: str) -> None:
    assert told(new(queued=True, due=NOON + seconds(600)), backlog) == expected  # its due is for a lost message


@pytest.mark.parametrize(
    ("changes", "backlog", "expected"),
    [
        ({"due": NOON + seconds(30)}, 0, "30"),  # braked: nobody looks at it before
        ({"due": NOON + seconds(30)}, 200, "55"),
        ({"due": NOON + seconds(17.4)}, 0, "17"),
        ({"due": NOON - seconds(100)}, 0, "5"),  # overdue
        ({"due": NOON + seconds(3_600)}, 0, "60"),
    ],
)
def test_what_was_told_to_wait_is_asked_for_after_it(changes: dict[str, Any], backlog: int, expected: str) -> None:
    assert told(new(**changes), backlog) == expected


@pytest.mark.parametrize("backlog", [0, 1_000])
def test_what_upstream_works_on_does_not_wait_in_our_queue(backlog: int) -> None:
    assert told(running(due=NOON + seconds(40)), backlog) == "5"


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_what_is_finished_is_not_asked_for_again(status: Status) -> None:
    assert told(running(status=status), 1_000) is None
