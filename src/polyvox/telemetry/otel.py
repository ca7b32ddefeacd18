"""Calls as OpenTelemetry spans, metrics and events, by the names of the GenAI conventions. It knows no exporter:
whatever the program gave OpenTelemetry is used. OpenTelemetry is loaded when an `OpenTelemetry` is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from polyvox.errors import MissingExtraError
from polyvox.telemetry import content as contents
from polyvox.telemetry import facts
from polyvox.telemetry.events import Events, Failure, failure_of
from polyvox.telemetry.later import Later
from polyvox.telemetry.meters import Meters
from polyvox.telemetry.names import Version, check_version, spoken
from polyvox.telemetry.texts import clean, masked
from polyvox.telemetry.underway import Underway
from polyvox.types import Attempt

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

ATTEMPT = "polyvox.attempt"
"""The event of a span for each attempt, where there was more than one or the only one failed."""
ROUTE = "polyvox.route"
"""The event of a span for how the call chose whom to ask, where there was a choice."""


_FREE = frozenset({"request_model", "conversation", "previous_response", "reasoning_level", "stop"})
_KEPT = 2000  # deployments whose attributes are kept


class _Place(NamedTuple):
    """Who is asked for what, as its calls' spans and figures tell it: made once for a deployment."""

    name: str
    facts: dict[str, Any]
    attributes: dict[str, Any]
    inference: bool


class _Open:
    """A call that is under way."""

    __slots__ = ("key", "place", "recording", "since_ns", "span", "task", "token")

    def __init__(self, key: tuple[Any, ...], place: _Place, since_ns: int, span: Span) -> None:
        self.key = key
        self.place = place
        self.since_ns = since_ns
        self.span = span
        self.recording = span.is_recording()
        self.token: Any = None
        self.task: Any = None


class _Done(NamedTuple):
    """A call that has ended, and what is told of it. said is empty where neither its span nor an event tells it."""

    call: _Open
    end_ns: int
    measured: dict[str, Any]
    said: dict[str, Any]
    content: dict[str, str]
    attempts: tuple[Attempt, ...]
    decision: Any
    failure: Failure | None


