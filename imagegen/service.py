"""The house put together: settings in, everything that a trigger needs out."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import uuid_utils

from imagegen.api import Api
from imagegen.compat import CompatApi
from imagegen.download import Downloader
from imagegen.health import Health
from imagegen.images import BlobImages
from imagegen.lifecycle import Lifecycle
from imagegen.listing import BlobListing
from imagegen.monitor import Monitors
from imagegen.moves import COPY_SECONDS_EACH
from imagegen.openapi import OpenApi
from imagegen.polling import Poller, SlotSummary, slot_end
from imagegen.settings import Settings, read_settings
from imagegen.storage import open_storage
from imagegen.store import BlobStore
from imagegen.upstream.operations import OperationsUpstream

THREADS = 16
"""Generations that one instance advances at once. They wait for the network, nearly all of the time."""


@dataclass(frozen=True, slots=True)
class Service:
    """One app, wired."""

    settings: Settings
    api: Api
    compat: CompatApi
    health: Health
    openapi: OpenApi
    poller: Poller

    def poll(self) -> SlotSummary:
        """Work until just before the timer's next tick, or until nothing is left."""
        return self.poller.run(slot_end(self.settings.poll_schedule, utc_now()))


def utc_now() -> datetime:
    """Of whole milliseconds, as records write it: one that is read back equals the one that was written."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1_000 * 1_000)


def new_generation_id(now: datetime) -> str:
    """A UUIDv7 of that moment."""
    return str(uuid_utils.uuid7(nanoseconds=int(now.timestamp() * 1_000) * 1_000_000))


def build(settings: Settings) -> Service:
    """Everything for these settings. Opens no connection yet."""
    storage = open_storage(settings, connections=THREADS)
    store = BlobStore(storage, settings.generations_container)
    images = BlobImages(
        storage,
        settings.images_container,
        downloader=Downloader(
            allowed_hosts=settings.image_url_allowed_hosts,
            endpoint=settings.endpoint,
            connections=THREADS,
            seconds=COPY_SECONDS_EACH,
        ),
        limit=settings.max_image_bytes,
        link_lifetime=timedelta(seconds=settings.sas_lifetime_seconds),
        clock=utc_now,
    )
    upstream = OperationsUpstream(
        settings.default_deployment,
        allowed_origins=settings.operation_location_allowed_origins,
        connections=THREADS,
    )
    lifecycle = Lifecycle(
        store=store,
        images=images,
        upstream=upstream,
        clock=utc_now,
        new_id=new_generation_id,
        most_active=settings.max_active_generations,
    )
    retention = timedelta(days=settings.retention_days)
    return Service(
        settings=settings,
        api=Api(
            settings=settings,
            generations=lifecycle,
            records=store,
            listing=BlobListing(storage, settings.generations_container, store, threads=THREADS),
            monitors=Monitors(links=images, retention=retention),
            clock=utc_now,
        ),
        compat=CompatApi(settings=settings, generations=lifecycle, records=store, links=images, retention=retention),
        health=Health(settings=settings, store=store, upstream=upstream, monotonic=time.monotonic),
        openapi=OpenApi(settings),
        poller=Poller(store=store, lifecycle=lifecycle, clock=utc_now, threads=THREADS),
    )


@cache
def service() -> Service:
    """The service of this process, built at its first use.

    Raises
    ------
    SettingsError
        Each time, until the settings are mended: an answer that names them beats an app without functions, which is
        all that Azure shows of an app that fails to import.
    """
    return build(read_settings(os.environ))
