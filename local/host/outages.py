"""Outages of storage: the host logs each once, waits longer after each failure, and goes on. So does Azure's host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from local.host.listeners import Stop

logger = logging.getLogger(__name__)

# Seconds after the first failure, doubled after each further one.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# Statuses below 500 that a later attempt may not get.
_TEMPORARY = {408, 409, 412, 429}


class Outage:
    """Failures of one kind of storage call, one after the other."""

    def __init__(self, doing: str) -> None:
        """`doing` names the call in the log."""
        self._doing = doing
        self._pause = 0.0

    def fail(self, error: AzureError) -> float:
        """Return the seconds to wait before the next attempt. Log the first failure."""
        if not self._pause:
            logger.warning("storage failed: %s: %s. The host retries.", self._doing, first_line(error))
        self._pause = min(self._pause * 2 or _FIRST_PAUSE, _LONGEST_PAUSE)
        return self._pause

    def end(self) -> None:
        """Log that storage works again, if it failed."""
        if self._pause:
            logger.info("storage works again: %s", self._doing)
        self._pause = 0.0


async def retry[Result](
    call: Callable[[], Result],
    outage: Outage,
    stop: Stop,
    *,
    worthwhile: Callable[[float], bool] = lambda _: True,
) -> Result | None:
    """Call storage in a thread until it succeeds. None: `stop` came first, or a pause was not `worthwhile`."""
    while True:
        try:
            result = await asyncio.to_thread(call)
        except AzureError as error:
            pause = outage.fail(error)
            if not worthwhile(pause) or await stop.within(pause):
                return None
        else:
            outage.end()
            return result


def is_refusal(error: AzureError) -> bool:
    """Whether later attempts would fail too: storage rejects the call, or the connection string is wrong."""
    if isinstance(error, ClientAuthenticationError):  # without a status if the key cannot sign
        return True
    if isinstance(error, HttpResponseError) and error.status_code:
        return error.status_code < 500 and error.status_code not in _TEMPORARY
    # requests: the URL is invalid.
    return isinstance(error.inner_exception, ValueError)


def first_line(error: AzureError) -> str:
    """The message without the lines that the SDK adds."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
