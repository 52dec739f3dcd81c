"""The table of the state machine: the effect and the record for each pair of state and outcome."""

from __future__ import annotations

from datetime import datetime
from itertools import product
from typing import Any, get_args

import pytest

from imagegen.generation import FailedImage, Generation, GenerationError, Status
from imagegen.lifecycle import transitions
from imagegen.lifecycle.changes import COPY_TRIES, CopyFault
from imagegen.lifecycle.transitions import (
    AlreadyEnded,
    Call,
    Copied,
    Copy,
    Drop,
    DueForDirect,
    DueForPolled,
    DueWithoutModel,
    Enqueue,
    FellOver,
    Finish,
    ImpossibleOutcomeError,
    Leave,
    Outcome,
    Pause,
    Poll,
    Rest,
    State,
    Step,
    Submit,
    Take,
    TryNext,
    Wait,
    state_of,
    transition,
)
from imagegen.upstream.protocol import (
    Accepted,
    Answered,
    Ended,
    ImageUrl,
    Lost,
    Missing,
    Produced,
    Throttled,
    Unavailable,
    Working,
)
from tests.app.generations import NOON, OPERATION, error_code, new, running, seconds, stored, throttle

DEADLINE = new().deadline
CLAIM = "the claim of this worker"
REFUSED = GenerationError(code="contentFilter", message="No.")
FAULT = CopyFault(GenerationError(code="imageTruncated", message="cut"), retryable=True)
PRODUCED = Produced((ImageUrl("u"), ImageUrl("v")))
ANSWERED = Answered(())
FREE_POLLED = DueForPolled(repeat_lost_calls=True, wait_until=None)
FREE_DIRECT = DueForDirect(repeat_lost_calls=True, wait_until=None, has_minutes=True)

RECORDS = {
    State.WAITING: new(),
    State.CALLING: new(calling=True, claim="of an earlier worker", status=Status.RUNNING),
    State.ACCEPTED: running(copy_attempts=1),
}


def calling(**changes: Any) -> Generation:
    return RECORDS[State.CALLING].changed(**changes)


def after(generation: Generation, outcome: Outcome, now: datetime = NOON, *, jitter: float = 0.0) -> Step:
    return transition(generation, outcome, now, jitter=jitter, claim=CLAIM)


