"""Queue outputs: what a function leaves behind in `func.Out` or returns."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from local.host.queues import Queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.host.messages import InvocationResponse, TypedData
    from local.host.runtime import Function
    from local.host.settings import HostSettings


class QueueOutputs:
    """The queues that functions write to, by function and binding."""

    def __init__(self, functions: Sequence[Function], settings: HostSettings) -> None:
        self._queues: dict[tuple[str, str], Queue] = {}
        for function in functions:
            for binding in function.queue_outputs:
                name = settings.resolve(binding.values["queueName"], function=function.name, binding=binding.name)
                connection = settings.connection_string(
                    binding.values.get("connection") or "AzureWebJobsStorage",
                    wanted_by=f"function {function.name}, binding {binding.name}",
                )
                queue = Queue(connection, name, is_base64=settings.queues.base64)
                self._queues[function.name, binding.name] = queue

    def create(self) -> None:
        """Create the queues that are missing."""
        for queue in self._queues.values():
            queue.create()

    async def send(self, function: Function, response: InvocationResponse) -> None:
        """Send what a finished invocation put out, in order."""
        for output in response.output_data:
            await self._send(function.name, output.name, output.data)
        await self._send(function.name, "$return", response.return_value)

    async def _send(self, function: str, binding: str, value: TypedData | None) -> None:
        queue = self._queues.get((function, binding))
        if queue is None or value is None:
            return
        for body in bodies(value):
            await asyncio.to_thread(queue.send, body)


def bodies(value: TypedData) -> list[str | bytes]:
    """Return the message bodies an output stands for: one, or those of a JSON list.

    A JSON object becomes a message of its text, as in the WebJobs SDK.
    """
    if value.bytes is not None:
        return [value.bytes]
    if value.json is None:
        return [value.string or ""]
    content = json.loads(value.json)
    items = cast("list[Any]", content) if isinstance(content, list) else [content]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]
