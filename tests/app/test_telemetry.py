"""What the app exports with OpenTelemetry on, as the exporters of the SDK get it. It is off by default."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from imagegen.app import build
from imagegen.generation import GenerationError, Status
from imagegen.open_telemetry import OpenTelemetry
from imagegen.settings import read_settings
from imagegen.telemetry import NoTelemetry, valid_traceparent
from imagegen.upstream.protocol import Answered, Ended, ImageBytes, Lost, Missing, Throttled, Unavailable, Working
from tests.app.fakes import TWO_URLS
from tests.app.generations import DIRECT, ID, OPERATION, POLLED, PROMPT, new
from tests.app.lifecycle.fake_app import KEY, FakeApp
from tests.app.test_settings import NEEDED

TRACE = "4bf92f35" * 4
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class Exported:
    """An SDK that keeps what it exports."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.telemetry = OpenTelemetry(tracers, MeterProvider([self._metrics]))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def metrics(self) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
        """The value (a sum, or a count of a histogram) and the attributes of each point."""
        found = self._metrics.get_metrics_data()
        assert found
        scopes = [scope for resource in found.resource_metrics for scope in resource.scope_metrics]
        return {
            metric.name: [
                (getattr(point, "value", None) or getattr(point, "sum", 0), dict(point.attributes or {}))
                for point in metric.data.data_points
            ]
            for scope in scopes
            for metric in scope.metrics
        }


@pytest.fixture
def exported() -> Exported:
    return Exported()


@pytest.fixture
def app(exported: Exported) -> FakeApp:
    return FakeApp(telemetry=exported.telemetry)


def trace_ids(spans: Iterable[ReadableSpan]) -> set[str]:
    return {format(span.context.trace_id, "032x") for span in spans if span.context}


def names(spans: tuple[ReadableSpan, ...]) -> Counter[str]:
    return Counter(span.name for span in spans)


def test_polled_generation_is_one_trace_of_its_caller(app: FakeApp, exported: Exported) -> None:
    app.start(traceparent=CALLER)
    app.settle()
    assert app.read().status is Status.SUCCEEDED
    start = next(span for span in exported.spans if span.name == "generation.start")
    assert names(exported.spans) == {
        "generation.start": 1,
        "upstream.submit": 1,
        "upstream.poll": 1,
        "images.copy": 1,
    }
    assert trace_ids(exported.spans) == {TRACE}
    assert start.parent
    assert start.context
    assert format(start.parent.span_id, "016x") == "00f067aa0ba902b7"
    for span in exported.spans:
        assert span is start or (span.parent and span.parent.span_id == start.context.span_id)
        assert dict(span.attributes or {})["imagegen.generation_id"] == ID
        assert dict(span.attributes or {})["gen_ai.request.model"] == POLLED


def test_trace_goes_through_the_queue(app: FakeApp, exported: Exported) -> None:
    app.start(DIRECT, traceparent=CALLER)
    app.work()
    assert names(exported.spans) == {"generation.start": 1, "upstream.call": 1, "images.copy": 1}
    assert trace_ids(exported.spans) == {TRACE}


def test_generation_without_a_caller_has_a_trace_of_its_own(app: FakeApp, exported: Exported) -> None:
    app.start(DIRECT)
    app.work()
    assert len(trace_ids(exported.spans)) == 1
    assert app.read().traceparent


def test_repeated_start_keeps_the_first_trace(app: FakeApp, exported: Exported) -> None:
    first = app.start(traceparent=CALLER, key=KEY)
    again = app.start(traceparent=CALLER.replace("4bf92f35", "00000001"), key=KEY)
    assert (again.id, again.traceparent) == (first.id, first.traceparent)
    repeated = exported.spans[-1]
    assert dict(repeated.attributes or {})["imagegen.outcome"] == "repeated"
    assert dict(repeated.attributes or {})["imagegen.generation_id"] == first.id


def test_trace_is_kept_while_telemetry_is_off() -> None:
    assert FakeApp().start(traceparent=CALLER).traceparent == CALLER


def test_failure_marks_its_span_without_its_text(app: FakeApp, exported: Exported) -> None:
    app.polled.submit_outcome = Ended(Status.FAILED, GenerationError(code="contentFilter", message=f"No: {PROMPT}"))
    app.start(traceparent=CALLER)
    submit = next(span for span in exported.spans if span.name == "upstream.submit")
    assert submit.status.status_code is StatusCode.ERROR
    assert dict(submit.attributes or {})["imagegen.outcome"] == "Ended"
    assert PROMPT not in "".join(span.to_json() for span in exported.spans)


