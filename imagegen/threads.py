"""Thread pools whose tasks keep the context of the thread that submits them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context


class ContextPool(ThreadPoolExecutor):
    """Runs each task in a copy of the submitter's context.

    The Python worker of Azure Functions finds the invocation id of a log record in a context variable, and the host
    drops records without one.
    """

    def submit[**P, R](self, task: Callable[P, R], /, *args: P.args, **options: P.kwargs) -> Future[R]:
        return super().submit(copy_context().run, task, *args, **options)
