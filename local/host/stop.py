"""The sign that something should end."""

from __future__ import annotations

import asyncio


class Stop(asyncio.Event):
    """Set once; everything that waits, waits on it too."""

    async def within(self, seconds: float) -> bool:
        """Wait that long, or less if told to stop. Returns whether told to stop."""
        try:
            async with asyncio.timeout(seconds):
                return await self.wait()
        except TimeoutError:
            return False
