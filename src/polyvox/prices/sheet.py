"""The price table of one model, with each case laid out once: what holds at a time, for so many tokens and a kind of
call. It adds nothing up."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple, TypeAlias

from polyvox.models import Model, Price
from polyvox.prices.overrides import Override
from polyvox.prices.values import Case

Key: TypeAlias = tuple[int, tuple[tuple[str, str], ...]]

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[])
"""Wide enough that no product of a count and a price is ever rounded, nor a sum of them; a caller's own context may be
narrower. It traps nothing: what cannot be computed with does not get here."""

# How many a price is for, by the end of the unit's name.
_PER = {"_mtok": 1_000_000, "_kcount": 1_000, "_kpages": 1_000, "_mchars": 1_000_000, "_hours": 3_600}
_TOKEN_PRICES = (
    "input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output",
    "image_input",
)  # fmt: skip


class Rate(NamedTuple):
    """A price as it is computed with: USD for one, USD as the table says it for `per`, its name and its row."""

    one: Decimal
    price: Decimal
    per: int
    name: str
    case: Case


class Rates(NamedTuple):
    """All prices that hold in one case, by name; and what was said of the call that no row speaks of."""

    prices: dict[str, Rate]
    unspoken: tuple[str, ...]


class Sheet:
    """The price table of one model for calls of one kind, each case laid out once. Its rows change with the day, the
    hour and the number of tokens alone, so that they are found by three numbers."""

    __slots__ = ("_edges", "_found", "_hours", "_since", "_when", "model")

    def __init__(self, model: Model, when: Mapping[str, str]) -> None:
        self.model: Model = model
        self._when = dict(when)
        self._since = sorted({row.since for row in model.prices if row.since is not None})
        self._hours = sorted({edge for row in model.prices if row.hours is not None for edge in row.hours})
        self._edges = sorted({row.above for row in model.prices if row.above})
        self._found: dict[tuple[int, int, int], Rates | None] = {}

    def rates(self, at: datetime, tokens: int) -> Rates | None:
        """What holds at a time for a call with so many tokens; None where no row does. Without a zone it is UTC."""
        if at.tzinfo is not None and at.tzinfo is not UTC:
            at = at.astimezone(UTC)
        day = bisect_right(self._since, at.date().isoformat()) if self._since else 0
        hour = bisect_right(self._hours, f"{at:%H:%M}") if self._hours else 0
        place = (day, hour, bisect_left(self._edges, tokens))
        try:
            return self._found[place]
        except KeyError:
            found = self._found[place] = _laid_out(self.model, at, tokens, self._when)
            return found

    def steps(self) -> tuple[int, ...]:
        """A number of tokens for each of its tiers, the first included."""
        return (0, *[edge + 1 for edge in self._edges])

    def reached(self, tokens: int) -> int:
        """How many of its tiers, the first included, a call with so many tokens is beyond the start of."""
        return 1 + bisect_left(self._edges, tokens)

    @property
    def timeless(self) -> bool:
        """Whether its prices are the same at all times."""
        return not self._since and not self._hours

    @property
    def hours(self) -> tuple[str, ...]:
        """The times of day at which prices change."""
        return tuple(self._hours)


_MANY = 1024
_sheets: dict[Key, Sheet] = {}


def sheet(model: Model, when: Mapping[str, str] | None = None) -> Sheet:
    """The price table of a model for calls of a kind, kept for the next one."""
    # The sheet holds the model, so that while it is kept no other has its id.
    key = (id(model), tuple(sorted(when.items())) if when else ())
    found = _sheets.get(key)
    if found is None:
        if len(_sheets) >= _MANY:
            _sheets.clear()
        found = _sheets[key] = Sheet(model, when or {})
    return found


def _laid_out(model: Model, at: datetime, tokens: int, when: Mapping[str, str]) -> Rates | None:
    """The usual row, over it what special cases say, over all the user's own, the most particular last."""
    held = [row for row in model.prices if row.holds(at, tokens, when)]
    table = [row for row in held if not isinstance(row, Override)]
    usual = next((row for row in table if not row.when), None)
    layers: list[Price] = [usual] if usual is not None else []
    layers += [row for row in reversed(table) if row.when]
    layers += reversed([row for row in held if isinstance(row, Override)])
    if not layers:
        return None
    prices: dict[str, Rate] = {}
    for row in layers:
        case = Case(row.since, row.above, row.hours, row.when, row.origin if isinstance(row, Override) else None)
        for name in _TOKEN_PRICES:
            if (amount := getattr(row, name)) is not None:
                prices[name] = _rate(name, amount, 1_000_000, case)
        for name, amount in row.other.items():
            prices[name] = _rate(name, amount, next((per for end, per in _PER.items() if name.endswith(end)), 1), case)
    spoken = {pair for row in held for pair in row.when.items()}
    return Rates(prices, tuple(f"{key} {value}" for key, value in when.items() if (key, value) not in spoken))


def _rate(name: str, price: Decimal, per: int, case: Case) -> Rate:
    return Rate(EXACT.divide(price, Decimal(per)), price, per, name, case)