class OpenTelemetry:
    """Hooks that tell OpenTelemetry of every call: a span of kind CLIENT with its attempts as span events, metrics, and
    an event of each failure.

    A span is the child of what was current where the call was made; while a whole answer is awaited it is current
    itself. Spans are ended, metrics recorded and events told in a thread of its own, so an exporter may be slow or
    hang.

    Args:
        semconv: the names of attributes: "latest", "v1.41", or "both" for those and what v1.3x said.
        metrics: the names of metrics, likewise; None for no metrics.
        content: whether spans and events hold what was asked and answered, with secrets masked. None is what
            OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, and that is no by default.
        events: whether there is also an event with all that is known of each inference. None is what
            OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT says; without it, yes where content is wanted in events alone or too.
        tokens_by_call: also histograms of the tokens of each call, which the conventions leave to choice.
        tracer_provider, meter_provider, logger_provider: in place of the global ones.
        time_ns: nanoseconds since the epoch.

    Raises MissingExtraError without OpenTelemetry, InputError for a version that is none.

    Example:
        >>> from polyvox import Client
        >>> from polyvox.telemetry import OpenTelemetry
        >>> with OpenTelemetry() as telemetry, Client("demo", hooks=[telemetry]) as client:
        ...     _ = client.ask("hello")
    """

    def __init__(
        self,
        *,
        semconv: Version = "latest",
        metrics: Version | None = "both",
        content: bool | None = None,
        events: bool | None = None,
        tokens_by_call: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._names = spoken(check_version("semconv", semconv))
        if metrics is not None:
            check_version("metrics", metrics)
        try:
            from opentelemetry import context, trace
        except ImportError as error:
            raise MissingExtraError(
                "OpenTelemetry is not installed", hint="pip install 'polyvox[otel]'", sent="no"
            ) from error
        self._context, self._trace = context, trace
        self._tracer = trace.get_tracer("polyvox", tracer_provider=tracer_provider)
        self._meters = None if metrics is None else Meters(metrics, tokens_by_call, meter_provider)
        self._events = Events(logger_provider)
        self._wanted = contents.wanted(content, events)
        self._counts = self._meters is not None or self._wanted.events  # whether or not a call's span is sampled
        self._time_ns = time_ns
        self._places: dict[tuple[Any, ...], _Place] = {}
        self._underway: Underway[_Open] = Underway()
        self._later = Later("polyvox-otel")

    def __repr__(self) -> str:
        return f"<OpenTelemetry, {len(self._underway)} calls under way>"

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Tell what is left."""
        self.close()

    @property
    def dropped(self) -> int:
        """Calls whose end was not told, because too many waited."""
        return self._later.dropped

    def flush(self, timeout: float = 5.0) -> bool:
        """Whether OpenTelemetry is told of all calls that have ended, within so many seconds. What its exporters still
        hold is theirs to flush."""
        return self._later.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """The same, and the end: later calls are not told."""
        return self._later.close(timeout)

    # ---- hooks --------------------------------------------------------------------------------

    def on_call(self, info: Any) -> None:
        """A call begins: its span does, with all that a sampler may want to know."""
        try:
            self._begin(info)
        except Exception as error:  # noqa: BLE001 - whatever a span processor raises
            self._later.fail(error)

    def on_done(self, info: Any) -> None:
        """A call ended, well or not."""
        call = self._underway.pop(info.call)
        if call is None:
            return
        if call.token is not None:
            self._leave(call)
        if not call.recording and not self._counts and info.error is None:
            return
        end_ns = self._time_ns()
        try:
            self._later.do(self._end, self._done(call, info, end_ns))
        except Exception as error:  # noqa: BLE001 - a fact nobody thought of must not leave the span open
            self._later.fail(error)
            self._later.do(call.span.end, end_ns)

    def _begin(self, info: Any) -> None:
        key = (info.deployment, info.model, info.operation, info.stream, info.base_url)
        place = self._places.get(key) or self._place(key, info)
        begin_ns = self._time_ns()
        span = self._tracer.start_span(
            place.name, kind=self._trace.SpanKind.CLIENT, attributes=place.attributes, start_time=begin_ns
        )
        call = _Open(key, place, begin_ns, span)
        # A stream's consumer runs on between its pieces, and what it does then is no part of the call. Without an id
        # the engine may not tell of every end, and a span that is over would stay the current one.
        if info.call and not info.stream:
            call.task = _task()
            call.token = self._context.attach(self._trace.set_span_in_context(span))
        if (gone := self._underway.add(info.call, call)) is not None:
            self._later.do(self._lost, gone)

    def _place(self, key: tuple[Any, ...], info: Any) -> _Place:
        who = facts.who(info)
        name = masked(f"{who['operation']} {who['request_model']}") if "request_model" in who else who["operation"]
        place = _Place(name, who, self._attributes(who), facts.operation_of(info).inference)
        if len(self._places) < _KEPT:
            self._places[key] = place
        return place

    def _leave(self, call: _Open) -> None:
        """The span is the current one no more; a token is good in its own task only."""
        if call.task is _task():
            self._context.detach(call.token)
        call.token = call.task = None

    def _done(self, call: _Open, info: Any, end_ns: int) -> _Done:
        """What is told of a call: taken from its info here, so that what waits holds no pictures and no bodies."""
        wanted, error, content = self._wanted, info.error, {}
        tells = call.recording or (wanted.events and call.place.inference)
        if tells and (wanted.in_spans or wanted.in_events):
            content = self._content(info)
        failure = None
        if error is not None and error.kind != "cancelled":
            failure = failure_of(error, masked(error.message) if wanted.in_events else None)
        return _Done(
            call,
            end_ns,
            facts.measured(info),
            {**facts.asked(info), **facts.ended(info)} if tells else {},
            content,
            facts.attempts_of(info) if call.recording else (),
            facts.decision_of(info) if call.recording else None,
            failure,
        )

    def _content(self, info: Any) -> dict[str, str]:
        try:
            return {**contents.asked(info.request), **contents.answered(facts.answer_of(info))}
        except Exception as error:  # noqa: BLE001 - whatever a program gave as a tool's schema, however deep
            self._later.fail(error)
            return {}

    # ---- in the thread ------------------------------------------------------------------------

    def _end(self, done: _Done) -> None:
        for tell in (self._span, self._figures, self._told):
            try:
                tell(done)
            except Exception as error:  # noqa: BLE001 - what an exporter of spans raises loses no figure, and so on
                self._later.fail(error)

    def _span(self, done: _Done) -> None:
        call, span = done.call, done.call.span
        if not call.recording:
            return
        try:
            span.set_attributes(self._attributes({**done.measured, **done.said}))
            if self._wanted.in_spans and done.content:
                span.set_attributes(self._attributes(done.content))
            self._route(span, call, done.decision)
            self._attempts(span, call, done.attempts)
            if done.measured["error"] is not None:
                span.set_status(self._trace.StatusCode.ERROR)
        finally:
            span.end(done.end_ns)

    def _figures(self, done: _Done) -> None:
        if self._meters is not None:
            call = done.call
            self._meters.record(call.key, call.place.facts, done.measured, call.place.inference, self._around(call))

    def _told(self, done: _Done) -> None:
        place = done.call.place
        if done.failure is not None:
            who = {**place.attributes, "error.type": done.measured["error"]}
            self._events.failed(done.failure, who, done.end_ns, self._around(done.call))
        if self._wanted.events and place.inference:
            said = {**place.attributes, **self._attributes({**done.measured, **done.said})}
            content = self._attributes(done.content) if self._wanted.in_events else {}
            self._events.details(said, content, done.end_ns, self._around(done.call))

    def _around(self, call: _Open) -> Any:
        """The context in which the call's span is the current one."""
        return self._trace.set_span_in_context(call.span)

    def _lost(self, call: _Open) -> None:
        """The end of a call that nobody told the end of: when it ended is not known, so no time is measured."""
        call.span.set_attributes(self._attributes({"error": "_OTHER"}))
        call.span.end()

    def _route(self, span: Span, call: _Open, decision: Any) -> None:
        if decision is None:
            return
        said: dict[str, Any] = {
            "polyvox.route.named": None if decision.named is None else masked(decision.named),
            "polyvox.route.strategy": decision.strategy,
            "polyvox.route.tier": decision.tier,
            "polyvox.route.reasons": decision.reasons,
            "polyvox.route.bound": decision.bound,
            "polyvox.route.rather": decision.rather,
            "polyvox.route.sticky": decision.sticky or None,
            "polyvox.route.asked": decision.asked,
            "polyvox.route.skipped": tuple([f"{name}: {why}" for name, why in decision.skipped.items()]),
            "polyvox.route.steps": decision.steps,
        }
        fit = {
            name: tuple(map(masked, value)) if isinstance(value, tuple) else value
            for name, value in said.items()
            if value not in (None, ())
        }
        span.add_event(ROUTE, fit, call.since_ns)

    def _attempts(self, span: Span, call: _Open, attempts: tuple[Attempt, ...]) -> None:
        if len(attempts) < 2 and all(attempt.outcome == "ok" for attempt in attempts):
            return
        passed = 0.0
        for number, attempt in enumerate(attempts, 1):
            passed += attempt.waited or 0.0
            said: dict[str, Any] = {
                "polyvox.attempt.number": number,
                "polyvox.attempt.deployment": masked(attempt.deployment),
                "polyvox.attempt.outcome": attempt.outcome,
                "polyvox.attempt.duration": attempt.seconds,
                "polyvox.attempt.waited": attempt.waited,
                "polyvox.attempt.sent": attempt.sent,
                "http.response.status_code": attempt.status,
            }
            at = call.since_ns + int(passed * 1e9)
            span.add_event(ATTEMPT, {name: value for name, value in said.items() if value is not None}, at)
            passed += attempt.seconds or 0.0

    def _attributes(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Facts by the names of the convention; those that are None are not known, and left out."""
        named, found = self._names, {}
        for fact, value in said.items():
            if value is not None and (called := named.get(fact)) is not None:
                fit = _fit(fact, value)
                for name in called:
                    found[name] = fit
        return found


def _fit(fact: str, value: Any) -> Any:
    """A value as any exporter takes it; of what a caller may write as he likes, secrets are masked."""
    if isinstance(value, str):
        return masked(value) if fact in _FREE else clean(value)
    if isinstance(value, tuple):
        return tuple(masked(one) if isinstance(one, str) else one for one in value)
    return value


def _task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
