"""What a call cost and what that is made of: lines, the row of the price table behind each, and why an amount is not
known. Plain values; they know no table and compute nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from polyvox.types import Cost, Value


class Case(Value, frozen=True):
    """Which row of the price table a price is from: since when, above how many tokens, at which hours (UTC) and for
    which calls it holds. origin says who said it where it is no row of ours: "prices.toml:3"."""

    since: str | None = None
    above: int = 0
    hours: tuple[str, str] | None = None
    when: dict[str, str] = {}  # noqa: RUF012 - a Struct copies it
    origin: str | None = None

    def __str__(self) -> str:
        """In words, as people read it: "since 2026-10-12, above 272000 tokens"."""
        words = [f"since {self.since}"] if self.since else []
        words += [f"above {self.above} tokens"] if self.above else []
        words += ["{} to {} UTC".format(*self.hours)] if self.hours else []
        words += [f"{key} {value}" for key, value in self.when.items()]
        words += [f"by {self.origin}"] if self.origin else []
        return ", ".join(words) or "always"


class Line(Value, frozen=True):
    """One part of what a call cost. No two lines count the same thing.

    Attributes:
        what: "input" (what was neither cached nor of another kind), "cache_read", "cache_write",
            "cache_write_1h", "audio_input", "output", "reasoning", …, or a unit beside tokens.
        quantity: how many: tokens; seconds where the price is for hours; else single ones.
        price: USD for `per` of them, as the table says it.
        amount: USD, exact.
        priced_as: the price it was taken from, which is another one where it has none of its own.
        case: the row that price stands in.
    """

    what: str
    quantity: int
    price: Decimal
    per: int
    amount: Decimal
    priced_as: str
    case: Case = Case()


class Bill(Cost, frozen=True):
    """The cost of one call with all that led to it. The amounts of the lines add up to the amount.

    Attributes:
        model: the full name of the model whose prices these are.
        lines: empty where the provider told the amount, or where it is not known.
        why: the reason for an unknown amount.
        notes: what was odd about the counts, and how it was read.
        estimated: the counts are an estimate, so the amount is one.
        when, units: what decided beside the counts; with them it can be priced again.
    """

    model: str | None = None
    lines: tuple[Line, ...] = ()
    why: str | None = None
    notes: tuple[str, ...] = ()
    estimated: bool = False
    when: dict[str, str] = {}  # noqa: RUF012 - a Struct copies it
    units: dict[str, int] = {}  # noqa: RUF012 - a Struct copies it

    @property
    def how(self) -> dict[str, Any]:
        """How it came about, as JSON can say it; what does not need saying is left out. Meant to be kept with the
        call: `polyvox.prices.again` reads it."""
        said: dict[str, Any] = {
            "model": self.model,
            "why": self.why,
            "notes": list(self.notes),
            "estimated": self.estimated,
            "when": self.when,
            "units": self.units,
            "lines": [_line(line) for line in self.lines],
        }
        return {key: value for key, value in said.items() if value}


_ALWAYS = Case()
_MANY = 1024
_told: dict[int, tuple[Case, str]] = {}


def _line(line: Line) -> dict[str, Any]:
    said: dict[str, Any] = {
        "what": line.what,
        "quantity": line.quantity,
        "price": _plain(line.price),
        "per": line.per,
        "amount": _plain(line.amount),
    }
    if line.priced_as != line.what:
        said["as"] = line.priced_as
    if case := _said(line.case):
        said["case"] = case
    return said


def _plain(amount: Decimal) -> str:
    """A number without an exponent."""
    text = str(amount)
    return f"{amount:f}" if "E" in text else text


def _said(case: Case) -> str:
    """A row in words, kept for the next line from it; nothing for one that always holds."""
    # What is kept holds the row, so that while it is kept no other has its id.
    found = _told.get(id(case))
    if found is None:
        if len(_told) >= _MANY:
            _told.clear()
        found = _told[id(case)] = case, "" if case == _ALWAYS else str(case)
    return found[1]


class Bound(Value, frozen=True):
    """The most that one attempt can cost, in USD, and the most tokens it can count; None is without a bound, and why
    says what cannot be bounded."""

    amount: Decimal | None = None
    input: int | None = None
    output: int | None = None
    why: str | None = None
