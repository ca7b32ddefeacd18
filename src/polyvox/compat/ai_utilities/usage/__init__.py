"""Usage tracking under the names of AI Utilities. Sums and rows are the core's."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.usage.tracker import Observer as Observer
    from polyvox.compat.ai_utilities.usage.tracker import UsageTracker as UsageTracker
    from polyvox.compat.ai_utilities.usage.tracker import create_usage_tracker as create_usage_tracker

__all__ = ["Observer", "UsageTracker", "create_usage_tracker"]


def __getattr__(name: str) -> Any:
    """The tracker brings the ledger with it, so it is loaded on first use."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.tracker"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
