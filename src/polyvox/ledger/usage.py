"""How much was used and what it cost, summed up by whatever one asks for: totals in the database, percentiles from
counts of latencies by their logarithm, exact to 1 %."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from polyvox.database import dollars, run
from polyvox.database.money import LARGEST
from polyvox.ledger.asking import INDEXED, TIMES, Span, expression, filtered, in_span, size_of, tags_joined
from polyvox.ledger.columns import latency_of
from polyvox.ledger.values import STATES

if TYPE_CHECKING:
    from sqlalchemy import Connection

MANY_MODELS = 300
"""With more models than this a span of the table is read instead of one range of the index for each model."""

_COUNTED = ("input", "output", "cache_read", "cache_write", "reasoning")
# A sum of pico-dollars may be larger than a column: it is taken in two parts.
_PART = 1_000_000
_SUMS = ", ".join(
    [
        "count(*)",
        *[f"count(*) FILTER (WHERE state = {number})" for number in (1, 2, 3, 4)],
        *[f"sum({name})" for name in _COUNTED],
        f"sum(cost / {_PART})",
        f"sum(cost % {_PART})",
        "count(cost)",
        "count(*) FILTER (WHERE usage_source = 2)",
        "count(*) FILTER (WHERE usage_source = 0)",
        "sum(own_cache)",
        f"sum(saved / {_PART})",
        f"sum(saved % {_PART})",
        "sum(input) FILTER (WHERE cache_read IS NOT NULL)",
        "sum(output) FILTER (WHERE duration IS NOT NULL AND own_cache = 0)",
        "sum(duration - coalesce(first_token, 0)) FILTER (WHERE output IS NOT NULL AND own_cache = 0)",
    ]
)
_FIELDS = (
    "calls", "ok", "errors", "cancelled", "interrupted", *_COUNTED, "cost_high", "cost_low", "priced", "estimated",
    "missing", "own_cache", "saved_high", "saved_low", "cacheable", "timed_output", "time",
)  # fmt: skip


_COUNTS = ("ok", "errors", "cancelled", "interrupted", "estimated", "missing", "own_cache")


class UsageRow(Struct, frozen=True, kw_only=True):
    """What was used under one key: the value of each word that was asked for, None where a call has none.

    calls counts all of them; open ones are in flight and in no other number. Tokens and money are sums of what is
    known, None where nothing is. unknown_cost, estimated and missing count the ended calls whose cost is unknown, whose
    tokens are an estimate, whose tokens nobody knows. cached_share is how much of the input the provider had in its
    cache, 0 to 1; own_cache counts answers from ours, and saved is USD those would have cost. p50 and p95 are seconds,
    exact to 1 %; tokens_per_second is output over the time it took to come.
    """

    key: dict[str, str | None]
    calls: int = 0
    ok: int = 0
    errors: int = 0
    cancelled: int = 0
    interrupted: int = 0
    open: int = 0
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    cost: Decimal | None = None
    unknown_cost: int = 0
    estimated: int = 0
    missing: int = 0
    cached_share: float | None = None
    own_cache: int = 0
    saved: Decimal | None = None
    p50: float | None = None
    p95: float | None = None
    tokens_per_second: float | None = None

    @property
    def error_share(self) -> float | None:
        """How many of the ended calls failed, 0 to 1."""
        ended = self.calls - self.open
        return (self.errors + self.interrupted) / ended if ended else None


class _Sum:
    """What adds up under one key."""

    def __init__(self) -> None:
        self.of: dict[str, int | None] = dict.fromkeys(_FIELDS)
        self.latencies: Counter[int] = Counter()
        self.open = 0

    def add(self, values: Sequence[Any]) -> None:
        for field, value in zip(_FIELDS, values, strict=True):
            if value is not None:
                self.of[field] = int(value) + (self.of[field] or 0)

    def row(self, key: dict[str, str | None]) -> UsageRow:
        of = self.of
        counts: dict[str, Any] = {name: of[name] or 0 for name in _COUNTS}
        tokens: dict[str, Any] = {name: of[name] for name in _COUNTED}
        ended = of["calls"] or 0
        time, cacheable = of["time"], of["cacheable"]
        return UsageRow(
            key=key,
            calls=ended + self.open,
            open=self.open,
            **counts,
            **tokens,
            cost=_money(of["cost_high"], of["cost_low"]),
            unknown_cost=ended - (of["priced"] or 0),
            cached_share=(of["cache_read"] or 0) / cacheable if cacheable else None,
            saved=_money(of["saved_high"], of["saved_low"]),
            p50=percentile(self.latencies, 0.5),
            p95=percentile(self.latencies, 0.95),
            tokens_per_second=(of["timed_output"] or 0) / (time / 1_000_000) if time else None,
        )


def _money(high: int | None, low: int | None) -> Decimal | None:
    if high is None or low is None:
        return None
    whole = high * _PART + low
    return dollars(whole) if whole <= LARGEST else Decimal(whole) / Decimal(10) ** 12


def percentile(latencies: Mapping[int, int], share: float) -> float | None:
    """The latency in seconds that this share of the calls did not exceed; None without calls."""
    left = share * sum(latencies.values())
    for bucket in sorted(latencies):
        left -= latencies[bucket]
        if left <= 1e-9:
            return latency_of(bucket) / 1_000_000
    return None


def sum_up(
    connection: Connection, words: Sequence[str], span: Span, filters: Mapping[str, Any], zone: tzinfo
) -> list[UsageRow]:
    """The rows of usage for what to group by, most expensive first, or in order of time where that is asked for."""
    question = _Question(connection, words, span, filters, exact=zone is UTC)
    sums: dict[tuple[str | None, ...], _Sum] = {}
    for key, values in question.totals():
        _at(sums, key, words, zone).add(values)
    for key, values in question.latencies():
        _at(sums, key, words, zone).latencies[values[0]] += values[1]
    for key, values in question.open():
        _at(sums, key, words, zone).open += values[0]
    rows = [found.row(dict(zip(words, key, strict=True))) for key, found in sums.items()]
    if any(word in TIMES for word in words):
        return sorted(rows, key=lambda row: [row.key[word] or "" for word in words])
    return sorted(rows, key=lambda row: (-(row.cost or 0), -row.calls, [value or "" for value in row.key.values()]))


def _at(sums: dict[tuple[str | None, ...], _Sum], key: Sequence[Any], words: Sequence[str], zone: tzinfo) -> _Sum:
    shown = tuple(_shown(word, value, zone) for word, value in zip(words, key, strict=True))
    found = sums.get(shown)
    if found is None:
        found = sums[shown] = _Sum()
    return found


_FORMS = {"hour": "%Y-%m-%dT%H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _shown(word: str, value: Any, zone: tzinfo) -> str | None:
    if word in TIMES:
        size = size_of(word, exact=zone is UTC)
        return (_EPOCH + timedelta(microseconds=value * size)).astimezone(zone).strftime(_FORMS[word])
    if value is None or value == "":
        return None
    return STATES[value] if word == "state" else str(value)


class _Question:
    """The statements behind one table of usage."""

    def __init__(
        self, connection: Connection, words: Sequence[str], span: Span, filters: Mapping[str, Any], *, exact: bool
    ) -> None:
        self.connection, self.words, self.span = connection, words, span
        self.conditions, self.values = filtered(connection, filters)
        self.keys = [expression(word, exact=exact) for word in words]
        self.joined = f" {tags_joined(connection)}" if "tag" in words else ""
        self.models = None
        if {*words, *filters} <= INDEXED:
            self.models = self._models()

    def totals(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        return self._ask(_SUMS, "state <> 0")

    def latencies(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        return self._ask("bucket, count(*)", "state <> 0 AND bucket IS NOT NULL AND own_cache = 0", "bucket")

    def open(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """In flight; there are few, and an index of their own knows them."""
        where, values = in_span(self.span)
        return self._rows("count(*)", f"state = 0 AND {where}", values, None, self.keys)

    def _ask(self, what: str, where: str, further: str | None = None) -> Iterator[Any]:
        if self.models is None:
            within, values = in_span(self.span)
            yield from self._rows(what, f"{where} AND {within}", values, further, self.keys)
            return
        # A range of the index for each model: within one nothing has to be sorted that has one key only.
        place = self.words.index("model") if "model" in self.words else None
        keys = [key for key in self.keys if key != "model"]
        for model in self.models:
            values = [model, self.span.since, self.span.until]
            for key, found in self._rows(
                what, f"{where} AND model = ? AND started >= ? AND started < ?", values, further, keys
            ):
                yield (key if place is None else (*key[:place], model, *key[place:])), found

    def _rows(self, what: str, where: str, values: list[Any], further: str | None, keys: list[str]) -> Iterator[Any]:
        groups = keys if further is None else [*keys, further]
        # Every word in this text comes from the tables of this module and `asking`.
        text = (
            f"SELECT {', '.join([*keys, what])} FROM calls{self.joined} WHERE {' AND '.join([where, *self.conditions])}"  # noqa: S608
        )
        if groups:
            text += f" GROUP BY {', '.join(groups)}"
        for row in run(self.connection, text, [*values, *self.values]):
            found = tuple(row)
            if keys or found[0]:
                yield found[: len(keys)], found[len(keys) :]

    def _models(self) -> list[str] | None:
        """Every model, by one step in the index for each; None where there are too many."""
        models: list[str] = []
        last = None
        while len(models) <= MANY_MODELS:
            further = "" if last is None else "AND model > ? "
            last = run(
                self.connection,
                f"SELECT model FROM calls WHERE state <> 0 {further}ORDER BY model LIMIT 1",  # noqa: S608
                () if last is None else (last,),
            ).scalar()
            if last is None:
                return models
            models.append(last)
        return None
