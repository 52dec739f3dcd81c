"""Claims of calls: their owner, their renewals, and what happens after a claim is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import GenerationError, Status, Versioned
from imagegen.lifecycle import changes
from imagegen.lifecycle.claims import ClaimKeeper
from imagegen.upstream.protocol import Answered, Ended, ImageBytes, Lost, Throttled, Unavailable
from tests.app.fakes import Clock, Crash, FakeRecords, Steps
from tests.app.generations import DIRECT, ID, NOON, new, seconds, stored
from tests.app.lifecycle.fake_app import FakeApp

REFUSED = GenerationError(code="contentFilter", message="No.")


def direct(app: FakeApp) -> None:
    """Start a generation whose call has a message, and forget the steps of the start."""
    app.start(DIRECT)
    app.steps.taken.clear()


def take_over(app: FakeApp) -> None:
    """Claim the record in another worker, whose call has not ended."""
    current = app.records.active[ID]
    app.records.save(changes.call_claimed(current.generation, app.clock.now, claim="another"), current.etag)


# --- Owner


def test_simultaneous_claims_make_one_call(app: FakeApp) -> None:
    """Both workers read the same record, and claim it in the same millisecond."""
    app.start(DIRECT)
    stale = app.records.active[ID]
    app.direct.during_call = lambda: app.worker.advance(stale, has_minutes=True)
    app.work()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)


def test_simultaneous_copies_of_an_operation_copy_once(app: FakeApp) -> None:
    app.start()
    app.clock.now += seconds(60)
    stale = app.records.active[ID]
    others: list[Versioned | None] = []
    app.images.before_copy = lambda index: others.append(app.worker.advance(stale)) if index == 0 else None
    app.tick()
    assert others == [None]
    assert (app.steps.taken.count("copy 0"), app.read().status) == (1, Status.SUCCEEDED)


# --- Renewals


@pytest.mark.parametrize(("call_seconds", "renewals"), [(29.9, 0), (30, 1), (59.9, 1), (60, 2), (250, 8)])
def test_claim_is_renewed_every_30_seconds(app: FakeApp, call_seconds: float, renewals: int) -> None:
    direct(app)
    app.direct.during_call = lambda: app.pass_time(call_seconds)
    app.work()
    saves = ["save"] * renewals
    # The fake records a call when it ends.
    assert app.steps.taken == ["save", "generate", *saves, "copy 0", "copy 1", "write_outcome", "drop_active"]
    assert (app.read().status, app.records.active) == (Status.SUCCEEDED, {})


def test_renewed_claim_stops_other_workers(app: FakeApp) -> None:
    def other_workers_look() -> None:
        for _ in range(25):
            app.pass_time(10)
            app.tick()
            app.worker.advance_by_id(ID, has_minutes=True)

    app.direct.during_call = other_workers_look
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.queue.messages, app.read().lost_calls) == ([ID], [], 0)


def test_claim_is_renewed_while_images_are_stored(app: FakeApp) -> None:
    def copy_slowly(_: int) -> None:
        app.pass_time(100)
        app.tick()

    app.images.before_copy = copy_slowly
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.queue.messages, app.read().status) == ([ID], [], Status.SUCCEEDED)


@pytest.mark.parametrize("lived", [0, 29, 100, 240])
def test_crash_in_a_call_is_noticed_within_90_seconds(app: FakeApp, lived: float) -> None:
    def crash() -> None:
        app.pass_time(lived)
        raise Crash

    app.direct.during_call = crash
    app.start(DIRECT)
    with pytest.raises(Crash):
        app.work()
    assert app.keeper.renew_due() is None  # the process is gone
    app.tick(seconds(90))
    assert app.queue.messages == [[ID]]


@pytest.mark.parametrize("outcome", [Throttled("status 429", 5), Lost("status 504")])
def test_outcome_is_written_after_renewals(app: FakeApp, outcome: Throttled | Lost) -> None:
    """The worker writes with the ETag of the last renewal."""
    app.direct.outcomes = [outcome, Answered((ImageBytes(b"0"),))]
    app.direct.during_call = lambda: app.pass_time(100)
    app.start(DIRECT)
    app.work()
    written = app.records.active[ID].generation
    assert (written.calling, written.claim, written.faults) == (False, None, 1)
    assert written.due == app.clock.now + seconds(5 if isinstance(outcome, Throttled) else 10)
    assert written.lost_calls == isinstance(outcome, Lost)


# --- Failures of a renewal


def failing_saves(app: FakeApp, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], *, after: bool) -> None:
    """Let the next saves fail, before or after the write."""
    save = app.records.save

    def fail(*args: Any) -> str:
        if not errors:
            return save(*args)
        if after:
            save(*args)
        raise errors.pop()

    monkeypatch.setattr(app.records, "save", fail)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [StorageUnavailableError("save record"), RuntimeError("a defect")])
def test_failed_renewal_is_retried(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch, error: Exception, after: bool
) -> None:
    def fail_twice_then_look() -> None:
        failing_saves(app, monkeypatch, [error, error], after=after)
        app.pass_time(29)
        assert app.steps.taken.count("save") == 1
        app.pass_time(12)  # renewals at 30, 35 and 40 seconds
        assert app.records.active[ID].generation.due == NOON + seconds(40 + 90)
        app.pass_time(200)
        app.tick()

    app.start(DIRECT)
    app.steps.taken.clear()
    app.direct.during_call = fail_twice_then_look
    app.work()
    assert (app.direct.calls, app.queue.messages, app.read().lost_calls) == ([ID], [], 0)
    assert app.records.active == {}


def test_renewal_without_an_answer_does_not_spoil_the_outcome(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage wrote the last renewal, and its answer was lost."""

    def lose_the_answer() -> None:
        failing_saves(app, monkeypatch, [StorageUnavailableError("save record")], after=True)
        app.pass_time(31)

    app.direct.during_call = lose_the_answer
    app.direct.outcomes = [Throttled("status 429", 5)]
    app.start(DIRECT)
    app.work()
    written = app.records.active[ID].generation
    assert (written.calling, written.faults, written.lost_calls) == (False, 1, 0)


