"""The tracker of creative_services that needs nothing: the core's, with errors by their documented names."""

from __future__ import annotations

from typing import Any

from polyvox.compat.errors import speaking
from polyvox.ledger import CallRecord, Ledger
from polyvox.usage import UsageStats as UsageStats
from polyvox.usage import UsageTracker as CoreTracker


class InMemoryTracker(CoreTracker):
    """A tracker that lives as long as its program, usable from any thread; see `polyvox.usage.UsageTracker`. With a
    ledger its rows stay.

    >>> tracker = InMemoryTracker()
    >>> record = tracker.record(llm_id=1, prompt_tokens=100, completion_tokens=500, cost=0.001)
    >>> print(f"${tracker.get_stats().total_cost}, ${tracker.get_stats(user_id=123).total_cost}")
    $0.001, $0
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        with speaking():
            super().__init__(ledger)

    def record(self, *unnamed: Any, **facts: Any) -> CallRecord:
        """See `polyvox.usage.UsageTracker.record`."""
        with speaking():
            return super().record(*unnamed, **facts)

    def track_request(self, *usage: Any, **facts: Any) -> None:
        """See `polyvox.usage.UsageTracker.track_request`."""
        with speaking():
            super().track_request(*usage, **facts)

    def get_stats(self, *unnamed: Any, **filters: Any) -> UsageStats:
        """See `polyvox.usage.UsageTracker.get_stats`."""
        with speaking():
            return super().get_stats(*unnamed, **filters)
