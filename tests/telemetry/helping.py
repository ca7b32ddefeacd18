"""What tests of telemetry share: OpenTelemetry in memory, and infos that tell all there is to tell."""

import asyncio
import functools

import msgspec
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from polyvox.config import Settings
from polyvox.telemetry import OpenTelemetry
from polyvox.types import Message, Request, Response, Text

KEY = "sk-canary-3f9a1c7e5b2d4860"


class Info(msgspec.Struct, frozen=True):
    """What an engine may tell of a call."""

    request: object
    deployment: str = "acme/m-1"
    attempt: int = 0
    response: object = None
    error: object = None
    call: str = ""
    stream: bool = False
    operation: str = "chat"
    provider: str = ""
    model: str = ""
    first_token: float | None = None
    seconds: float | None = None
    base_url: str | None = None
    session: str | None = None
    own_cache: bool | None = None
    usage: object = None
    cost: object = None


def asked(text="hello", **more):
    return Request("m-1", (Message("user", (Text(text),)),), **more)


def answered(text="hi", reason="stop", **more):
    return Response(Message("assistant", (Text(text),)), reason, **more)


class Observed:
    """Calls told to OpenTelemetry, and what came of them."""

    def __init__(self, processor=None, sampler=None, **options):
        self.exporter = InMemorySpanExporter()
        self.tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer.add_span_processor(processor or SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter = MeterProvider([self.reader], shutdown_on_exit=False)
        self.records = InMemoryLogRecordExporter()
        self.logger = LoggerProvider(shutdown_on_exit=False)
        self.logger.add_log_record_processor(SimpleLogRecordProcessor(self.records))
        self.hook = OpenTelemetry(
            tracer_provider=self.tracer, meter_provider=self.meter, logger_provider=self.logger, **options
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hook.close()
        self.logger.shutdown()
        self.meter.shutdown()
        self.tracer.shutdown()

    def call(self, begin, **end):
        """One call, told from its start to its end; gives its span."""
        self.hook.on_call(begin)
        self.hook.on_done(msgspec.structs.replace(begin, **end))
        return self.spans[-1]

    @property
    def spans(self):
        assert self.hook.flush()
        return self.exporter.get_finished_spans()

    @property
    def events(self):
        """Records of the log, each with its name."""
        assert self.hook.flush()
        return [one.log_record for one in self.records.get_finished_logs()]

    @property
    def points(self):
        """Figures by name: (attributes, value or sum, count)."""
        assert self.hook.flush()
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (dict(point.attributes), value_of(point), getattr(point, "count", None))
                        for point in metric.data.data_points
                    ]
        return found


def value_of(point):
    return point.value if hasattr(point, "value") else point.sum


def settings():
    return Settings()


def awaited(test):
    """A test that is a coroutine, in an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(test(**fixtures))

    return run
