"""Calls as Prometheus metrics, on a registry that is given or made. Labels are never free words of a user.
prometheus-client is loaded when a `Prometheus` is made."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from polyvox.errors import InputError, MissingExtraError
from polyvox.telemetry import facts
from polyvox.telemetry.forks import watch_forks
from polyvox.telemetry.later import kind_and_place, log
from polyvox.telemetry.places import LONGEST, Places
from polyvox.telemetry.tallies import Key, Shown, Tally
from polyvox.telemetry.texts import masked
from polyvox.telemetry.underway import Underway
from polyvox.types import Cost, Usage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily, Metric

Kind: TypeAlias = Literal["counter", "histogram", "gauge"]

WHO = ("provider", "model")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_SHORT = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")

METRICS: dict[str, tuple[Kind, str, tuple[str, ...], tuple[float, ...]]] = {
    "requests": ("counter", "Calls that ended", (*WHO, "route", "status", "kind"), ()),
    "request_duration_seconds": ("histogram", "Of a call, retries and waits included", (*WHO, "route"), _SECONDS),
    "time_to_first_token_seconds": ("histogram", "From the start of a call to its first event", WHO, _SECONDS),
    "upstream_duration_seconds": ("histogram", "Of one attempt", (*WHO, "status"), _SECONDS),
    "overhead_seconds": ("histogram", "Of a call, beside its attempts and the waits between", (), _SHORT),
    "tokens": (
        "counter",
        "Of answers, our own cache's too; input and output are inclusive",
        (*WHO, "type"),
        (),
    ),
    "usage_unknown": ("counter", "Answers of which no tokens were told", WHO, ()),
    "cost_usd": ("counter", "What calls cost, as far as it is known", WHO, ()),
    "cost_unknown": ("counter", "Answers of which nobody knows what they cost", WHO, ()),
    "retries": ("counter", "Attempts after the first", WHO, ()),
    "fallbacks": ("counter", "Attempts at another deployment than the one before", WHO, ()),
    "rate_limited": ("counter", "Attempts that were told to wait", (*WHO, "by"), ()),
    "stream_interrupted": ("counter", "Streams that ended before their end", WHO, ()),
    "cache_hits": ("counter", "Calls answered from our own cache", WHO, ()),
    "cache_saved_usd": ("counter", "What answers from our own cache cost when they were made", WHO, ()),
    "cache_misses": ("counter", "Calls that looked into our own cache and found nothing", WHO, ()),
    "in_flight": ("gauge", "Calls under way", (), ()),
}
"""By name without "polyvox_": the kind, what it says, its labels, its buckets."""

WATCHED: dict[str, tuple[str, str]] = {
    "ledger_backlog": ("Rows that wait to be written", ""),
    "budget_remaining_usd": ("What is left of a budget", "budget"),
    "breaker_state": ("0 closed, 1 half open, 2 open", "deployment"),
    "queue_depth": ("Calls that wait for a place", ""),
    "config_reload_success": ("1 if the last change of the configuration was good, else 0", ""),
}
"""Gauges that are read when Prometheus asks: what they say, and the label where they have one."""

MOST_WATCHED = 200
"""Labels of one such gauge; what comes after them is left out."""

Read: TypeAlias = Callable[[], float | Mapping[str, float | None] | None]

_TOKENS = tuple((name, ("tokens", name)) for name in TOKENS)
_STATUSES = ("ok", "cancelled")
_KEPT = 10_000  # names of deployments and models whose tallies are found without a look at their names
_EDGES = {name: edges for name, (_, _, _, edges) in METRICS.items() if edges}


class Prometheus:
    """Hooks that count calls for Prometheus, all beginning with "polyvox_". Counted are plain numbers of this process;
    metrics are made of them when Prometheus asks.

    Args:
        registry: where the metrics are; a registry of its own without it. One registry takes one of these.
        models: names of models that always have a label of their own.
        most_models: how many other models have; those beyond are "other".

    `registry` is what `prometheus_client.start_http_server(9000, registry=...)` takes; `text()` is the exposition.
    Raises MissingExtraError without prometheus-client.

    Example:
        >>> from polyvox import Client
        >>> from polyvox.telemetry import Prometheus
        >>> metrics = Prometheus()
        >>> with Client("demo", hooks=[metrics]) as client:
        ...     _ = client.ask("hello")
        >>> 'polyvox_requests_total{kind="",model="demo"' in metrics.text()
        True
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        models: Iterable[str] = (),
        most_models: int = 100,
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise MissingExtraError(
                "prometheus-client is not installed", hint="pip install 'polyvox[prometheus]'", sent="no"
            ) from error
        self.registry: Any = prometheus_client.CollectorRegistry() if registry is None else registry
        self._models, self._providers = Places(most_models, models), Places(most_models)
        self._underway: Underway[bool] = Underway()
        self._tallies: dict[tuple[str, ...], Tally] = {}
        self._overhead = self._tally(()).times[("overhead_seconds",)]
        self._calls: dict[tuple[str, str, str], tuple[Tally, str]] = {}
        self._attempted: dict[str, Tally] = {}
        self._watched = _Watched()
        self.after_fork()
        watch_forks(self)
        self.registry.register(_Counted(self._now, lambda: len(self._underway)))
        self.registry.register(self._watched)
        _build_info(prometheus_client, self.registry)

    def after_fork(self) -> None:
        """In a child: what was counted so far stays, the lock is its own."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Prometheus, {len(self._underway)} calls under way>"

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()

    def samples(self) -> list[dict[str, Any]]:
        """The same as plain values, which JSON can say: "name", "labels" and "value" of each figure; None for a value
        that is no number."""
        return [
            {"name": one.name, "labels": dict(one.labels), "value": one.value if math.isfinite(one.value) else None}
            for family in self.registry.collect()
            for one in family.samples
        ]

    def watch(self, name: str, read: Read) -> None:
        """Read a gauge of `WATCHED` whenever Prometheus asks: read gives a number, or one for each label's value.

        A number that is None, and a read that fails, are left out: what is not known is no 0; so is what comes after
        `MOST_WATCHED` labels. Raises InputError for a name there is not.
        """
        if name not in WATCHED:
            raise InputError(f"nothing is watched as {name!r}", hint=f"it is one of {', '.join(WATCHED)}")
        self._watched.reads[name] = read

    # ---- hooks --------------------------------------------------------------------------------

    def on_call(self, info: Any) -> None:
        """A call begins."""
        self._underway.add(info.call, True)

    def on_done(self, info: Any) -> None:
        """A call ended, well or not."""
        if self._underway.pop(info.call) is None:
            return
        error, seconds = info.error, info.seconds
        kind, status = ("", "ok") if error is None else (error.kind, facts.outcome_of(info))
        found = self._calls.get((info.deployment, info.model, info.operation))
        tally, route = self._call(info, kind) if found is None else found
        usage, cost = info.usage, info.cost
        if cost is None or usage is None:
            usage, cost = facts.usage_of(info), facts.cost_of(info)
        counts, times = tally.counts, tally.times
        with self._lock:
            counts["requests", route, status, kind] += 1
            if seconds is not None:
                times["request_duration_seconds", route].add(seconds)
            if info.first_token is not None:
                times["time_to_first_token_seconds",].add(info.first_token)
            if kind == "stream_interrupted":
                counts["stream_interrupted",] += 1
            if info.own_cache is not None:
                counts["cache_hits" if info.own_cache else "cache_misses",] += 1
            if cost is not None:
                _spend(counts, usage, cost, info.own_cache)
            self._attempts(tally, info, seconds)

    def _attempts(self, tally: Tally, info: Any, seconds: float | None) -> None:
        spent, before = 0.0, None
        for attempt in facts.attempts_of(info):
            name, outcome = attempt.deployment, attempt.outcome
            spent += attempt.seconds + attempt.waited
            at = tally if name == info.deployment else self._elsewhere(tally, name, outcome)
            status = outcome if outcome in _STATUSES else "error"
            at.times["upstream_duration_seconds", status].add(attempt.seconds)
            if before is not None:
                at.counts["retries",] += 1
                if before != name:
                    at.counts["fallbacks",] += 1
            if outcome == "rate_limit":
                at.counts["rate_limited", "self" if attempt.sent == "no" else "provider"] += 1
            before = name
        if before is not None and seconds is not None:
            self._overhead.add(max(seconds - spent, 0.0))

    # ---- where it is counted ------------------------------------------------------------------

    def _call(self, info: Any, kind: str) -> tuple[Tally, str]:
        """The tally of a call, and its route; kept where the names of provider and model have come to stay."""
        provider, model = facts.place_of(info)
        at = self._providers.label(provider), self._models.label(model, kind)
        found = self._tally(at), facts.operation_of(info).name
        if at == (provider, model) and len(self._calls) < _KEPT:
            self._calls[info.deployment, info.model, info.operation] = found
        return found

    def _elsewhere(self, tally: Tally, name: str, outcome: str) -> Tally:
        """The tally of an attempt at another deployment than the call ended with."""
        found = self._attempted.get(name)
        if found is not None:
            return found
        provider, slash, model = name.partition("/")
        if not slash:
            return tally
        at = self._providers.label(provider), self._models.label(model, outcome)
        found = self._tally(at)
        if at == (provider, model) and len(self._attempted) < _KEPT:
            self._attempted[name] = found
        return found

    def _tally(self, at: tuple[str, ...]) -> Tally:
        return self._tallies.get(at) or self._tallies.setdefault(at, Tally(_EDGES))

    def _now(self) -> Iterable[tuple[tuple[str, ...], dict[Key, float], dict[Key, Shown]]]:
        """Every place's counters and times, as they are now. A scrape that is slow holds up no call."""
        for at, tally in list(self._tallies.items()):
            with self._lock:
                counts = tally.counts.copy()
                times = {key: times.shown() for key, times in tally.times.items()}
            yield at, counts, times


