"""creative_services as its two documents print it: a client for every provider, a choice by tier, usage, and adapters
for applications that exist. Names are loaded on first touch; what they do, the core does."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.compat.creative_services.core.base_handler import BaseHandler as BaseHandler
    from polyvox.compat.creative_services.core.base_handler import HandlerResult as HandlerResult
    from polyvox.compat.creative_services.core.llm_client import DynamicLLMClient as DynamicLLMClient
    from polyvox.compat.creative_services.core.llm_client import LLMClient as LLMClient
    from polyvox.compat.creative_services.core.llm_client import LLMResponse as LLMResponse
    from polyvox.compat.creative_services.core.llm_config import LLMConfig as LLMConfig
    from polyvox.compat.creative_services.core.llm_config import LLMProvider as LLMProvider
    from polyvox.compat.creative_services.core.llm_registry import DictRegistry as DictRegistry
    from polyvox.compat.creative_services.core.llm_registry import LLMRegistry as LLMRegistry
    from polyvox.compat.creative_services.core.llm_registry import LLMTier as LLMTier
    from polyvox.compat.creative_services.core.usage_tracker import InMemoryTracker as InMemoryTracker
    from polyvox.compat.creative_services.core.usage_tracker import UsageStats as UsageStats
    from polyvox.compat.creative_services.core.usage_tracker import UsageTracker as UsageTracker

_ROOMS = {
    "base_handler": ("BaseHandler", "HandlerResult"),
    "llm_client": ("DynamicLLMClient", "LLMClient", "LLMResponse"),
    "llm_config": ("LLMConfig", "LLMProvider"),
    "llm_registry": ("DictRegistry", "LLMRegistry", "LLMTier"),
    "usage_tracker": ("InMemoryTracker", "UsageStats", "UsageTracker"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a name's module on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.core.{room}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__]
