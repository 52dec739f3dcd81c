"""Traces and metrics. Off by default: then nothing is recorded, and OpenTelemetry is not imported.

Spans and metrics hold ids, models, statuses and counts: no prompt, key, token, link or URL.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Literal, Protocol

from imagegen.generation import Generation

type Retry = Literal["throttled", "unavailable", "missing", "lost"]
"""Why work on a generation is repeated."""

_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def valid_traceparent(header: str | None) -> str | None:
    """A W3C ``traceparent`` of version 00, else None."""
    return header if header and _TRACEPARENT.fullmatch(header) else None


class Span(Protocol):
    """A piece of work in a trace."""

    traceparent: str | None
    """The W3C ``traceparent`` that makes later work a child of this span. None when there is no trace."""

    def ends_as(self, outcome: str, *, failed: bool = False, generation_id: str | None = None) -> None:
        """Note how the work ended, and for which generation if that was not known before."""
        ...


class Telemetry(Protocol):
    """What the app reports in addition to its log."""

    def span(
        self, name: str, parent: str | None, *, model: str | None = None, generation_id: str | None = None
    ) -> AbstractContextManager[Span]:
        """Record the work inside. `parent` is a ``traceparent``; None begins a trace."""
        ...

    def count_outcome(self, generation: Generation) -> None:
        """Count a generation that ended, with its times, images, bytes and tokens."""
        ...

    def count_retry(self, model: str | None, retry: Retry) -> None: ...

    def note_active(self, count: int, oldest_seconds: int | None) -> None:
        """Note the number of active generations, and the age of the oldest."""
        ...


class _NoSpan:
    def __init__(self, parent: str | None) -> None:
        self.traceparent = parent

    def ends_as(self, outcome: str, *, failed: bool = False, generation_id: str | None = None) -> None:
        """Record nothing."""


class NoTelemetry:
    """Telemetry that is off. It keeps the caller's trace, so that switching it on needs no new generation."""

    @contextmanager
    def span(
        self,
        name: str,  # noqa: ARG002
        parent: str | None,
        *,
        model: str | None = None,  # noqa: ARG002
        generation_id: str | None = None,  # noqa: ARG002
    ) -> Generator[Span]:
        yield _NoSpan(parent)

    def count_outcome(self, generation: Generation) -> None:
        """Record nothing."""

    def count_retry(self, model: str | None, retry: Retry) -> None:
        """Record nothing."""

    def note_active(self, count: int, oldest_seconds: int | None) -> None:
        """Record nothing."""
