"""The worker: the one place that touches Microsoft's untyped runtime."""

from __future__ import annotations

import importlib
import json
import os
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.host import messages
from local.host.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OUTPUTS = {"http", "queue"}
_TRIGGERS = {"httpTrigger", "timerTrigger", "queueTrigger"}


@dataclass(frozen=True)
class Binding:
    """One binding as the app declared it; `values` still hold %SETTING%."""

    name: str
    type: str
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Function:
    """An indexed function; there is one object for each, compared as such."""

    id: str
    name: str
    trigger: Binding
    outputs: tuple[Binding, ...]

    @property
    def queue_outputs(self) -> tuple[Binding, ...]:
        return tuple(binding for binding in self.outputs if binding.type == "queue")


class Worker:
    """A function app, indexed and ready to be invoked."""

    def __init__(self, runtime: Any, functions: tuple[Function, ...]) -> None:
        self._runtime = runtime
        self.functions = functions

    @classmethod
    async def start(cls, root: Path) -> Worker:
        """Import and index the function app of `root`.

        Raises
        ------
        ConfigurationError
            The runtime refused the app: its message and stack trace, an import that fails, a bad binding; or the
            app has a binding this host does not have.
        """
        # As in Azure: the app's folder is the current one, and first on the path.
        os.chdir(root)
        sys.path.insert(0, str(root))
        runtime: Any = importlib.import_module("azure_functions_runtime")
        runtime.start_threadpool_executor()
        await _initialize(runtime, root)
        listed: messages.FunctionMetadataResponse = await runtime.functions_metadata_request(None)
        if not listed.function_metadata_results:
            raise ConfigurationError(f"0 functions found in {root}: it needs a function_app.py that declares some")
        return cls(runtime, tuple(_function(metadata) for metadata in listed.function_metadata_results))

    async def invoke(
        self,
        function: Function,
        trigger: messages.TypedData,
        *,
        metadata: Mapping[str, messages.TypedData] | None = None,
        trace_parent: str = "",
    ) -> messages.InvocationResponse:
        """Run the function once. A function that raises is a response with a failed result, not an exception."""
        request = messages.InvocationRequest(
            invocation_id=str(uuid.uuid4()),
            function_id=function.id,
            input_data=[messages.ParameterBinding(name=function.trigger.name, data=trigger)],
            trigger_metadata=metadata or {},
            trace_context=messages.RpcTraceContext(trace_parent=trace_parent),
        )
        message = messages.StreamingMessage(invocation_request=request)
        return await self._runtime.invocation_request(messages.WorkerRequest(request=message))


async def _initialize(runtime: Any, root: Path) -> None:
    message = messages.StreamingMessage(
        worker_init_request=messages.WorkerInitRequest(function_app_directory=str(root))
    )
    response: messages.WorkerInitResponse = await runtime.worker_init_request(
        messages.WorkerRequest(request=message, properties={"host": "127.0.0.1", "protos": messages})
    )
    if response.result.status == messages.StatusResult.Success:
        return
    error = response.result.exception or messages.RpcException(message="no reason given")
    raise ConfigurationError(f"the function app cannot be loaded\n{error.stack_trace}\n{error.message}")


def _function(metadata: messages.RpcFunctionMetadata) -> Function:
    bindings = [_binding(json.loads(raw)) for raw in metadata.raw_bindings]
    for binding in bindings:
        if binding.type not in _TRIGGERS | _OUTPUTS:
            raise ConfigurationError(
                f"function {metadata.name}, binding {binding.name}: {binding.type} does not exist in the local host"
            )
    if metadata.retry_options is not None:
        raise ConfigurationError(f"function {metadata.name}: retry policies do not exist in the local host")
    return Function(
        id=metadata.function_id,
        name=metadata.name,
        trigger=next(binding for binding in bindings if binding.type in _TRIGGERS),
        outputs=tuple(binding for binding in bindings if binding.type in _OUTPUTS),
    )


def _binding(raw: Mapping[str, Any]) -> Binding:
    return Binding(name=raw["name"], type=raw["type"], values=raw)
