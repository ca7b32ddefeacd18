"""What observers cost a call: CPU of the caller's thread for both ends of a call, and of all threads together, beside
the bare span or counter that an observer cannot do without."""

from __future__ import annotations

import asyncio
import io
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from benchmarks.figures import Figure, Size, awaited
from polyvox import AsyncClient
from polyvox.engine import CallInfo
from polyvox.telemetry import CallLog, JSONLines, OpenTelemetry, Prometheus
from polyvox.types import Attempt, Cost, Message, Request, Response, Text, Usage

MOST = 1500
"""Calls at a time: no more than may wait for the thread of OpenTelemetry."""
MOST_MICROSECONDS = {"Prometheus": 6.0}
"""What was promised of the caller's thread."""
REQUEST = Request("m-1", (Message("user", (Text("Hello"),)),), temperature=0.5, max_tokens=400)
USAGE, COST = Usage(120, 90, 40, reasoning=12, source="provider"), Cost(Decimal("0.00125"), source="catalog")
RESPONSE = Response(
    Message("assistant", (Text("Hi there. " * 20),)), "stop", id="r1", model="m-1-2026",
    usage=USAGE, cost=COST, attempts=(Attempt("acme/m-1", 0.4),),
)  # fmt: skip
WHERE = "https://llm.example/v1"


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Spent(NamedTuple):
    """Microseconds of CPU a time: of the caller's thread, and of all threads."""

    caller: float
    everywhere: float


def spent(size: Size, work: Callable[[], Any], after: Callable[[], Any] | None = None) -> Spent:
    """The medians over the rounds of what one run takes; after is what else must be done in a round by others."""
    rows = []
    for _ in range(size.rounds + 1):
        everywhere, caller = time.process_time(), time.thread_time()
        for _ in range(size.times):
            work()
        caller = time.thread_time() - caller
        if after is not None:
            after()
        everywhere = time.process_time() - everywhere
        rows.append(Spent(caller / size.times * 1e6, everywhere / size.times * 1e6))
    rows = rows[1:]  # the first round only warms up
    return Spent(*(statistics.median(row[at] for row in rows) for at in (0, 1)))


def both_ends(*hooks: Any) -> Callable[[], None]:
    """What an engine tells of one call, its start and its end."""

    ids = map(str, count())

    def once() -> None:
        call = next(ids)
        begin = CallInfo(REQUEST, "acme/m-1", call=call, operation="chat", provider="acme", model="m-1", base_url=WHERE)
        for hook in hooks:
            hook.on_call(begin)
        end = CallInfo(
            REQUEST, "acme/m-1", 1, RESPONSE, call=call, operation="chat", provider="acme", model="m-1", seconds=0.45,
            base_url=WHERE, usage=USAGE, cost=COST,
        )  # fmt: skip
        for hook in hooks:
            hook.on_done(end)

    return once


@contextmanager
def lines(level: int) -> Iterator[None]:
    """The log of calls at a level, as lines of JSON that are kept in memory."""
    log, handler = logging.getLogger("polyvox.calls"), logging.StreamHandler(io.StringIO())
    handler.setFormatter(JSONLines())
    before, log.propagate = log.level, False
    log.setLevel(level)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        log.propagate = True


def bare(size: Size) -> dict[str, Spent]:
    """The least there is: a span, a histogram's figure, a counter."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("bare")
    attributes = {"a": "b", "c": 1}
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    histogram = meters.get_meter("bare").create_histogram("h")
    counter = prometheus_client.Counter("bare", "Bare", ["a", "b"], registry=None)
    found = {
        "span": spent(size, lambda: tracer.start_span("s", attributes=attributes).end(), provider.force_flush),
        "figure": spent(size, lambda: histogram.record(1.0, attributes)),
        "counter": spent(size, lambda: counter.labels("x", "y").inc()),
    }
    provider.shutdown()
    meters.shutdown()
    return found


KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "OpenTelemetry, not sampled, no metrics": ({"metrics": None}, ALWAYS_OFF),
    "OpenTelemetry, spans": ({"metrics": None}, None),
    "OpenTelemetry, spans and metrics": ({"metrics": "latest"}, None),
    "OpenTelemetry, all names of all": ({"semconv": "both", "metrics": "both"}, None),
    "OpenTelemetry, with content": ({"metrics": "latest", "content": True}, None),
}


def opentelemetry(name: str, size: Size) -> Spent:
    """What a kind of it costs for both ends of a call."""
    options, sampler = KINDS[name]
    tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with OpenTelemetry(tracer_provider=tracers, meter_provider=meters, **options) as hook:
        found = spent(size, both_ends(hook), lambda: hook.flush(60))
        if hook.dropped:
            raise AssertionError(f"{name}: {hook.dropped} were dropped, so this is no measure")
    tracers.shutdown()
    meters.shutdown()
    return found


async def call(size: Size) -> float:
    """What a whole call costs that asks no network."""
    async with AsyncClient("demo") as client:
        took = await awaited(size._replace(times=max(20, size.times // 10)), lambda: client.ask("hello"))
        return took.cpu


def measure(size: Size) -> list[Figure]:
    """All figures of observers: what each costs beside the infos that an engine makes for whoever listens."""
    size = size._replace(times=min(size.times, MOST))
    least, nobody = bare(size), spent(size, both_ends())
    found = {"Prometheus": spent(size, both_ends(Prometheus()))}
    with lines(logging.ERROR):
        found["CallLog, below its level"] = spent(size, both_ends(CallLog()))
    with lines(logging.INFO):
        found["CallLog as JSON lines"] = spent(size, both_ends(CallLog()))
    beside = dict.fromkeys(found, "counter")
    for name in KINDS:
        found[name], beside[name] = opentelemetry(name, size), "span"
    figures = [
        Figure("a call of the built-in model", asyncio.run(call(size)), "µs CPU"),
        Figure("the infos of a call", nobody.caller, "µs CPU", "counter", least["counter"].caller),
        Figure("a figure of OpenTelemetry", least["figure"].caller, "µs CPU", "span", least["span"].caller),
    ]
    for name, took in found.items():
        of = least[beside[name]]
        for whose, value, bare_value in (
            ("the caller", took.caller - nobody.caller, of.caller),
            ("all threads", took.everywhere - nobody.everywhere, of.everywhere),
        ):
            most = MOST_MICROSECONDS.get(name) if whose == "the caller" else None
            figures.append(Figure(f"{name}, {whose}", value, "µs CPU", beside[name], bare_value, most))
    return figures
