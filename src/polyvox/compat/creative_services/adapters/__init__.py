"""Adapters for applications that exist, as their document prints them. They translate; they know no provider."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.compat.creative_services.adapters.bfagent_compat import AsyncBFAgentLLMBridge as AsyncBFAgentLLMBridge
    from polyvox.compat.creative_services.adapters.bfagent_compat import BFAgentLLMBridge as BFAgentLLMBridge

_HOME = {
    "AsyncBFAgentLLMBridge": "bfagent_compat",
    "BFAgentLLMBridge": "bfagent_compat",
    "DjangoLLMRegistry": "django_adapter",
    "DjangoUsageTracker": "django_adapter",
}
__all__ = ["AsyncBFAgentLLMBridge", "BFAgentLLMBridge"]


def __getattr__(name: str) -> Any:
    """Load a name's module on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{room}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__]