IMPOSSIBLE = ImpossibleOutcomeError
TABLE: list[tuple[State, Outcome, type | object, dict[str, object]]] = [
    # state, outcome, effect, fields of the record that is written
    (State.WAITING, FREE_POLLED, Submit(), {"status": Status.NOT_RUNNING}),
    (State.WAITING, FREE_DIRECT, Call(), {"calling": True, "claim": CLAIM, "status": Status.RUNNING, "lost_calls": 0}),
    (State.WAITING, DueWithoutModel(), Leave(), {"due": NOON + seconds(60), "lost_calls": 0}),
    (State.WAITING, Accepted(OPERATION, None), Rest(), {"operation_location": OPERATION, "status": Status.RUNNING}),
    (State.WAITING, Throttled("429", 30), Pause(throttle(30, "429")), {"faults": 1, "due": NOON + seconds(30)}),
    (State.WAITING, Unavailable("503"), Rest(), {"faults": 1, "due": NOON + seconds(1)}),
    (State.WAITING, Ended(Status.FAILED, REFUSED), Finish(), {"error.code": "contentFilter"}),
    (State.WAITING, Working(None), IMPOSSIBLE, {}),
    (State.WAITING, PRODUCED, IMPOSSIBLE, {}),
    (State.WAITING, ANSWERED, IMPOSSIBLE, {}),
    (State.WAITING, Lost("no answer"), IMPOSSIBLE, {}),
    (State.WAITING, Copied(()), IMPOSSIBLE, {}),
    (State.WAITING, AlreadyEnded(None), Drop(None), {"status": Status.CANCELED, "last_action": NOON}),
    (State.WAITING, Missing(), IMPOSSIBLE, {}),
    (State.WAITING, FellOver(REFUSED), IMPOSSIBLE, {}),
    # A record that is due while CALLING: its worker crashed. The call counts as lost.
    (State.CALLING, FREE_POLLED, Submit(), {"calling": False, "claim": None, "lost_calls": 1}),
    (State.CALLING, FREE_DIRECT, Call(), {"calling": True, "claim": CLAIM, "lost_calls": 1}),
    (State.CALLING, DueWithoutModel(), Leave(), {"due": NOON + seconds(60), "lost_calls": 0, "calling": True}),
    (State.CALLING, ANSWERED, Take(ANSWERED), {"calling": True}),
    (State.CALLING, Throttled("429", 30), Pause(throttle(30, "429")), {"calling": False, "lost_calls": 0, "faults": 1}),
    (State.CALLING, Unavailable("503"), Rest(), {"calling": False, "lost_calls": 0, "faults": 1}),
    (State.CALLING, Lost("504"), Rest(), {"calling": False, "claim": None, "lost_calls": 1, "faults": 1}),
    (State.CALLING, Ended(Status.FAILED, REFUSED), Finish(), {"error.code": "contentFilter"}),
    (
        State.CALLING,
        Copied((stored(),), usage={"total_tokens": 3}),
        Finish(),
        {"status": Status.SUCCEEDED, "calling": False, "usage": {"total_tokens": 3}},
    ),
    (State.CALLING, AlreadyEnded(None), Drop(None), {"status": Status.CANCELED, "last_action": NOON}),
    (
        State.CALLING,
        FellOver(REFUSED),
        TryNext(throttle(300, "contentFilter"), None),
        {"calling": False, "claim": None, "lost_calls": 0, "refused_by": ("",), "due": NOON},
    ),
    (State.CALLING, Accepted(OPERATION, None), IMPOSSIBLE, {}),
    (State.CALLING, Working(None), IMPOSSIBLE, {}),
    (State.CALLING, PRODUCED, IMPOSSIBLE, {}),
    (State.CALLING, Missing(), IMPOSSIBLE, {}),
    (State.ACCEPTED, FREE_POLLED, Poll(), {"due": NOON}),
    # The deployment's API changed: wait for the old one, without a request.
    (State.ACCEPTED, FREE_DIRECT, Leave(), {"due": NOON + seconds(60), "operation_location": OPERATION}),
    (State.ACCEPTED, DueWithoutModel(), Leave(), {"due": NOON + seconds(60), "lost_calls": 0}),
    (State.ACCEPTED, Working(7), Rest(), {"due": NOON + seconds(7), "faults": 0}),
    (State.ACCEPTED, Unavailable("503"), Rest(), {"due": NOON + seconds(1), "faults": 1}),
    (State.ACCEPTED, Missing(7), Rest(), {"due": NOON + seconds(7), "missing_polls": 1, "missing_since": NOON}),
    (State.ACCEPTED, PRODUCED, Copy(PRODUCED), {"copy_attempts": 2, "claim": CLAIM, "due": NOON + seconds(70)}),
    (State.ACCEPTED, Copied((stored(), FAULT)), Rest(), {"images": (stored(), None), "due": NOON + seconds(1)}),
    (State.ACCEPTED, Ended(Status.CANCELED), Finish(), {"status": Status.CANCELED}),
    (State.ACCEPTED, Accepted(OPERATION, None), IMPOSSIBLE, {}),
    (State.ACCEPTED, ANSWERED, IMPOSSIBLE, {}),
    (State.ACCEPTED, Lost("no answer"), IMPOSSIBLE, {}),
    (State.ACCEPTED, Throttled("429"), IMPOSSIBLE, {}),
    (State.ACCEPTED, AlreadyEnded(None), IMPOSSIBLE, {}),
    (State.ACCEPTED, FellOver(REFUSED), IMPOSSIBLE, {}),
]


def test_table_has_every_pair_once() -> None:
    outcomes = set(get_args(Outcome.__value__)) - {transitions.Due} | set(get_args(transitions.Due.__value__))
    pairs = [(state, type(outcome)) for state, outcome, _, _ in TABLE]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set(product(State, outcomes))


@pytest.mark.parametrize(
    ("state", "outcome", "effect", "fields"),
    TABLE,
    ids=[f"{state.name} {type(outcome).__name__}" for state, outcome, _, _ in TABLE],
)
def test_pair_has_its_effect_and_record(
    state: State, outcome: Outcome, effect: object, fields: dict[str, object]
) -> None:
    record = RECORDS[state]
    assert state_of(record) is state
    if effect is IMPOSSIBLE:
        with pytest.raises(ImpossibleOutcomeError, match=f"{type(outcome).__name__} in state {state.name}"):
            after(record, outcome)
        return
    step = after(record, outcome)
    assert step.effect == effect
    found = {name: getattr(step.generation, name) for name in fields if name != "error.code"}
    if "error.code" in fields:
        found["error.code"] = error_code(step.generation)
    assert found == fields
    assert step.generation.status.is_terminal is isinstance(effect, Finish | Drop)


def due_direct(*, repeat: bool = True, wait_until: datetime | None = None, has_minutes: bool = True) -> DueForDirect:
    return DueForDirect(repeat, wait_until, has_minutes)


