"""The log on standard error, with the records that Azure would keep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

STORAGE_THREADS = "local.host-storage"
"""Prefix of the names of the threads that call storage for the host."""

_HOST = "local.host"
# The runtime logs as `azure.functions`; Azure keeps its records apart from those of the app.
_NOT_OF_APP = (_HOST, "uvicorn", "asyncio", "azure.functions")


class InvocationFilter(logging.Filter):
    """Replaces records without an invocation id by a report: Azure drops them.

    The Python worker finds the id in a context variable. A thread that the app starts, and a module that logs while it
    is imported, have none.
    """

    def __init__(self, invocation_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._invocation_id = invocation_id

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        if _is_within(record.name, _NOT_OF_APP):
            return True
        if (record.threadName or "").startswith(STORAGE_THREADS):
            # The host's own storage calls. The SDK logs each request, and warns of each error without a body.
            return record.levelno >= logging.ERROR
        return True if self._invocation_id() else _report(record)


def to_stderr(invocation_id: Callable[[], str | None]) -> None:
    """Log from level INFO, as Azure's worker."""
    logging.Formatter.converter = time.gmtime
    line = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(format=line, datefmt="%H:%M:%S", level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(InvocationFilter(invocation_id))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # below, it logs each connection


def _report(record: logging.LogRecord) -> logging.LogRecord:
    text = (
        f"Azure would drop a record of level {record.levelname} of the logger {record.name!r}, because it has no "
        f"invocation id: {record.pathname}:{record.lineno}"
    )
    return logging.LogRecord(_HOST, logging.WARNING, record.pathname, record.lineno, text, None, None)


def _is_within(name: str, loggers: tuple[str, ...]) -> bool:
    return any(name == logger or name.startswith(f"{logger}.") for logger in loggers)
