"""What a call cost: its counts times the prices that hold, exact and line by line. Pure; what is not known has no
amount, which is never 0."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from polyvox.dialects.billing import tool_units
from polyvox.models import Model
from polyvox.prices.counts import Counts, counts_of, known_units
from polyvox.prices.sheet import EXACT, Rates, Sheet, sheet
from polyvox.prices.values import Bill, Line
from polyvox.types import Usage

_PICO = Decimal(1).scaleb(-12)
_NOTHING = Decimal(0)

# A kind of input that may have a price of its own, and the unit that counts those of them read from a cache.
_INPUT_KINDS = (
    ("audio_input", "cache_audio_read_mtok"),
    ("image_input", "cache_image_read_mtok"),
    ("input_video_mtok", ""),
)
_OUTPUT_KINDS = ("audio_output", "output_image_mtok", "output_video_mtok")
WITHIN = frozenset({name for kind in _INPUT_KINDS for name in kind} | set(_OUTPUT_KINDS))
"""Units that count tokens which the totals hold already."""


def cost(
    usage: Usage,
    model: Model | None,
    *,
    at: datetime,
    told: Mapping[str, str] | None = None,
    units: Mapping[str, int] | None = None,
    operation: str = "chat",
) -> Bill:
    """What a call cost. It never raises: what cannot be known has no amount, and `why` says what is missing.

    What the provider says it charged goes before the table, and the user's own prices before what comes with us.
    What has no price of its own costs as what it is part of.

    Args:
        usage: inclusive totals, see `Usage`.
        model: the one that served, None where nobody knows it; see `served`.
        at: when the call began; without a zone it is UTC.
        told: what the call was, where a price depends on it: {"service_tier": "flex"}, {"processing": "batch"}.
            A word that no row of the model speaks of makes the amount unknown.
        units: what was used beside the tokens of `Usage`, by the names of `Price.other`; see
            `polyvox.dialects.billing.billed`.
        operation: in a "chat" something comes out; in others an output that nobody counted is none.

    >>> from datetime import UTC
    >>> from polyvox.catalog import load
    >>> noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    >>> print(cost(Usage(1200, 300, cache_read=1000), load().info("anthropic", "claude-haiku-5-5"), at=noon))
    0.00018 USD
    """
    when, more = dict(told) if told else {}, dict(units) if units else {}
    name, estimated = None if model is None else model.name, usage.source == "estimated"
    if usage.cost is not None and usage.cost.is_finite() and usage.cost >= 0:
        return Bill(usage.cost, source="provider", model=name, estimated=False, when=when, units=more)
    counts = counts_of(usage, operation)
    if usage.server_tools:
        for unit, count in tool_units(usage).items():
            # An answer that shows what its usage counts speaks of the same searches.
            more[unit] = max(count, more.get(unit, 0))
    tally = _tallied(model, counts, at, when, more, operation)
    notes = tuple(counts.notes)
    if isinstance(tally, str) or tally.missing:
        why = tally if isinstance(tally, str) else "; ".join(dict.fromkeys(tally.missing))
        return Bill(model=name, why=why, notes=notes, estimated=estimated, when=when, units=more)
    amount, lines = tally.sum.normalize(EXACT), tuple(tally.lines)
    return Bill(
        amount,
        source="catalog",
        model=name,
        lines=lines,
        notes=notes,
        estimated=estimated,
        when=when,
        units=more,
    )


def _tallied(
    model: Model | None, counts: Counts, at: datetime, when: dict[str, str], units: dict[str, int], operation: str
) -> _Tally | str:
    """All lines, or why there can be none."""
    if model is None:
        return "nobody says what this model costs"
    table = sheet(model, when)
    rates = table.rates(at, counts.asked or 0)
    if rates is None or not rates.prices:
        return f"the table has no price of {model.name}{' for this time' if model.prices else ''}"
    if rates.unspoken:
        return f"the table has no price of {model.name} for {', '.join(rates.unspoken)}"
    tally = _Tally(rates, counts, units)
    if operation != "chat" and "input" not in rates.prices and "output" not in rates.prices:
        # Sound by the hour, text by the letter: tokens are not what is paid for.
        if not any(unit in rates.prices for unit in tally.kinds):
            tally.missing.append(f"nobody says how much there was of {' or '.join(sorted(rates.prices))}")
    elif (counts.asked is not None and counts.answered is not None) or not _is_free(table, at):
        tally.add_input()
        tally.add_output()
    tally.add_units()
    return tally


def _is_free(table: Sheet, at: datetime) -> bool:
    """Whether it costs nothing whatever the counts."""
    every = [table.rates(at, tokens) for tokens in table.steps()]
    return all(
        rates is not None
        and {"input", "output"} <= rates.prices.keys()
        and not any(rate.one for rate in rates.prices.values())
        for rates in every
    )


class _Tally:
    """Lines as they come, their sum, and what could not be priced."""

    __slots__ = ("counts", "kinds", "lines", "missing", "prices", "sum")

    def __init__(self, rates: Rates, counts: Counts, units: Mapping[str, int]) -> None:
        self.prices, self.counts = rates.prices, counts
        self.kinds = counts.kinds
        self.lines: list[Line] = []
        self.missing: list[str] = []
        self.sum = _NOTHING
        if units:
            for unit, count in known_units(units, counts.notes).items():
                if count is None:
                    self.missing.append(f"nobody says how many {unit} there were")
                else:
                    self.kinds[unit] = count

    def add(self, what: str, quantity: int, *instead: str) -> None:
        """A line for so many of something, at its own price or else the first there is of what it is part of."""
        if not quantity:
            return
        rate = self.prices.get(what)
        if rate is None:
            rate = next((self.prices[name] for name in instead if name in self.prices), None)
        if rate is None:
            self.missing.append(f"the table has no price for {what}")
            return
        amount = EXACT.multiply(rate.one, quantity)
        if rate.per == 3_600:
            # The only division without an end: to the pico-dollar, as money is kept.
            amount = EXACT.quantize(amount, _PICO)
        self.sum = EXACT.add(self.sum, amount)
        self.lines.append(Line(what, quantity, rate.price, rate.per, amount, rate.name, rate.case))

    def one(self, *names: str) -> Decimal:
        """The price of a single one, by the first name that has a price; 0 where none has, for comparing."""
        return next((self.prices[name].one for name in names if name in self.prices), _NOTHING)

    def add_input(self) -> None:
        """What went in, as parts that do not overlap."""
        counts, kinds = self.counts, self.kinds
        if counts.asked is None:
            self.missing.append("nobody says how many tokens went in")
            return
        fresh, read = counts.fresh, counts.read
        for kind, cached_kind in _INPUT_KINDS if kinds else ():
            count = kinds.get(kind, 0)
            if not count or (kind not in self.prices and cached_kind not in self.prices):
                continue
            over = count - counts.asked
            if over > 0:
                counts.notes.append(f"{count} tokens of {kind} of {counts.asked} of input: what is over is added")
                count -= over
                self.add(kind, over, "input")
            cached = self._cached(count, kinds.get(cached_kind), (fresh, read), kind, cached_kind)
            new = min(count - cached, fresh)
            fresh, read = fresh - new, read - cached
            self.add(kind, new, "input")
            self.add(cached_kind or "cache_read", cached, "cache_read", "input")
        self.add("input", fresh)
        self.add("cache_read", read, "input")
        for name, count in counts.written.items():
            self.add(name, count, "cache_write", "input")

    def _cached(self, count: int, known: int | None, rest: tuple[int, int], kind: str, cached_kind: str) -> int:
        """How many of a kind were read from a cache. Where nobody says, so many as make it dearest."""
        fresh, read = rest
        most = min(count, read)
        least = min(most, max(0, count - fresh))
        if known is not None:
            return max(least, min(known, most))
        if least == most:
            return least
        self.counts.notes.append(f"nobody says how much of {kind} was cached: it is read as the dearest it can be")
        cached = EXACT.add(self.one(cached_kind, "cache_read", "input"), self.one("input"))
        new = EXACT.add(self.one(kind, "input"), self.one("cache_read", "input"))
        return most if cached > new else least

    def add_output(self) -> None:
        """What came out, as parts that do not overlap."""
        counts = self.counts
        if counts.answered is None:
            self.missing.append("nobody says how many tokens came out")
            return
        rest = counts.answered - counts.reasoning
        self.add("reasoning", counts.reasoning, "output")
        for kind in _OUTPUT_KINDS:
            if kind not in self.prices:
                continue
            count = self.kinds.get(kind)
            if count is None:
                if kind == "output_image_mtok" and rest and self.one(kind) > self.one("output"):
                    self.missing.append("nobody says how much of the output is pictures")
                continue
            if count > rest:
                counts.notes.append(f"{count} of {kind} in {rest} tokens of output: they are counted beside it")
            else:
                rest -= count
            self.add(kind, count)
        self.add("output", rest)

    def add_units(self) -> None:
        """What is counted beside tokens."""
        if "requests_kcount" in self.prices and "requests_kcount" not in self.kinds:
            self.add("requests_kcount", 1)
        for unit, count in self.kinds.items():
            if unit not in WITHIN:
                self.add(unit, count)
