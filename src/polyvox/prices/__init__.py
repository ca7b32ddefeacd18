"""Money of calls: `cost` says what one cost, `bound` and `most` what it can cost at most, `again` prices the past anew.
Pure: counts and price tables go in, exact amounts come out; it knows no provider, no clock and no database."""

from __future__ import annotations

from polyvox.prices.bill import cost
from polyvox.prices.bound import bound, most
from polyvox.prices.calls import again, served
from polyvox.prices.overrides import Override, overridden, overrides_of
from polyvox.prices.values import Bill, Bound, Case, Line

__all__ = [
    "Bill",
    "Bound",
    "Case",
    "Line",
    "Override",
    "again",
    "bound",
    "cost",
    "most",
    "overridden",
    "overrides_of",
    "served",
]