def test_exception_marks_its_span_without_its_text(
    app: FakeApp, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(PROMPT)

    monkeypatch.setattr(app.polled, "submit", fail)
    app.start(traceparent=CALLER)
    submit = next(span for span in exported.spans if span.name == "upstream.submit")
    assert submit.status.status_code is StatusCode.ERROR
    assert PROMPT not in "".join(span.to_json() for span in exported.spans)


def test_metrics_count_outcomes_and_retries(app: FakeApp, exported: Exported) -> None:
    app.direct.outcomes = [
        Throttled("status 429", 1),
        Unavailable("status 503"),
        Lost("no answer"),
        Answered((ImageBytes(b"0"), ImageBytes(b"1")), usage={"total_tokens": 7}),
    ]
    app.start(DIRECT)
    app.settle()
    app.polled.submit_outcome = Ended(Status.FAILED, GenerationError(code="contentFilter", message="No."))
    app.start()
    exported.telemetry.note_active(3, 40)
    metrics = exported.metrics()
    assert metrics["imagegen.generations"] == [
        (1, {"model": DIRECT, "status": "succeeded", "code": ""}),
        (1, {"model": POLLED, "status": "failed", "code": "contentFilter"}),
    ]
    assert sorted(attributes["reason"] for _, attributes in metrics["imagegen.retries"]) == [
        "lost",
        "throttled",
        "unavailable",
    ]
    assert metrics["imagegen.images"][0] == (2, {"model": DIRECT})
    assert metrics["imagegen.image_bytes"][0] == (16, {"model": DIRECT})
    assert metrics["imagegen.tokens"] == [(7, {"model": DIRECT, "kind": "total_tokens"})]
    assert metrics["imagegen.active"] == [(3, {})]
    assert metrics["imagegen.oldest"] == [(40, {})]
    waiting = next(seconds for seconds, attributes in metrics["imagegen.waiting"] if attributes == {"model": DIRECT})
    working = next(seconds for seconds, attributes in metrics["imagegen.working"] if attributes == {"model": DIRECT})
    done = app.read()
    assert waiting + working == (done.last_action - done.created).total_seconds()


def test_nothing_exported_holds_a_secret(app: FakeApp, exported: Exported) -> None:
    for outcome in (Missing(), Working(None), Unavailable("https://x/?sig=s3cret"), TWO_URLS):
        app.polled.poll_outcome = outcome
        if not app.records.active:
            app.start(traceparent=CALLER)
        app.tick(app.read().due - app.clock.now)
    assert app.read().status is Status.SUCCEEDED
    text = "".join(span.to_json() for span in exported.spans) + str(exported.metrics())
    for secret in (PROMPT, app.read().token, "sig=", "s3cret", OPERATION, "https://"):
        assert secret not in text


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (CALLER, CALLER),
        (None, None),
        ("", None),
        (CALLER.upper(), None),
        (CALLER + "-x", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        ("00-1-2-3\r\nX-Injected: 1", None),
    ],
)
def test_only_a_valid_traceparent_is_kept(header: str | None, expected: str | None) -> None:
    assert valid_traceparent(header) == expected


def test_no_telemetry_keeps_the_trace_of_the_caller() -> None:
    with NoTelemetry().span("any", CALLER, model="m", generation_id="1") as span:
        span.ends_as("Working")
        assert span.traceparent == CALLER
    NoTelemetry().count_outcome(new())
    NoTelemetry().count_retry("m", "lost")
    NoTelemetry().note_active(1, None)


@pytest.mark.parametrize(("setting", "enabled"), [(None, False), ("false", False), ("true", True), ("1", True)])
def test_setting_switches_telemetry_on(monkeypatch: pytest.MonkeyPatch, setting: str | None, enabled: bool) -> None:
    # The package is not installed here.
    monkeypatch.setitem(sys.modules, "azure.monitor", ModuleType("azure.monitor"))
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry", ModuleType("azure.monitor.opentelemetry"))
    name = "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY"
    app = build(read_settings(NEEDED | ({name: setting} if setting else {})))
    assert isinstance(app.telemetry, OpenTelemetry) is enabled


def test_missing_package_is_logged_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry", None)
    app = build(read_settings(NEEDED | {"PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY": "true"}))
    assert isinstance(app.telemetry, NoTelemetry)
    assert "telemetry.missing package=azure-monitor-opentelemetry" in caplog.text


def test_app_without_telemetry_imports_none_of_it() -> None:
    script = "import function_app, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
