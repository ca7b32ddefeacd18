"""The sums of what one client of creative_services used. They need no ledger, and no database is loaded for them."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvox.types import Cost, Usage
    from polyvox.usage import UsageStats


class Tally:
    """The sums of what one client used, without any row: they are there without a tracker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = self._errors = self._input = self._output = self._unknown = 0
        self._cost = Decimal(0)

    def add(self, usage: Usage, cost: Cost, *, failed: bool) -> None:
        """Add one call."""
        with self._lock:
            self._calls += 1
            self._errors += failed
            self._input += usage.input or 0
            self._output += usage.output or 0
            self._unknown += cost.amount is None
            self._cost += cost.amount or 0

    def stats(self) -> UsageStats:
        """What was used so far."""
        from polyvox.ledger import UsageRow  # few ask, and it takes long to load
        from polyvox.usage import UsageStats

        with self._lock:
            row = UsageRow(
                key={}, calls=self._calls, ok=self._calls - self._errors, errors=self._errors, input=self._input,
                output=self._output, cost=self._cost, unknown_cost=self._unknown,
            )  # fmt: skip
            return UsageStats(
                requests=self._calls, errors=self._errors, prompt_tokens=self._input, completion_tokens=self._output,
                total_tokens=self._input + self._output, total_cost=self._cost, unknown_cost=self._unknown, row=row,
            )  # fmt: skip
