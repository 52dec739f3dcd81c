"""The composition root: settings in, everything that a trigger needs out."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import uuid_utils

from imagegen.events import log_event
from imagegen.lifecycle.changes import COPY_SECONDS_EACH
from imagegen.lifecycle.early_ticks import EarlyTicks
from imagegen.lifecycle.generations import Generations
from imagegen.lifecycle.live_slot import LiveSlot, SlotMark
from imagegen.lifecycle.pacing import Pacer
from imagegen.lifecycle.poller import Poller, SlotSummary, slot_end
from imagegen.lifecycle.ports import ANY_TURN, Member, Ports, Turn
from imagegen.lifecycle.quotas import Quotas
from imagegen.lifecycle.worker import Worker
from imagegen.settings import Settings, invalid_settings, read_settings
from imagegen.storage.clients import open_storage
from imagegen.storage.download import Downloader
from imagegen.storage.images import BlobImages
from imagegen.storage.listing import BlobListing
from imagegen.storage.live_slot import BlobLiveSlot
from imagegen.storage.records import BlobRecords
from imagegen.storage.throttling import Throttling
from imagegen.storage.work_queue import CALLS_QUEUE, POLLS_QUEUE, SLOTS_QUEUE, SlotQueue, WorkQueue, read_message
from imagegen.telemetry import NoTelemetry, Telemetry
from imagegen.threads import ContextPool
from imagegen.upstream.protocol import Direct, Upstream
from imagegen.upstream.registry import open_upstream
from imagegen.web.health import HealthRoute
from imagegen.web.legacy import LegacyRoutes
from imagegen.web.model_list import ModelListRoute
from imagegen.web.monitor import Monitors
from imagegen.web.openapi import OpenApiRoute
from imagegen.web.routes import Routes

THREADS = 16
"""Generations that one instance advances at the same time. They mostly wait for the network."""


@dataclass(frozen=True, slots=True)
class App:
    """One app, with all its parts connected."""

    settings: Settings
    routes: Routes
    legacy: LegacyRoutes
    health: HealthRoute
    models: ModelListRoute
    openapi: OpenApiRoute
    poller: Poller
    live_slot: LiveSlot
    generations: Generations
    worker: Worker
    telemetry: Telemetry

    def poll(self) -> SlotSummary:
        """Run the timer's slot: until just before its next tick, or until no work is left."""
        ends = slot_end(self.settings.poll_schedule, utc_now())
        return self._run_slot(ends, SlotMark(self.live_slot, ends))

    def poll_early(self) -> SlotSummary | None:
        """Run a slot that a start asked for, as `poll`. None when one is live, which sees the work of that start."""
        now = utc_now()
        ends = slot_end(self.settings.poll_schedule, now)
        mark = SlotMark(self.live_slot, ends)
        return self._run_slot(ends, mark) if mark.claim(now) else None

    def _run_slot(self, ends: datetime, mark: SlotMark) -> SlotSummary:
        summary = self.poller.run(ends, mark)
        self.telemetry.note_active(summary.left, summary.oldest_seconds)
        return summary

    def call(self, message: str | bytes) -> None:
        """Advance the generations of a message in the queue of calls, which may take minutes.

        Raises
        ------
        ValueError
            When the message does not name generations. A retry does not help; it ends in the poison queue.
        StorageUnavailableError
            When storage does not answer. The message comes again.
        """
        work = read_message(message)
        for generation_id in work.ids:
            self.worker.advance_by_id(generation_id, has_minutes=True, turn=work.turn)

    def poll_some(self, message: str | bytes) -> None:
        """Advance the generations of a message that the timer passed on. Raises as `call`.

        A call among them gets a message of its own in the queue of calls.
        """
        ids = read_message(message).ids
        with ContextPool(THREADS, "work") as pool:
            for _ in pool.map(partial(self.worker.advance_by_id, has_minutes=False, turn=ANY_TURN), ids):
                pass


