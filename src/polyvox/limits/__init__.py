"""How much a deployment may be asked: leases for calls at a time, requests and tokens a minute; who is left alone after
failures; who waits, and in what order; and what providers teach of their limits. It chooses no deployment."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyvox.limits.breaker import Breaker, allowed
from polyvox.limits.learned import Learned, Pause
from polyvox.limits.memory import MemoryLeases
from polyvox.limits.queue import FairQueue
from polyvox.limits.values import NO_LIMITS, Full, Lease, Leases, Limits, LimitsAwayError, LimitsHealth, Used

if TYPE_CHECKING:
    from polyvox.limits.redis import RedisLeases as RedisLeases

__all__ = [
    "NO_LIMITS", "Breaker", "FairQueue", "Full", "Learned", "Lease", "Leases", "Limits", "LimitsAwayError",
    "LimitsHealth", "MemoryLeases", "Pause", "RedisLeases", "Used", "allowed",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The one in Redis is loaded on first use."""
    if name == "RedisLeases":
        return import_module("polyvox.limits.redis").RedisLeases
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
