"""What follows from what: the decisions alone, with no clock, store or network."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from imagegen.generation import FailedImage, Generation, Status, StoredImage
from imagegen.lifecycle import transitions as moves
from imagegen.upstream.protocol import Accepted, Unavailable, Working
from tests.app.generations import NOON, OPERATION, failed, new, running, seconds, stored

DEADLINE = new().deadline


def next_move(
    generation: Generation,
    now: datetime,
    *,
    direct: bool = False,
    may_call: bool = False,
    repeat_lost_calls: bool = True,
) -> object:
    return moves.next_move(generation, now, direct=direct, may_call=may_call, repeat_lost_calls=repeat_lost_calls)


def waited(generation: Generation, now: datetime = NOON) -> float:
    return (generation.due - now).total_seconds()


@pytest.mark.parametrize(
    ("generation", "now", "expected"),
    [
        (new(), NOON, moves.Submit),
        (new(), DEADLINE - timedelta(microseconds=1), moves.Submit),
        (new(), DEADLINE, moves.Finish),  # nothing is running: nothing may be begun, or billed, past the deadline
        (running(), NOON, moves.Poll),
        (running(), DEADLINE + timedelta(days=1), moves.Poll),  # accepted and paid for: one more look
        # The answer of a submit was lost: it is submitted again, with the same id.
        (new(faults=7), NOON, moves.Submit),
        # Half-copied: upstream is asked for fresh URLs.
        (running(images=(stored(), None)), NOON, moves.Poll),
    ],
)
def test_the_next_move_follows_from_the_record_and_the_time(
    generation: Generation, now: datetime, expected: type
) -> None:
    assert isinstance(next_move(generation, now), expected)


def test_past_its_deadline_a_generation_that_nobody_accepted_says_how_long_it_was_given() -> None:
    move = next_move(new(), DEADLINE)
    assert isinstance(move, moves.Finish)
    assert move.generation.status is Status.FAILED
    assert move.generation.error is not None
    assert move.generation.error.code == "deadlineExceeded"
    assert "3600 seconds" in move.generation.error.message
    assert not move.generation.error.is_refusal


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, 1.0),  # promised on the GET only: the first poll comes soon
        (0.0, 1.0),  # "at once" would be a busy loop
        (-5.0, 1.0),
        (0.25, 1.0),
        (1.0, 1.0),
        (17.5, 17.5),
        (60.0, 60.0),
        (61.0, 60.0),  # a generation must not sleep past its deadline because a header says so
        (1e9, 60.0),
        (float("inf"), 60.0),
    ],
)
def test_what_upstream_says_is_held_between_1_and_60_seconds(told: float | None, expected: float) -> None:
    assert waited(moves.accepted(new(), Accepted(OPERATION, told), NOON)) == expected
    assert waited(moves.still_working(running(), Working(told), NOON)) == expected
    assert waited(moves.unavailable(running(), Unavailable("500", told), NOON, jitter=0)) == expected


def test_an_accepted_generation_has_everything_that_a_poll_needs() -> None:
    accepted = moves.accepted(new(faults=3), Accepted(OPERATION, None), NOON)
    assert accepted == running(due=NOON + seconds(1), faults=0)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-5, 1.0),  # clocks of two instances differ
        (0, 1.0),
        (9, 1.0),
        (25, 2.5),  # a tenth of its age
        (100, 10.0),
        (10_000, 10.0),  # never so seldom that a caller notices
    ],
)
def test_where_nothing_is_told_polls_grow_rarer_with_age(age: float, expected: float) -> None:
    now = NOON + seconds(age)
    assert waited(moves.still_working(running(faults=2), Working(None), now), now) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("faults_before", "expected"),
    [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (7, 60), (5_000, 60)],  # the last: no overflow after days of faults
)
def test_back_off_doubles_up_to_a_minute(faults_before: int, expected: float) -> None:
    after = moves.unavailable(running(faults=faults_before), Unavailable("no answer"), NOON, jitter=0)
    assert waited(after) == expected
    assert after.faults == faults_before + 1


@pytest.mark.parametrize("told", [None, 8.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_jitter_adds_up_to_a_quarter_and_never_comes_before_what_was_told(told: float | None, jitter: float) -> None:
    after = moves.unavailable(running(faults=3), Unavailable("429", told), NOON, jitter=jitter)
    assert waited(after) == 8 * (1 + jitter / 4)


def test_an_answer_ends_the_row_of_faults() -> None:
    assert moves.still_working(running(faults=9), Working(None), NOON).faults == 0


@pytest.mark.parametrize("images", [1, 3, 10])
def test_a_claim_lasts_as_long_as_its_copies_may_take(images: int) -> None:
    claimed = moves.copy_claimed(running(copy_attempts=2), images, NOON)
    assert claimed.copy_attempts == 3
    assert waited(claimed) == images * moves.COPY_SECONDS_EACH + moves.COPY_SECONDS_SLACK


@pytest.mark.parametrize(
    ("attempts", "expires", "now", "expected"),
    [
        (1, None, NOON, True),
        (moves.COPY_TRIES - 1, None, NOON, True),
        (moves.COPY_TRIES, None, NOON, False),  # used up
        (10_000, None, NOON, False),  # storage was away for days, each claim counted: no overflow
        (1, None, DEADLINE - seconds(1.5), True),
        (1, None, DEADLINE - seconds(1), False),  # the wait would end at the deadline
        (3, None, DEADLINE - seconds(4), False),  # a later try waits longer
        (1, NOON + seconds(1.5), NOON, True),
        (1, NOON + seconds(1), NOON, False),  # upstream throws it away before
        (1, NOON - seconds(1), NOON, False),
    ],
)
def test_a_copy_is_tried_again_while_it_can_still_help(
    attempts: int, expires: datetime | None, now: datetime, expected: bool
) -> None:
    assert moves.may_copy_again(running(copy_attempts=attempts), expires, now) is expected


@pytest.mark.parametrize(("attempts", "expected"), [(1, 1), (2, 2), (3, 4), (4, 8), (10_000, 32)])
def test_copies_back_off_and_keep_what_there_is(attempts: int, expected: float) -> None:
    after = moves.copied_in_part(running(copy_attempts=attempts, images=(stored(), None)), NOON)
    assert waited(after) == expected
    assert after.images == (stored(), None)


@pytest.mark.parametrize(
    ("attempts", "now", "expected"),
    [
        (moves.COPY_TRIES - 1, DEADLINE, False),
        (moves.COPY_TRIES, DEADLINE - seconds(1), False),
        (moves.COPY_TRIES, DEADLINE, True),
        (2 * moves.COPY_TRIES - 1, NOON, False),
        (2 * moves.COPY_TRIES, NOON, True),  # it may be what kills us
    ],
)
def test_a_copy_that_never_came_to_an_end_is_given_up(attempts: int, now: datetime, expected: bool) -> None:
    assert moves.is_hopeless(running(copy_attempts=attempts), now) is expected


def test_what_was_copied_before_it_was_given_up_is_kept() -> None:
    part = moves.copy_given_up(running(copy_attempts=10, images=(stored(0), None)), 2, NOON)
    assert (part.status, part.images[0]) == (Status.SUCCEEDED, stored(0))
    none = moves.copy_given_up(running(copy_attempts=10), 2, NOON)
    assert none.error is not None
    assert (none.status, none.error.code, len(none.images)) == (Status.FAILED, "copyFailed", 2)


def test_a_deadline_keeps_what_was_copied_before_it() -> None:
    part = moves.past_deadline(running(images=(stored(0), None)), DEADLINE)
    assert part.status is Status.SUCCEEDED
    assert isinstance(part.images[1], FailedImage)
    assert part.images[1].error.code == "deadlineExceeded"


REFUSED, LOST = failed("contentFilter"), failed("imageTruncated")


@pytest.mark.parametrize(
    ("images", "status", "code"),
    [
        ((stored(0), stored(1)), Status.SUCCEEDED, None),
        ((REFUSED, stored(1)), Status.SUCCEEDED, None),  # one that is there makes a success
        ((LOST, stored(1), REFUSED), Status.SUCCEEDED, None),
        ((REFUSED, REFUSED), Status.FAILED, "contentFilter"),
        ((LOST, REFUSED), Status.FAILED, "contentFilter"),  # what the caller can change says more than what he cannot
        ((LOST, failed("noImage")), Status.FAILED, "imageTruncated"),  # else the first reason
    ],
)
def test_one_stored_image_makes_a_success_and_none_the_most_telling_failure(
    images: tuple[StoredImage | FailedImage, ...], status: Status, code: str | None
) -> None:
    ended = moves.copied(running(images=images), NOON)
    assert ended.status is status
    assert (ended.error.code if ended.error else None) == code
    assert ended.images == images


@pytest.mark.parametrize(
    ("until", "jitter", "expected"),
    [
        (40, 0.0, 40),
        (40, 0.5, 60),  # spread over as long again
        (40, 1.0, 80),
        (600, 1.0, 660),  # a minute at most
        (0.1, 1.0, 1.1),  # a second at least
        (-5, 0.5, 0.5),  # the brake went off in this moment
        (86_400, 1.0, 3_600),  # but never beyond the deadline: it is then that somebody must look
    ],
)
def test_who_is_braked_comes_back_after_it_and_not_with_all_others(
    until: float, jitter: float, expected: float
) -> None:
    after = moves.throttled(running(calling=True, queued=True), NOON + seconds(until), NOON, jitter=jitter)
    assert waited(after) == pytest.approx(expected)
    assert (after.calling, after.queued, after.lost_calls) == (False, False, 0)


LATER = NOON + seconds(7)


@pytest.mark.parametrize(
    "ended",
    [
        moves.copied(running(images=(stored(),)), LATER),
        moves.past_deadline(running(), LATER),
        moves.ended(running(), Status.CANCELED, None, LATER),
    ],
)
def test_every_end_is_terminal_and_says_when_it_came(ended: Generation) -> None:
    assert ended.status.is_terminal
    assert ended.last_action == ended.due == LATER
