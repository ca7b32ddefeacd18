"""What the attempts of a call used and cost together. It prices nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from polyvox.engine.contract import Spent
from polyvox.types import Cost, Usage

NOTHING = Spent(Usage(), Cost(Decimal(0), source="catalog"))
"""What an attempt that nobody bills used and cost."""

_COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning", "total")


def summed(attempts: Sequence[Spent | None]) -> Spent:
    """All attempts together, None for one that nobody bills. One whose cost nobody knows makes the sum unknown."""
    paid = [spent for spent in attempts if spent is not None]
    if not paid:
        return NOTHING
    if len(paid) == 1:
        return paid[0]
    known = [spent.cost.amount for spent in paid if spent.cost.amount is not None]
    if len(known) < len(paid):
        return Spent(_together([spent.usage for spent in paid]), Cost())
    return Spent(_together([spent.usage for spent in paid]), Cost(sum(known, Decimal(0)), source="catalog"))


def _together(usages: Sequence[Usage]) -> Usage:
    counts: dict[str, Any] = {name: _total([getattr(usage, name) for usage in usages]) for name in _COUNTS}
    sources = {usage.source for usage in usages}
    # The least that is known of any holds for all of them.
    source = next(word for word in ("missing", "estimated", "provider") if word in sources)
    return Usage(**counts, source=source)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
