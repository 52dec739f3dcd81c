"""Running a function once: call it, send its outputs, log one line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from local.host.logs import logger
from local.host.messages import StatusResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local.host.messages import InvocationResponse, TypedData
    from local.host.outputs import QueueOutputs
    from local.host.runtime import Function, Worker


@dataclass(frozen=True)
class Outcome:
    succeeded: bool
    value: TypedData | None = None
    """What the function returned."""

    @property
    def status(self) -> str:
        """The HTTP status of a response, else nothing."""
        return self.value.http.status_code if self.value and self.value.http else ""


class Invoker:
    """Invokes functions and counts those that are running."""

    def __init__(self, worker: Worker, outputs: QueueOutputs) -> None:
        self._worker = worker
        self._outputs = outputs
        self.running = 0

    async def invoke(
        self,
        function: Function,
        trigger: TypedData,
        *,
        reason: str,
        metadata: Mapping[str, TypedData] | None = None,
        trace_parent: str = "",
    ) -> Outcome:
        """Run the function and then send its queue outputs: as in Azure, a failed function sends none.

        `reason` is logged: never a query string, it may hold a capability token.
        """
        started = time.perf_counter()
        self.running += 1
        try:
            response = await self._worker.invoke(function, trigger, metadata=metadata, trace_parent=trace_parent)
            outcome = await self._outcome(function, response)
        finally:
            self.running -= 1
        result = "ok" if outcome.succeeded else "failed"
        words = " ".join(word for word in (result, outcome.status) if word)
        logger.info("%s (%s) %s %d ms", function.name, reason, words, (time.perf_counter() - started) * 1000)
        return outcome

    async def _outcome(self, function: Function, response: InvocationResponse) -> Outcome:
        if response.result.status != StatusResult.Success:
            error = response.result.exception
            logger.error("%s raised\n%s", function.name, error.stack_trace or error.message if error else "")
            return Outcome(succeeded=False)
        try:
            await self._outputs.send(function, response)
        except AzureError:
            logger.exception("%s succeeded, but its output could not be sent: the invocation failed", function.name)
            return Outcome(succeeded=False)
        return Outcome(succeeded=True, value=response.return_value)
