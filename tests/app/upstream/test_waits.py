"""Times to wait in the words of services and gateways."""

from __future__ import annotations

import time

import pytest

from imagegen.upstream.waits import wait_in_words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # API Management: the quota policy and the rate limit policy.
        ("Out of call volume quota. Quota will be replenished in 00:12:34.", 754),
        ("Out of bandwidth quota. Quota will be replenished in 5.03:23:11.", 444_191),
        ("Quota will be replenished in 00:00:09.", 9),
        ("Rate limit is exceeded. Try again in 15 seconds.", 15),
        # Azure and OpenAI.
        ("… exceeded the call rate limit. Please retry after 26 seconds. Please go here: x", 26),
        ("Please retry after 1 second.", 1),
        ("Rate limit reached for images per minute. Please try again in 12s. Visit x", 12),
        ("Please try again in 0h0m12.5s.", 12.5),
        ("Please try again in 500ms.", 0.5),
        ("Please retry your request after 30 seconds.", 30),
        ("Please wait 1,200 milliseconds.", 1.2),
        ("Please wait at least 20 seconds.", 20),
        ("Try again later in 10 seconds.", 10),
        ("The limit resets in 8 secs.", 8),
        ("Retry after: 30", 30),
        ("Retry-After: 30", 30),
        ("retry after 30. See x", 30),
        ("Try again in 26 s.", 26),
        # At most 60 seconds, unless API Management's quota policy states the time.
        ("Please wait 1,200 seconds.", 60),
        ("Try again later in 10 minutes", 60),
        ("Please retry after 1 day.", 60),
        ("Rate limit is exceeded. Try again in 2 hours.", 60),
        ("Prompt 'Quota will be replenished in 10:00:00' violates the policy", 60),
        # No time to wait.
        ("Try again in 6 months, or retry after 2027-01-01.", None),
        ("The counter was reset 5 h ago.", None),
        ("available in 4 d printing", None),
        ("available again in 4 d printing", None),
        ("Give up: retry after 5 attempts", None),
        ("try again in 30", None),
        ("Try again at 10:41:07.", None),
        ("retry after 12:30", None),
        ("retry after 3.14.1", None),
        ("await 5 seconds", None),
        ("Try again later.", None),
    ],
)
def test_time_in_a_sentence(text: str, seconds: float | None) -> None:
    assert wait_in_words(text) == seconds


@pytest.mark.parametrize(
    "part", ["retry after 1,111,111", "wait 1m", "1,111 seconds and ", "try again in 9" + "9" * 20]
)
def test_long_text_is_read_in_linear_time(part: str) -> None:
    began = time.process_time()
    wait_in_words(part * (2**20 // len(part)))
    assert time.process_time() - began < 1