def test_unreadable_record_does_not_lose_the_images(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a renewal without an answer the current ETag is not known, and storage does not tell it."""

    def unavailable(_: str) -> None:
        raise StorageUnavailableError("read record")

    def lose_the_answer() -> None:
        failing_saves(app, monkeypatch, [StorageUnavailableError("save record")], after=True)
        app.pass_time(31)
        monkeypatch.setattr(app.records, "read_active", unavailable)

    app.direct.during_call = lose_the_answer
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)


# --- Lost claims


def test_lost_claim_is_not_renewed(app: FakeApp, caplog: pytest.LogCaptureFixture) -> None:
    def lose_the_claim() -> None:
        take_over(app)
        app.steps.taken.clear()
        app.pass_time(200)
        assert app.keeper.renew_due() is None  # the thread ends, and does not spin

    app.direct.during_call = lose_the_claim
    app.start(DIRECT)
    app.work()
    assert app.steps.taken.count("save") == 1
    assert caplog.text.count("generation.claim_lost") == 1


def test_images_count_after_the_claim_is_lost(app: FakeApp) -> None:
    """They are paid for. The worker that took over finds the outcome, and keeps it."""

    def lose_the_claim() -> None:
        take_over(app)
        app.pass_time(31)

    app.direct.during_call = lose_the_claim
    app.start(DIRECT)
    app.work()
    assert app.read().images == (stored(0), stored(1))
    app.clock.now += changes.CALL_CLAIM
    app.direct.during_call = lambda: None
    app.settle()
    assert (app.direct.calls, app.read().status, app.records.active) == ([ID], Status.SUCCEEDED, {})
    assert app.images.blobs == {f"{ID}/0", f"{ID}/1"}


def test_later_images_do_not_replace_those_of_the_outcome(app: FakeApp) -> None:
    """Two calls were made. The second one answers after the first one has its outcome."""
    first = new(model=DIRECT, status=Status.SUCCEEDED, images=(stored(0),))

    def finish_elsewhere() -> None:
        app.records.done[ID] = first
        app.images.blobs = {f"{ID}/0"}

    app.direct.during_call = finish_elsewhere
    app.write_record(new(model=DIRECT, queued=True, lost_calls=1))
    app.worker.advance_by_id(ID, has_minutes=True)
    assert app.direct.calls == [ID]
    assert (app.records.done[ID], app.records.active, app.images.blobs) == (first, {}, {f"{ID}/0"})


@pytest.mark.parametrize("outcome", [Ended(Status.FAILED, REFUSED), Lost("status 504"), Throttled("status 429")])
def test_failure_after_a_lost_claim_changes_nothing(app: FakeApp, outcome: Ended | Lost | Throttled) -> None:
    """The other worker is in its own call, and decides."""

    def lose_the_claim() -> None:
        take_over(app)
        app.pass_time(31)

    app.direct.during_call = lose_the_claim
    app.direct.outcomes = [outcome]
    app.start(DIRECT)
    app.work()
    assert app.records.done == {}
    assert app.records.active[ID].generation.claim == "another"


# --- Outages: a living worker could not renew its claim


@pytest.mark.parametrize("noticed_by", ["timer", "queue", "keeper"])
def test_claim_is_not_taken_over_right_after_an_outage(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch, noticed_by: str
) -> None:
    def fail(*_: object) -> Any:
        raise StorageUnavailableError("storage")

    def look() -> None:
        with monkeypatch.context() as outage:
            outage.setattr(app.records, "renew", fail)
            outage.setattr(app.records, "read_active", fail)
            if noticed_by == "keeper":
                app.pass_time(100)
            app.clock.now = NOON + seconds(100)  # the claim has expired
            if noticed_by == "queue":
                with pytest.raises(StorageUnavailableError):
                    app.worker.advance_by_id(ID, has_minutes=True)
            if noticed_by == "timer":
                app.worker.note_outage()
        app.worker.advance_by_id(ID, has_minutes=True)  # the message comes again
        app.tick(seconds(20))
        assert app.direct.calls == [ID]

    app.direct.during_call = look
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.read().status, app.read().lost_calls) == ([ID], Status.SUCCEEDED, 0)


def test_claim_is_taken_over_after_the_grace_period(app: FakeApp) -> None:
    app.write_record(new(model=DIRECT, calling=True, claim="of a dead worker"))
    app.worker.note_outage()
    app.tick(seconds(29))
    assert app.queue.messages == []
    app.tick(seconds(1))
    assert app.queue.messages == [[ID]]


def test_storage_that_fails_for_ever_does_not_keep_a_dead_claim(app: FakeApp) -> None:
    app.write_record(new(model=DIRECT, calling=True, claim="of a dead worker", due=NOON))
    for _ in range(90):
        app.worker.note_outage()
        app.tick(seconds(20))
    assert app.queue.messages == [[ID]]


def test_claim_counts_from_the_end_of_the_read_before_it(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    read = app.records.read

    def slow(generation_id: str) -> Any:
        app.clock.now += seconds(95)
        return read(generation_id)

    def look() -> None:
        assert app.records.active[ID].generation.due == NOON + seconds(95 + 90)

    app.start(DIRECT)
    monkeypatch.setattr(app.records, "read", slow)
    app.direct.during_call = look
    app.work()
    assert app.direct.calls == [ID]


def test_renewal_counts_from_the_time_of_the_claim(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write of the claim took 61 s: 29 s of it are left."""
    save = app.records.save

    def slow(generation: Any, etag: str) -> str:
        app.clock.now += seconds(61)
        monkeypatch.setattr(app.records, "save", save)
        return save(generation, etag)

    def look() -> None:
        assert app.keeper.renew_due() is not None
        assert app.records.active[ID].generation.due == NOON + seconds(61 + 90)

    app.start(DIRECT)
    monkeypatch.setattr(app.records, "save", slow)
    app.direct.during_call = look
    app.work()
    assert app.direct.calls == [ID]


def test_slow_renewal_does_not_delay_the_others(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = claims(2, app.records)
    renew, renewed = app.records.renew, threading.Event()

    def block_the_first(generation: Any, etag: str) -> str:
        if generation.id == slow.generation.id:
            assert renewed.wait(10)
        else:
            renewed.set()
        return renew(generation, etag)

    monkeypatch.setattr(app.records, "renew", block_the_first)
    with app.keeper.keep(slow), app.keeper.keep(quick):
        app.pass_time(30)
    assert renewed.is_set()


# --- Writes that only this worker can make


def test_claim_whose_answer_was_lost_is_used(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.start(DIRECT)
    failing_saves(app, monkeypatch, [StorageUnavailableError("save record")] * 3, after=True)
    app.work()
    assert (app.direct.calls, app.read().status, app.read().lost_calls) == ([ID], Status.SUCCEEDED, 0)


@pytest.mark.parametrize("outcome", [Throttled("status 429", 5), Unavailable("no connection")])
def test_harmless_outcome_survives_an_outage(monkeypatch: pytest.MonkeyPatch, outcome: Throttled | Unavailable) -> None:
    app = FakeApp(repeat_lost_calls=False)
    app.direct.outcomes = [outcome, Answered((ImageBytes(b"0"),))]
    app.direct.during_call = lambda: failing_saves(
        app, monkeypatch, [StorageUnavailableError("save record")] * 5, after=False
    )
    app.start(DIRECT)
    app.work()
    app.direct.during_call = lambda: None
    app.settle()
    assert (app.direct.calls, app.read().status, app.read().lost_calls) == ([ID, ID], Status.SUCCEEDED, 0)


def test_images_survive_an_outage_at_their_outcome(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failures = app.records.write_outcome, [StorageUnavailableError("finish record")] * 5

    def fail(generation: Any) -> Any:
        if failures:
            raise failures.pop()
        return write(generation)

    monkeypatch.setattr(app.records, "write_outcome", fail)
    app.start(DIRECT)
    app.work()
    assert (app.direct.calls, app.read().status) == ([ID], Status.SUCCEEDED)


# --- Thread


class Threads:
    """Records the threads of a keeper instead of starting them."""

    def __init__(self) -> None:
        self.started: list[Callable[[], None]] = []
        self.failure: Exception | None = None

    def start(self, run: Callable[[], None]) -> None:
        if self.failure:
            raise self.failure
        self.started.append(run)


def claims(number: int, records: FakeRecords) -> list[Versioned]:
    created = [
        records.create(new(id=f"{ID[:-2]}{at:02}", calling=True, claim="a", due=NOON + seconds(90 + at // 2 * 10)))
        for at in range(number)
    ]
    return [one for one in created if one]


def test_one_thread_renews_all_claims() -> None:
    threads, clock, records = Threads(), Clock(), FakeRecords(Steps())
    keeper = ClaimKeeper(records, clock, monotonic=lambda: clock.now.timestamp(), start=threads.start)
    first, second, third = claims(3, records)
    with keeper.keep(first), keeper.keep(second):
        assert keeper.renew_due() == 30
        clock.sleep(10)
        with keeper.keep(third) as kept:
            assert len(threads.started) == 1
            clock.sleep(20)
            assert keeper.renew_due() == 10
            assert [one.generation.due for one in records.active.values()] == [clock.now + seconds(90)] * 2 + [
                NOON + seconds(100)
            ]
            assert kept.release() == third
        clock.sleep(30)
        assert keeper.renew_due() == 30
    assert keeper.renew_due() is None
    assert records.steps.taken == ["create"] * 3 + ["save"] * 4
    with keeper.keep(first):
        assert len(threads.started) == 2  # the first thread has ended


def test_keeper_recovers_from_a_thread_that_did_not_start() -> None:
    threads, clock, records = Threads(), Clock(), FakeRecords(Steps())
    keeper = ClaimKeeper(records, clock, start=threads.start)
    [claimed] = claims(1, records)
    threads.failure = RuntimeError("can't start new thread")
    with pytest.raises(RuntimeError), keeper.keep(claimed):
        pass
    threads.failure = None
    with keeper.keep(claimed):
        assert len(threads.started) == 1


def test_thread_ends_with_the_last_claim() -> None:
    """The only test with a real thread."""
    before = set(threading.enumerate())
    records = FakeRecords(Steps())
    keeper = ClaimKeeper(records, Clock())
    first, second = claims(2, records)
    with keeper.keep(first), keeper.keep(second):
        [thread] = set(threading.enumerate()) - before
    thread.join(5)
    assert not thread.is_alive()
