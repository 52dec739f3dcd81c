"""Telemetry through the OpenTelemetry API. The Python worker of Azure Functions configures the SDK and the exporter."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from imagegen.generation import Generation, StoredImage
from imagegen.telemetry import Retry, Span

_NAME: Final = "imagegen"
_TOKENS: Final = frozenset({"input_tokens", "output_tokens", "total_tokens"})
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
        self.traceparent = carrier.get("traceparent")

    def ends_as(self, outcome: str, *, failed: bool = False, generation_id: str | None = None) -> None:
        self._span.set_attribute("imagegen.outcome", outcome)
        if generation_id:
            self._span.set_attribute("imagegen.generation_id", generation_id)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))


class OpenTelemetry:
    """Spans and metrics of the app. Thread-safe.

    Parameters
    ----------
    tracers, meters
        The providers; None: the global ones, which the worker configures.
    """

    def __init__(
        self, tracers: trace.TracerProvider | None = None, meters: metrics.MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracers)
        meter = metrics.get_meter(_NAME, meter_provider=meters)
        self._generations = meter.create_counter("imagegen.generations", "{generation}", "Generations that ended")
        self._waiting = meter.create_histogram("imagegen.waiting", "s", "From the start to the first call or submit")
        self._working = meter.create_histogram("imagegen.working", "s", "From the first call or submit to the end")
        self._images = meter.create_counter("imagegen.images", "{image}", "Images stored")
        self._bytes = meter.create_counter("imagegen.image_bytes", "By", "Bytes of the images stored")
        self._tokens = meter.create_counter("imagegen.tokens", "{token}", "Tokens that the service counted")
        self._retries = meter.create_counter("imagegen.retries", "{retry}", "Repeated calls, submits and polls")
        self._active = meter.create_gauge("imagegen.active", "{generation}", "Active generations")
        self._oldest = meter.create_gauge("imagegen.oldest", "s", "Age of the oldest active generation")

    @contextmanager
    def span(
        self, name: str, parent: str | None, *, model: str | None = None, generation_id: str | None = None
    ) -> Generator[Span]:
        attributes = {"imagegen.generation_id": generation_id, "gen_ai.request.model": model}
        # An empty context: the parent is the one in the record, not what runs on this thread. And no recorded
        # exceptions: their messages may hold a prompt or a URL.
        with self._tracer.start_as_current_span(
            name,
            _PROPAGATOR.extract({"traceparent": parent} if parent else {}, Context()),
            SpanKind.INTERNAL,
            {key: value for key, value in attributes.items() if value is not None},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _Span(span)
            except BaseException:
                span.set_status(Status(StatusCode.ERROR))
                raise

    def count_outcome(self, generation: Generation) -> None:
        model = {"model": generation.request.model or ""}
        code = generation.error.code if generation.error else ""
        self._generations.add(1, {**model, "status": generation.status.value, "code": code})
        began = generation.submitted or generation.last_action
        self._waiting.record((began - generation.created).total_seconds(), model)
        self._working.record((generation.last_action - began).total_seconds(), model)
        stored = [image for image in generation.images if isinstance(image, StoredImage)]
        self._images.add(len(stored), model)
        self._bytes.add(sum(image.content_length for image in stored), model)
        # Only the known kinds: each other word of a faulty service would be a new time series.
        for kind in _TOKENS & (generation.usage or {}).keys():
            self._tokens.add((generation.usage or {})[kind], {**model, "kind": kind})

    def count_retry(self, model: str | None, retry: Retry) -> None:
        self._retries.add(1, {"model": model or "", "reason": retry})

    def note_active(self, count: int, oldest_seconds: int | None) -> None:
        self._active.set(count)
        self._oldest.set(oldest_seconds or 0)