def _spend(counts: dict[Key, float], usage: Usage, cost: Cost, given_again: bool | None) -> None:
    for name, key in _TOKENS:
        count = getattr(usage, name)
        if count is not None and count >= 0:
            counts[key] += count
    if usage.input is None and usage.output is None:
        counts["usage_unknown",] += 1
    amount = math.nan if cost.amount is None or cost.currency != "USD" else float(cost.amount)
    known = 0.0 <= amount < math.inf
    if given_again:
        counts["cost_usd",] += 0
        if known:
            counts["cache_saved_usd",] += amount
    elif known:
        counts["cost_usd",] += amount
    else:
        counts["cost_unknown",] += 1


class _Counted:
    """A collector of what is counted: metrics are made when they are asked for."""

    def __init__(self, now: Callable[[], Iterable[Any]], in_flight: Callable[[], int]) -> None:
        self._now = now
        self._in_flight = in_flight

    def describe(self) -> Iterable[Metric]:
        """What there is, without figures: so that registering it twice is refused."""
        return list(_families().values())

    def collect(self) -> Iterable[Metric]:
        """What is counted now."""
        found = _families()
        for at, counts, times in self._now():
            for (name, *more), value in counts.items():
                found[name].add_metric([*at, *more], value)
            for (name, *more), shown in times.items():
                edges = [("+Inf" if edge == math.inf else repr(edge), count) for edge, count in shown.upto]
                found[name].add_metric([*at, *more], buckets=edges, sum_value=shown.total)
        found["in_flight"].add_metric([], self._in_flight())
        return found.values()


