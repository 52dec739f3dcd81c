"""Singletons: a blob lease that one host holds while its listener runs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient, BlobLeaseClient

from local.host.logs import logger
from local.host.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The shortest lease there is. Azure takes 60 s; here a killed host's timer should not stand still for a minute.
DURATION = 15
_RENEWAL = 5.0
_RETRY = 1.0


class Lease:
    """A lease on one blob. All calls block."""

    def __init__(self, blob: BlobClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._blob = blob
        self._client = BlobLeaseClient(blob)
        self._clock = clock
        self._until = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease is surely ours. A host that was suspended knows by its own clock that it is not."""
        return self._clock() < self._until

    def acquire(self) -> bool:
        """Take the lease; False if another host has it."""
        asked = self._clock()
        self._create_blob()
        try:
            self._client.acquire(lease_duration=DURATION)
        except HttpResponseError as error:
            if error.status_code == 409:
                return False
            raise
        self._until = asked + DURATION
        return True

    def renew(self) -> bool:
        """Keep the lease; False if it was lost to another host."""
        asked = self._clock()
        try:
            self._client.renew()
        except HttpResponseError as error:
            # 409: leased by another; 404: the blob is gone, and the lease with it.
            if error.status_code in {404, 409, 412}:
                self._until = 0.0
                return False
            raise
        self._until = asked + DURATION
        return True

    def release(self) -> None:
        self._until = 0.0
        self._client.release()

    def _create_blob(self) -> None:
        try:
            self._blob.upload_blob(b"", overwrite=False)
        except ResourceExistsError:
            return
        except HttpResponseError as error:
            if error.status_code != 412:  # exists, and is leased
                raise


async def hold(lease: Lease, listen: Callable[[Stop], Awaitable[None]], stop: Stop) -> None:
    """Run `listen` whenever and only while the lease is ours, until told to stop.

    `listen` is told to stop when the lease is lost. The lease is renewed until it has returned, so that a function
    still running keeps the other hosts away.
    """
    while not stop.is_set():
        if not await _try(lease.acquire):
            await stop.within(_RETRY)
            continue
        over = Stop()
        listening = asyncio.ensure_future(listen(over))
        await _renew_while(listening, lease, over, stop)
        await listening
        if lease.held:
            await _try(lease.release)


async def _renew_while(listening: asyncio.Future[None], lease: Lease, over: Stop, stop: Stop) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    while not listening.done():
        watched = {listening} if over.is_set() else {listening, stopping}
        await asyncio.wait(watched, timeout=_RENEWAL, return_when=asyncio.FIRST_COMPLETED)
        # One renewal that fails is not yet a lost lease: its time may not be over.
        renewed = not listening.done() and await _try(lease.renew)
        if stop.is_set() or not (renewed or lease.held):
            over.set()
    stopping.cancel()


async def _try(call: Callable[[], bool | None]) -> bool:
    try:
        return await asyncio.to_thread(call) is not False
    except AzureError as error:
        logger.warning("a lock in azure-webjobs-hosts: %s", str(error).splitlines()[0])
        return False
