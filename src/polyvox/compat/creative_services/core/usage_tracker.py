"""What was used and what it cost, by the names of creative_services. Its tracker is the core's, whose rows are those
of a ledger; it is loaded on first touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from polyvox.compat.creative_services.core.in_memory import InMemoryTracker as InMemoryTracker
    from polyvox.usage import UsageStats as UsageStats

__all__ = ["InMemoryTracker", "UsageStats", "UsageTracker"]


@runtime_checkable
class UsageTracker(Protocol):
    """What every tracker can do. All arguments are keywords; those that are left out are not known."""

    def record(self, **facts: Any) -> Any:
        """Write down one call: llm_id, user_id, prompt_tokens, completion_tokens, cost (USD), and perhaps
        cached_tokens, model, provider, latency (seconds), success and error. The record."""

    def track_request(self, usage: Any, **facts: Any) -> None:
        """Write down the usage of one request."""

    def get_stats(self, **filters: Any) -> UsageStats:
        """What was used in all, or of the calls of a user_id, an llm_id and what else a tracker knows; zeros where
        there are none."""


def __getattr__(name: str) -> Any:
    """Load the tracker and its sums on first touch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from polyvox.compat.creative_services.core import in_memory

    value = globals()[name] = getattr(in_memory, name)
    return value


def __dir__() -> list[str]:
    return [*__all__]