class _Watched:
    """A collector of what is read only when asked for."""

    def __init__(self) -> None:
        self.reads: dict[str, Read] = {}
        self._told: set[str] = set()

    def describe(self) -> Iterable[Metric]:
        """What may come: so that registering it reads nothing."""
        return [_family(name) for name in WATCHED]

    def collect(self) -> Iterable[Metric]:
        """What is known now."""
        for name, read in list(self.reads.items()):
            family = _family(name)
            for label, value in self._read(name, read).items():
                family.add_metric([label] if WATCHED[name][1] else [], value)
            if family.samples:
                yield family

    def _read(self, name: str, read: Read) -> Mapping[str, float]:
        try:
            found = read()
            told = found if isinstance(found, Mapping) else {"": found}
            known = ((label, float(value)) for label, value in told.items() if value is not None)
            return {masked(str(label))[:LONGEST]: value for label, value in islice(known, MOST_WATCHED)}
        except Exception as error:  # noqa: BLE001 - whatever the program's own function raises
            if name not in self._told:
                self._told.add(name)
                log.warning("what is watched as %s cannot be read: %s", name, kind_and_place(error))
            return {}


def _family(name: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    says, label = WATCHED[name]
    return GaugeMetricFamily(f"polyvox_{name}", says, labels=[label] if label else [])


def _families() -> dict[str, Any]:
    """Every metric of the table, without figures."""
    from prometheus_client import core

    kinds = {
        "counter": core.CounterMetricFamily,
        "histogram": core.HistogramMetricFamily,
        "gauge": core.GaugeMetricFamily,
    }
    return {
        name: kinds[kind](f"polyvox_{name}", says, labels=labels) for name, (kind, says, labels, _) in METRICS.items()
    }


def _build_info(library: Any, registry: CollectorRegistry) -> None:
    import polyvox

    library.Info("polyvox_build", "Which version this is", registry=registry).info({"version": polyvox.__version__})
