"""The context of an invocation on the threads that work for it: Azure drops log records without an invocation id."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar

import pytest

from imagegen.errors import StorageUnavailableError
from imagegen.generation import Versioned
from imagegen.threads import ContextPool
from tests.app.generations import DIRECT, ID, new
from tests.app.lifecycle.fake_app import FakeApp
from tests.app.lifecycle.test_poller import PollerApp

INVOCATION: ContextVar[str | None] = ContextVar("invocation", default=None)


def test_each_task_has_its_own_copy_of_the_context() -> None:
    def leave(value: str) -> str | None:
        found = INVOCATION.get()
        INVOCATION.set(value)
        return found

    INVOCATION.set("one")
    with ContextPool(1) as pool:
        assert list(pool.map(leave, ["a", "b"])) == ["one", "one"]
        INVOCATION.set("two")
        assert pool.submit(leave, "c").result() == "two"
    assert INVOCATION.get() == "two"


def test_poller_advances_in_the_context_of_its_slot() -> None:
    app = PollerApp()
    app.add(1)
    seen: list[tuple[str | None, bool]] = []

    def note(current: Versioned) -> None:
        seen.append((INVOCATION.get(), threading.current_thread() is threading.main_thread()))
        del app.active[current.generation.id]

    app.on_advance = note
    INVOCATION.set("the slot")
    app.run()
    assert seen == [("the slot", False)]


def test_renewal_runs_in_the_context_of_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread renews the claims of all invocations."""
    app = FakeApp()
    claims = [app.write_record(new(model=DIRECT, id=f"{ID[:-1]}{name}")) for name in "12"]
    seen: list[str | None] = []

    def save(*_: object) -> str:
        seen.append(INVOCATION.get())
        raise StorageUnavailableError

    monkeypatch.setattr(app.records, "save", save)
    INVOCATION.set("first")
    with app.keeper.keep(claims[0]):
        INVOCATION.set("second")
        with app.keeper.keep(claims[1]):
            INVOCATION.set(None)
            app.pass_time(31)
    assert sorted(map(str, seen)) == ["first", "second"]


@pytest.mark.parametrize("name", ["azure.core.pipeline.policies.http_logging_policy", "azure.identity"])
def test_azure_sdk_logs_no_requests(name: str) -> None:
    assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert logging.getLogger(name).isEnabledFor(logging.WARNING)