@pytest.mark.parametrize(
    ("record", "now", "due", "expected"),
    [
        (new(), NOON, due_direct(has_minutes=False), Enqueue()),
        (new(queued=True), NOON, due_direct(), Call()),
        (new(faults=9), NOON, due_direct(repeat=False), Call()),  # a fault is not a lost call
        (new(lost_calls=1), NOON, due_direct(), Call()),
        (calling(), NOON, due_direct(has_minutes=False), Enqueue()),
        (calling(), NOON, due_direct(repeat=False), "outcomeUnknown"),
        (new(lost_calls=1), NOON, due_direct(repeat=False, has_minutes=False), "outcomeUnknown"),
        (calling(), NOON, DueForPolled(repeat_lost_calls=False, wait_until=None), "outcomeUnknown"),
        (new(lost_calls=2), NOON, due_direct(), Call()),
        (calling(lost_calls=1), NOON, due_direct(), Call()),
        (calling(lost_calls=2), NOON, due_direct(), "outcomeUnknown"),  # the third lost call
        (new(lost_calls=3), NOON, due_direct(), "outcomeUnknown"),
        (new(lost_calls=4), NOON, due_direct(), "outcomeUnknown"),
        (new(), DEADLINE - seconds(0.001), due_direct(), Call()),
        (new(), DEADLINE, due_direct(), "deadlineExceeded"),
        (new(), DEADLINE + seconds(1), due_direct(), "deadlineExceeded"),
        (new(lost_calls=1), DEADLINE, due_direct(), "outcomeUnknown"),  # the lost call may have been billed
        (new(), DEADLINE, FREE_POLLED, "deadlineExceeded"),  # no billed work begins past the deadline
        (new(), DEADLINE, due_direct(wait_until=DEADLINE + seconds(60)), "deadlineExceeded"),
        (new(), NOON, due_direct(wait_until=NOON + seconds(9)), Wait()),
        (new(due=NOON + seconds(45), queued=True), NOON, due_direct(wait_until=NOON + seconds(9)), Wait()),
        (new(due=NOON + seconds(45)), NOON, DueForPolled(True, NOON + seconds(9)), Rest()),  # hidden until then
        (new(), NOON, due_direct(wait_until=NOON), Call()),  # the wait ends at this moment
        (new(), NOON, DueForPolled(repeat_lost_calls=True, wait_until=NOON + seconds(9)), Wait()),
        (new(), NOON, DueForPolled(repeat_lost_calls=True, wait_until=NOON), Submit()),
    ],
)
def test_due_record_starts_waits_or_ends(
    record: Generation, now: datetime, due: DueForDirect | DueForPolled, expected: object
) -> None:
    step = after(record, due, now)
    if isinstance(expected, str):
        assert step.effect == Finish()
        assert error_code(step.generation) == expected
    else:
        assert step.effect == expected


@pytest.mark.parametrize(
    ("record", "now", "expected"),
    [
        (running(), NOON + seconds(500), Rest()),  # the first poll after a long outage of the hosts
        (running(missing_polls=1, missing_since=NOON), NOON + seconds(500), Rest()),
        (running(missing_polls=3, missing_since=NOON), NOON + seconds(500), Rest()),
        (running(missing_polls=4, missing_since=NOON), NOON + seconds(29), Rest()),  # right after the submit
        (running(missing_polls=4, missing_since=NOON), NOON + seconds(30), "operationNotFound"),
        (running(missing_polls=90, missing_since=NOON), NOON + seconds(29), Rest()),
        (running(missing_polls=4, missing_since=NOON), DEADLINE, "operationNotFound"),
        (running(faults=1), DEADLINE, Rest()),
        (running(faults=2), DEADLINE, "deadlineExceeded"),
    ],
)
def test_404_ends_an_operation_when_it_persists(record: Generation, now: datetime, expected: object) -> None:
    step = after(record, Missing(), now)
    assert (error_code(step.generation) if step.effect == Finish() else step.effect) == expected


@pytest.mark.parametrize("found", [Working(None), PRODUCED, Unavailable("status 503")])
def test_404s_count_in_a_row_only(found: Working | Produced | Unavailable) -> None:
    missing = running(missing_polls=4, missing_since=NOON)
    record = after(missing, found, NOON + seconds(10)).generation
    assert (record.missing_polls, record.missing_since) == (0, None)


def test_throttled_generation_resumes_after_the_pause() -> None:
    step = after(calling(queued=True), due_direct(wait_until=NOON + seconds(9)))
    assert (step.effect, step.generation.due) == (Wait(), NOON + seconds(9))
    assert (step.generation.calling, step.generation.lost_calls) == (False, 1)  # not written: it counts again


