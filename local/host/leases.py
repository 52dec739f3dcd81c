"""Singletons: a blob lease that only one host holds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobClient, BlobLeaseClient

from local.host.listeners import Stop
from local.host.outages import Outage, first_line

logger = logging.getLogger(__name__)

# Storage's minimum. Azure uses 60 s, but here the timer of a killed host should not pause for a minute.
DURATION = 15
_RENEWAL = 5.0
_RETRY = 1.0


class Lease:
    """A lease on one blob."""

    def __init__(self, blob: BlobClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._blob = blob
        self._client = BlobLeaseClient(blob)
        self._clock = clock
        self._held_until = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease is certainly held: a suspended process sees by its own clock that it expired."""
        return self._clock() < self._held_until

    async def keep(self, stop: Stop) -> None:
        """Acquire the lease and renew it until `stop`, then release it. Acquire it again whenever it is lost."""
        outage = Outage(f"lease {self._blob.blob_name}")
        while not stop.is_set():
            try:
                held = await asyncio.to_thread(self.acquire)
            except AzureError as error:
                # Harmless for a short outage: the lease is held until its duration ends.
                await stop.within(outage.fail(error))
            else:
                outage.end()
                await stop.within(_RENEWAL if held else _RETRY)
        if self.held:
            await self._release()

    def acquire(self) -> bool:
        """Acquire or renew the lease. False: another host holds it. Blocks."""
        started = self._clock()
        if not self.held:
            self._create_blob()
        try:
            # An acquire with the lease's own id renews it.
            self._client.acquire(lease_duration=DURATION)
        except HttpResponseError as error:
            if error.status_code not in {404, 409}:  # deleted, or held by another host
                raise
            self._held_until = 0.0
            return False
        self._held_until = started + DURATION
        return True

    def release(self) -> None:
        self._held_until = 0.0
        self._client.release()

    def _create_blob(self) -> None:
        try:
            self._blob.upload_blob(b"", overwrite=False)
        except HttpResponseError as error:
            if error.status_code not in {409, 412}:  # the blob exists; or it exists and is leased
                raise

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(self.release)
        except AzureError as error:
            # Harmless: it expires.
            logger.warning("the lease on %s cannot be released: %s", self._blob.blob_name, first_line(error))
