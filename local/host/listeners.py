"""What the host asks of everything that starts functions by itself."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Stop(asyncio.Event):
    """A request to end, set once."""

    async def within(self, seconds: float) -> bool:
        """Wait for the request, at most this long. Return whether it was made."""
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            return False


class Listener(Protocol):
    """A timer or a queue that invokes one function."""

    description: str

    def prepare(self) -> None:
        """Create the missing container or queue. Blocks."""
        ...

    async def run(self, stop: Stop) -> None:
        """Invoke the function until `stop`. Return when its last invocation has ended."""
        ...
