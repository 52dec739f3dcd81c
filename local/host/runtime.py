"""The worker: the only module that calls Microsoft's untyped runtime."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from local.host import bindings, messages
from local.host.bindings import HttpOutput, Trigger
from local.host.messages import StatusResult, TypedData
from local.host.settings import ConfigurationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Function:
    id: str
    name: str
    trigger: Trigger

    @property
    def where(self) -> str:
        """The place that an error message names."""
        return f"function {self.name}, binding {self.trigger.name}"


@dataclass(frozen=True)
class Outcome:
    """The end of an invocation."""

    succeeded: bool
    value: TypedData | None = None
    """The return value of the function."""


class Worker:
    """A function app that is indexed and can be invoked."""

    def __init__(self, runtime: Any, root: Path, functions: tuple[Function, ...]) -> None:
        self._runtime = runtime
        self._root = root
        self.functions = functions
        self.running = 0
        """Invocations in progress."""

    @classmethod
    async def start(cls, root: Path) -> Worker:
        """Import and index the function app in `root`."""
        # As in Azure: the app's folder is the current one, and the first on the path.
        os.chdir(root)
        sys.path.insert(0, str(root))
        runtime: Any = importlib.import_module("azure_functions_runtime")
        runtime.start_threadpool_executor()
        await _initialize(runtime, root)
        listed: messages.FunctionMetadataResponse = await runtime.functions_metadata_request(None)
        if not listed.function_metadata_results:
            raise ConfigurationError(f"0 functions found in {root}. Declare them in function_app.py.")
        return cls(runtime, root, tuple(_function(metadata) for metadata in listed.function_metadata_results))

    async def invoke(
        self, function: Function, data: TypedData, *, reason: str, metadata: Mapping[str, TypedData] | None = None
    ) -> Outcome:
        """Invoke the function and log the result. A function that raises is an outcome, not an exception.

        `reason` is logged, so it must not contain a query string: that may hold a capability token.
        """
        request = SimpleNamespace(
            invocation_id=str(uuid.uuid4()),
            function_id=function.id,
            input_data=[messages.ParameterBinding(name=function.trigger.name, data=data)],
            trigger_metadata=metadata or {},
            trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )
        message = SimpleNamespace(request=SimpleNamespace(invocation_request=request))
        started = time.perf_counter()
        self.running += 1
        # For async functions. The runtime sets it in the thread of a function that is not async.
        token = self._runtime.invocation_id_cv.set(request.invocation_id)
        try:
            response: messages.InvocationResponse = await self._runtime.invocation_request(message)
        finally:
            self._runtime.invocation_id_cv.reset(token)
            self.running -= 1
        milliseconds = (time.perf_counter() - started) * 1000
        if response.result.status != StatusResult.Success:
            error = response.result.exception or messages.RpcException()
            cause = f": {error.message}" if self._is_of_app(error) else f"\n{error.stack_trace or error.message}"
            logger.error("%s (%s) failed %d ms%s", function.name, reason, milliseconds, cause)
            return Outcome(succeeded=False)
        http = response.return_value and response.return_value.http
        result = f"ok {http.status_code}" if http else "ok"
        logger.info("%s (%s) %s %d ms", function.name, reason, result, milliseconds)
        return Outcome(succeeded=True, value=response.return_value)

    def _is_of_app(self, error: messages.RpcException) -> bool:
        """Whether the app defines the exception. Then it raised it on purpose, and the message says enough."""
        first_line = error.message.partition("\n")[0].rstrip(": ")
        qualified = re.search(rf"^(\w+)(?:\.\w+)*\.{re.escape(first_line)}", error.stack_trace, re.MULTILINE)
        module = qualified and sys.modules.get(qualified[1])
        file = Path(getattr(module, "__file__", None) or "")
        return file.is_relative_to(self._root) and "site-packages" not in file.parts


def current_invocation_id() -> str | None:
    """Return the id of the invocation that this thread works for."""
    runtime: Any = importlib.import_module("azure_functions_runtime")
    return runtime.invocation_id_cv.get()


async def _initialize(runtime: Any, root: Path) -> None:
    request = SimpleNamespace(function_app_directory=str(root), capabilities={})
    response: messages.WorkerInitResponse = await runtime.worker_init_request(
        SimpleNamespace(
            request=SimpleNamespace(worker_init_request=request),
            properties={"host": "127.0.0.1", "protos": messages},
        )
    )
    if response.result.status != StatusResult.Success:
        error = response.result.exception or messages.RpcException(message="the runtime gives no reason")
        raise ConfigurationError(f"the function app cannot be loaded.\n{error.stack_trace}\n{error.message}")


def _function(metadata: messages.RpcFunctionMetadata) -> Function:
    if metadata.retry_options is not None:
        raise ConfigurationError(f"function {metadata.name}: the local host does not support retry policies")
    declared = [bindings.read(metadata.name, text) for text in metadata.raw_bindings]
    trigger = next(binding for binding in declared if not isinstance(binding, HttpOutput))
    return Function(metadata.function_id, metadata.name, trigger)