@pytest.mark.parametrize("now", [DEADLINE, DEADLINE + seconds(1)])
@pytest.mark.parametrize(
    ("record", "outcome", "status", "code"),
    [
        # The operation is billed, so its result counts even past the deadline.
        (running(copy_attempts=1), Copied((stored(),)), Status.SUCCEEDED, None),
        (running(copy_attempts=1), Copied((FAULT,)), Status.FAILED, "imageTruncated"),
        (running(), Ended(Status.FAILED, REFUSED), Status.FAILED, "contentFilter"),
        (running(), Ended(Status.CANCELED), Status.CANCELED, None),
        (running(), Working(1), Status.FAILED, "deadlineExceeded"),
        (running(faults=2), Unavailable("503"), Status.FAILED, "deadlineExceeded"),
        (running(images=(stored(), None)), Working(1), Status.SUCCEEDED, None),
        (running(), FREE_DIRECT, Status.FAILED, "modelChanged"),
        (running(), DueWithoutModel(), Status.FAILED, "modelRemoved"),
        (calling(), DueWithoutModel(), Status.FAILED, "modelRemoved"),
        (new(queued=True), DueWithoutModel(), Status.FAILED, "modelRemoved"),
        (running(images=(stored(), None)), DueWithoutModel(), Status.SUCCEEDED, None),
        (calling(), Copied((stored(),)), Status.SUCCEEDED, None),
    ],
)
def test_end_past_the_deadline(
    record: Generation, outcome: Outcome, status: Status, code: str | None, now: datetime
) -> None:
    step = after(record, outcome, now)
    assert step.effect == Finish()
    assert (step.generation.status, error_code(step.generation)) == (status, code)


@pytest.mark.parametrize(
    ("record", "outcome", "effect"),
    [
        (running(), PRODUCED, Copy(PRODUCED)),
        (running(), FREE_POLLED, Poll()),
        (calling(), Unavailable("503"), Rest()),  # it ends when it is next due
        (calling(), Lost("504"), Rest()),
        (calling(), ANSWERED, Take(ANSWERED)),
    ],
)
def test_billed_work_continues_past_the_deadline(record: Generation, outcome: Outcome, effect: object) -> None:
    assert after(record, outcome, DEADLINE).effect == effect


@pytest.mark.parametrize(
    ("attempts", "effect"), [(COPY_TRIES - 1, Copy(PRODUCED)), (COPY_TRIES, Finish()), (10_000, Finish())]
)
def test_copy_without_an_end_is_abandoned(attempts: int, effect: object) -> None:
    step = after(running(copy_attempts=attempts), PRODUCED, DEADLINE)
    assert step.effect == effect
    if effect == Finish():
        assert error_code(step.generation) == "copyFailed"
        assert step.generation.last_action == DEADLINE


def test_copy_ends_when_the_service_deletes_the_images() -> None:
    step = after(running(copy_attempts=1), Copied((stored(), FAULT), expires=NOON))
    assert step.effect == Finish()
    assert step.generation.images == (stored(), FailedImage(error=FAULT.error))


def test_copy_claim_counts_missing_images_only() -> None:
    step = after(running(images=(stored(), None)), PRODUCED)
    assert step.generation.due == NOON + seconds(40)


def test_upstream_failure_keeps_stored_images() -> None:
    step = after(running(images=(stored(), None)), Ended(Status.FAILED, REFUSED))
    assert step.generation.status is Status.SUCCEEDED
    assert step.generation.images == (stored(), FailedImage(error=REFUSED))


def test_upstream_cancel_ends_as_canceled() -> None:
    step = after(running(images=(stored(), None)), Ended(Status.CANCELED))
    assert (step.generation.status, step.generation.error) == (Status.CANCELED, None)


def test_winner_of_a_race_is_the_outcome() -> None:
    winner = running(status=Status.SUCCEEDED)
    assert after(calling(), AlreadyEnded(winner)) == Step(winner, Drop(winner))


@pytest.mark.parametrize(("faults", "pause"), [(0, 5), (1, 10), (2, 20)])
def test_pause_without_retry_after_grows_with_faults(faults: int, pause: float) -> None:
    step = after(new(faults=faults), Throttled("429"))
    assert step.effect == Pause(throttle(pause, "429"))
    assert step.generation.faults == faults + 1


def test_jitter_reaches_every_wait() -> None:
    assert after(new(), Unavailable("503", 8), jitter=1.0).generation.due == NOON + seconds(10)
    assert after(calling(), Lost("504"), jitter=1.0).generation.due == NOON + seconds(12.5)


@pytest.mark.parametrize(("left", "due"), [(600, 60), (60, 60), (59, 59), (0.001, 0.001)])
def test_record_without_model_is_due_by_its_deadline(left: float, due: float) -> None:
    step = after(new(deadline=NOON + seconds(left)), DueWithoutModel())
    assert (step.effect, step.generation.due) == (Leave(), NOON + seconds(due))