def utc_now() -> datetime:
    """The time in whole milliseconds, as records store it: a time that is read back equals the one written."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1_000 * 1_000)


def new_generation_id(now: datetime) -> str:
    """A UUIDv7 of that moment."""
    return str(uuid_utils.uuid7(nanoseconds=int(now.timestamp() * 1_000) * 1_000_000))


def build(settings: Settings) -> App:
    """Connect all parts for these settings. Opens no connection yet.

    Raises
    ------
    SettingsError
        When deployments with one name are of different models.
    """
    storage = open_storage(settings, connections=THREADS)
    records = BlobRecords(storage, settings.generations_container)
    images = BlobImages(
        storage,
        settings.images_container,
        downloader=Downloader(
            allowed_hosts=settings.image_url_allowed_hosts,
            endpoints=[deployment.endpoint for deployment in settings.deployments],
            connections=THREADS,
            seconds=COPY_SECONDS_EACH,
        ),
        limit=settings.max_image_bytes,
        link_lifetime=timedelta(seconds=settings.sas_lifetime_seconds),
        clock=utc_now,
    )
    models = open_models(settings)
    upstreams = {name: members[0].upstream for name, members in models.items()}
    throttling = Throttling(storage, settings.generations_container)
    telemetry = open_telemetry(settings)
    calls = WorkQueue(settings, CALLS_QUEUE, connections=THREADS)
    live_slot = BlobLiveSlot(storage, settings.generations_container)
    early_ticks = EarlyTicks(
        live_slot,
        SlotQueue(settings, SLOTS_QUEUE, connections=THREADS),
        schedule=settings.poll_schedule,
        clock=utc_now,
    )
    ports = Ports(
        records=records,
        images=images,
        throttling=throttling,
        queue=calls,
        clock=utc_now,
        repeat_lost_calls=settings.repeat_lost_calls,
        models=models,
        telemetry=telemetry,
        request_slot=early_ticks.request,
    )
    worker = Worker(ports)
    generations = Generations(ports, worker, new_id=new_generation_id, most_active=settings.max_active_generations)
    retention = timedelta(days=settings.retention_days)
    monitors = Monitors(
        links=images,
        retention=retention,
        clock=utc_now,
        backlog=records.count_active,
        waiting=records.count_waiting,
        throttling=Quotas(ports),
        models=upstreams.keys(),
    )
    return App(
        settings=settings,
        routes=Routes(
            settings=settings,
            generations=generations,
            records=records,
            listing=BlobListing(storage, settings.generations_container, records, threads=THREADS),
            monitors=monitors,
            clock=utc_now,
        ),
        legacy=LegacyRoutes(
            settings=settings,
            generations=generations,
            records=records,
            links=images,
            monitors=monitors,
            retention=retention,
        ),
        health=HealthRoute(
            settings=settings,
            storage=records,
            links=images,
            upstreams=[[member.upstream for member in members] for members in models.values()],
            monotonic=time.monotonic,
        ),
        models=ModelListRoute(settings.deployments, upstreams),
        openapi=OpenApiRoute(settings),
        poller=Poller(
            records=records,
            advance=worker.advance,
            clock=utc_now,
            queue=WorkQueue(settings, POLLS_QUEUE, connections=THREADS),
            turns=Pacer(ports, send=partial(_send_turn, upstreams, calls)),
            threads=THREADS,
            most=settings.max_due_per_instance,
            on_outage=worker.note_outage,
        ),
        live_slot=live_slot,
        generations=generations,
        worker=worker,
        telemetry=telemetry,
    )


def open_models(settings: Settings) -> dict[str, list[Member]]:
    """The deployments of each model, by its name. Opens no connection yet. Raises as `build`."""
    names = Counter(deployment.name for deployment in settings.deployments)
    models: dict[str, list[Member]] = {}
    problems: list[str] = []
    for number, deployment in enumerate(settings.deployments):
        upstream = open_upstream(
            deployment,
            allowed_origins=settings.operation_location_allowed_origins,
            max_image_bytes=settings.max_image_bytes,
            connections=THREADS,
        )
        address = deployment.address if names[deployment.name] > 1 else None
        key = f"{deployment.name}@{address}" if address else deployment.name
        member = Member(address, key, upstream, deployment.requests_per_minute)
        members = models.setdefault(deployment.name, [])
        members.append(member)
        # A request is checked against the limits of the first.
        if upstream.limits != members[0].upstream.limits:
            problems.append(
                f"IMAGE_DEPLOYMENTS.{number}.deployment: accepts other requests than another entry with the same name, "
                "by its name and API version. Entries with one name are a pool of one model. Use a deployment of that "
                "model, which is named after it, or change the name of the entry."
            )
    if problems:
        raise invalid_settings(problems)
    return models


def _send_turn(upstreams: Mapping[str, Upstream], calls: WorkQueue, model: str, generation_id: str, turn: Turn) -> bool:
    """Give a generation its turn by a message, if its model is called for minutes."""
    if not isinstance(upstreams.get(model), Direct):
        return False
    calls.send([generation_id], turn)
    return True


def open_telemetry(settings: Settings) -> Telemetry:
    if not settings.telemetry:
        return NoTelemetry()
    try:
        # The exporter, which the worker has configured. Imported only by an app that wants it: it costs a cold start.
        importlib.import_module("azure.monitor.opentelemetry")
        from imagegen.open_telemetry import OpenTelemetry
    except ImportError:
        log_event("telemetry.missing", level=logging.ERROR, package="azure-monitor-opentelemetry")
        return NoTelemetry()
    return OpenTelemetry()


@cache
def current_app() -> App:
    """The app of this process, built at its first use.

    Raises
    ------
    SettingsError
        Each time, until the settings are valid. An answer that names the problems is better than an app that fails to
        import: Azure shows such an app without functions, and without a reason.
    """
    return build(read_settings(os.environ))
