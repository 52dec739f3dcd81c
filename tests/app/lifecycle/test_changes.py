"""The record after each transition."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from imagegen.generation import FailedImage, Generation, GenerationError, Status, StoredImage
from imagegen.lifecycle import changes
from imagegen.lifecycle.changes import CopyFault, CopyResult
from imagegen.upstream.protocol import Accepted, Lost, Unavailable, Working
from tests.app.generations import NOON, OPERATION, error_code, failed, new, running, seconds, stored, throttle

DEADLINE = new().deadline
LATER = NOON + seconds(7)


def waited(generation: Generation, now: datetime = NOON) -> float:
    return (generation.due - now).total_seconds()


def fault(code: str = "imageTruncated", *, retryable: bool = True) -> CopyFault:
    return CopyFault(GenerationError(code=code, message="why"), retryable=retryable)


def test_accepted_record_can_be_polled() -> None:
    accepted = changes.accepted(new(faults=3), Accepted(OPERATION, None), LATER)
    assert accepted == running(submitted=LATER, last_action=LATER, due=LATER + seconds(1), faults=0)


def test_retry_after_sets_the_first_poll() -> None:
    assert waited(changes.accepted(new(), Accepted(OPERATION, 17.5), NOON)) == 17.5


def test_poll_interval_grows_from_the_submit() -> None:
    now = NOON + seconds(30)
    record = running(created=NOON - seconds(500), submitted=NOON, faults=2)
    after = changes.still_working(record, Working(None), now)
    assert (waited(after, now), after.faults) == (3, 0)


def test_fault_counts_and_backs_off() -> None:
    after = changes.unavailable(new(faults=2, queued=True, calling=True), Unavailable("503"), NOON, jitter=0)
    assert (after.faults, waited(after), after.queued, after.calling) == (3, 4, False, False)


def test_queued_record_is_due_when_its_message_is_lost() -> None:
    after = changes.queued(new(), NOON)
    assert (after.queued, waited(after)) == (True, 600)
    assert changes.queued(new(deadline=NOON + seconds(60)), NOON).due == NOON + seconds(60)


def test_claim_has_an_owner_and_lasts_90_seconds() -> None:
    claimed = changes.call_claimed(new(queued=True), NOON, claim="a")
    assert (claimed.claim, waited(claimed)) == ("a", 90)
    assert (claimed.calling, claimed.queued, claimed.status, claimed.submitted) == (True, False, Status.RUNNING, NOON)


def test_claims_of_two_workers_are_different_records() -> None:
    assert changes.call_claimed(new(), NOON, claim="a") != changes.call_claimed(new(), NOON, claim="b")
    assert changes.copy_claimed(running(), 1, NOON, claim="a") != changes.copy_claimed(running(), 1, NOON, claim="b")


def test_second_claim_keeps_the_time_of_the_first() -> None:
    claimed = changes.call_claimed(new(submitted=NOON), LATER, claim="a")
    assert (claimed.submitted, claimed.last_action) == (NOON, LATER)


def test_renewal_changes_only_the_end_of_the_claim() -> None:
    claimed = changes.call_claimed(new(), NOON, claim="a")
    renewed = changes.claim_renewed(claimed, LATER)
    assert renewed == claimed.changed(due=LATER + seconds(90))


@pytest.mark.parametrize(
    ("lost", "left", "wait"),
    [
        (0, 3_600, 10),
        (1, 3_600, 60),  # an outage of a minute does not use up all calls
        (2, 3_600, 60),
        (1, 40, 20),  # before the deadline there is time for one more call
        (0, 1, 1),
        (0, 0.5, 0.5),
        (0, -1, 1),  # the call ended after the deadline
    ],
)
def test_lost_call_is_counted_and_backs_off(lost: int, left: float, wait: float) -> None:
    record = new(calling=True, lost_calls=lost, deadline=NOON + seconds(left))
    after = changes.call_lost(record, Lost("status 502", "Bad Gateway"), NOON, jitter=0)
    assert (after.lost_calls, after.calling, after.faults, waited(after)) == (lost + 1, False, 1, wait)
    assert after.fault == "status 502: Bad Gateway"


def test_expired_claim_of_a_call_is_its_last_problem() -> None:
    expired = changes.claim_expired(new(calling=True, claim="a", fault="status 502"))
    assert (expired.lost_calls, expired.fault) == (1, "the worker stopped during the call")
    assert changes.claim_expired(new(fault="status 502")).fault == "status 502"


@pytest.mark.parametrize(("until", "due"), [(40, 40), (86_400, 3_600)])  # never past the deadline
def test_pause_clears_the_claim_and_ends_by_the_deadline(until: float, due: float) -> None:
    after = changes.paused(running(calling=True, queued=True), throttle(until), NOON)
    assert waited(after) == due
    assert (after.calling, after.queued, after.lost_calls) == (False, False, 0)
    assert after.fault == "throttled by the image service: status 429"


def test_pause_past_the_deadline_is_due_now() -> None:
    assert changes.paused(new(), throttle(3_660), DEADLINE + seconds(1)).due == DEADLINE + seconds(1)


@pytest.mark.parametrize("images", [1, 3, 10])
def test_copy_claim_covers_all_its_images(images: int) -> None:
    claimed = changes.copy_claimed(running(copy_attempts=2), images, NOON, claim="a")
    assert claimed.copy_attempts == 3
    assert waited(claimed) == images * changes.COPY_SECONDS_EACH + changes.COPY_SECONDS_SLACK


@pytest.mark.parametrize(
    ("attempts", "expires", "now", "again"),
    [
        (1, None, NOON, True),
        (changes.COPY_TRIES - 1, None, NOON, True),
        (changes.COPY_TRIES, None, NOON, False),
        (10_000, None, NOON, False),  # each claim counts, also during days of a storage fault
        (1, None, DEADLINE - seconds(1.5), True),
        (1, None, DEADLINE - seconds(1), False),  # the retry would come at the deadline
        (3, None, DEADLINE - seconds(4), False),  # later retries wait longer
        (1, NOON + seconds(1.5), NOON, True),
        (1, NOON + seconds(1), NOON, False),  # the service deletes the image before the retry
        (1, NOON - seconds(1), NOON, False),
    ],
)
def test_copy_is_retried_while_it_can_succeed(
    attempts: int, expires: datetime | None, now: datetime, again: bool
) -> None:
    part = changes.copied_in_part(running(copy_attempts=attempts), (fault(), stored(1)), expires, now)
    assert (part is not None) is again
    if part:
        assert part.images == (None, stored(1))
        assert part.last_action == now


def test_copy_without_a_retryable_fault_is_final() -> None:
    record = running(copy_attempts=1)
    assert changes.copied_in_part(record, (stored(), fault(retryable=False)), None, NOON) is None


def test_partial_copy_keeps_final_failures() -> None:
    part = changes.copied_in_part(running(copy_attempts=2), (fault(), fault("notAnImage", retryable=False)), None, NOON)
    assert part
    assert part.images == (None, failed("notAnImage"))
    assert waited(part) == 2


@pytest.mark.parametrize(
    ("attempts", "now", "expected"),
    [
        (changes.COPY_TRIES - 1, DEADLINE, False),
        (changes.COPY_TRIES, DEADLINE - seconds(1), False),
        (changes.COPY_TRIES, DEADLINE, True),
        (changes.COPY_TRIES, DEADLINE + seconds(1), True),
        (changes.COPY_TRIES + 1, DEADLINE, True),
        (2 * changes.COPY_TRIES - 1, NOON, False),
        (2 * changes.COPY_TRIES, NOON, True),  # the copy itself may crash the worker
        (10_000, NOON, True),
    ],
)
def test_copy_is_hopeless_after_too_many_tries(attempts: int, now: datetime, expected: bool) -> None:
    assert changes.is_hopeless(running(copy_attempts=attempts), now) is expected


def test_abandoned_copy_keeps_stored_images() -> None:
    part = changes.copy_abandoned(running(copy_attempts=10, images=(stored(0), None)), 2, NOON)
    assert (part.status, part.images[0]) == (Status.SUCCEEDED, stored(0))
    none = changes.copy_abandoned(running(copy_attempts=10), 2, NOON)
    assert (none.status, error_code(none), len(none.images)) == (Status.FAILED, "copyFailed", 2)


def test_deadline_keeps_stored_images() -> None:
    part = changes.past_deadline(running(images=(stored(0), None)), DEADLINE)
    assert part.status is Status.SUCCEEDED
    assert isinstance(part.images[1], FailedImage)
    assert part.images[1].error.code == "deadlineExceeded"


def test_deadline_error_names_the_timeout() -> None:
    error = changes.past_deadline(new(), DEADLINE).error
    assert error
    assert "3600 seconds" in error.message
    assert not error.is_refusal


def test_changed_api_error_names_model_and_timeout() -> None:
    error = changes.api_changed(running(), DEADLINE).error
    assert error
    assert "'dalle'" in error.message
    assert "timeoutSeconds" in error.message


REFUSED, LOST = failed("contentFilter"), failed("imageTruncated")


@pytest.mark.parametrize(
    ("results", "status", "code"),
    [
        ((stored(0), stored(1)), Status.SUCCEEDED, None),
        ((REFUSED, stored(1)), Status.SUCCEEDED, None),  # one stored image makes a success
        ((fault(), stored(1), REFUSED), Status.SUCCEEDED, None),
        ((REFUSED, REFUSED), Status.FAILED, "contentFilter"),
        ((fault(), REFUSED), Status.FAILED, "contentFilter"),  # a refusal first: the caller can change the prompt
        ((fault(), failed("noImage")), Status.FAILED, "imageTruncated"),  # without a refusal, the first reason
    ],
)
def test_one_stored_image_makes_a_success(results: tuple[CopyResult, ...], status: Status, code: str | None) -> None:
    ended = changes.copied(running(calling=True), results, NOON)
    assert (ended.status, error_code(ended)) == (status, code)
    assert [type(image) for image in ended.images] == [
        StoredImage if isinstance(result, StoredImage) else FailedImage for result in results
    ]
    assert not ended.calling


ENDS: list[Callable[[Generation], Generation]] = [
    lambda record: changes.copied(record, (stored(),), LATER),
    lambda record: changes.past_deadline(record, LATER),
    lambda record: changes.api_changed(record, LATER),
    lambda record: changes.model_removed(record, LATER),
    lambda record: changes.outcome_unknown(record, LATER, cause="after 3 lost responses"),
    lambda record: changes.copy_abandoned(record, 1, LATER),
    lambda record: changes.ended(record, Status.CANCELED, None, LATER),
]


@pytest.mark.parametrize("record", [running(claim="a"), running(claim="a", images=(stored(), None))])
@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_terminal_and_has_its_time(end: Callable[[Generation], Generation], record: Generation) -> None:
    ended = end(record)
    assert ended.status.is_terminal
    assert ended.last_action == ended.due == LATER
    assert ended.claim is None
