"""AI Utilities by the names of its document: clients, settings, providers, caches, usage, setup and errors, each
loaded on first use. What they do, the core does."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.compat.ai_utilities.async_client import AsyncAiClient as AsyncAiClient
    from polyvox.compat.ai_utilities.cache import CacheBackend as CacheBackend
    from polyvox.compat.ai_utilities.cache import MemoryCache as MemoryCache
    from polyvox.compat.ai_utilities.cache import RedisCache as RedisCache
    from polyvox.compat.ai_utilities.cache import SQLiteCache as SQLiteCache
    from polyvox.compat.ai_utilities.cache import create_cache as create_cache
    from polyvox.compat.ai_utilities.cache import register_cache as register_cache
    from polyvox.compat.ai_utilities.client import AiClient as AiClient
    from polyvox.compat.ai_utilities.client import create_client as create_client
    from polyvox.compat.ai_utilities.config_resolver import ConfigurationResolver as ConfigurationResolver
    from polyvox.compat.ai_utilities.providers import BaseProvider as BaseProvider
    from polyvox.compat.ai_utilities.providers import CatalogProvider as CatalogProvider
    from polyvox.compat.ai_utilities.providers import GroqProvider as GroqProvider
    from polyvox.compat.ai_utilities.providers import OllamaProvider as OllamaProvider
    from polyvox.compat.ai_utilities.providers import OpenAIProvider as OpenAIProvider
    from polyvox.compat.ai_utilities.providers import check_provider as check_provider
    from polyvox.compat.ai_utilities.providers import create_provider as create_provider
    from polyvox.compat.ai_utilities.providers import register_provider as register_provider
    from polyvox.compat.ai_utilities.results import AskResult as AskResult
    from polyvox.compat.ai_utilities.results import UsageData as UsageData
    from polyvox.compat.ai_utilities.settings import AiSettings as AiSettings
    from polyvox.compat.ai_utilities.setup import SetupWizard as SetupWizard
    from polyvox.compat.ai_utilities.usage import UsageTracker as UsageTracker
    from polyvox.compat.ai_utilities.usage import create_usage_tracker as create_usage_tracker
    from polyvox.compat.names import AIUtilitiesError as AIUtilitiesError
    from polyvox.compat.names import ProviderAPIError as ProviderAPIError
    from polyvox.compat.names import ProviderConfigurationError as ProviderConfigurationError
    from polyvox.compat.names import ProviderError as ProviderError
    from polyvox.compat.names import ProviderRateLimitError as ProviderRateLimitError

_ROOT = "polyvox.compat.ai_utilities"
_NAMES = {
    f"{_ROOT}.client": ("AiClient", "create_client"),
    f"{_ROOT}.async_client": ("AsyncAiClient",),
    f"{_ROOT}.config_models": ("AiSettings",),
    f"{_ROOT}.config_resolver": ("ConfigurationResolver",),
    f"{_ROOT}.results": ("AskResult", "UsageData"),
    f"{_ROOT}.providers": (
        "BaseProvider", "CatalogProvider", "GroqProvider", "OllamaProvider", "OpenAIProvider", "check_provider",
        "create_provider", "register_provider",
    ),
    f"{_ROOT}.cache": (
        "CacheBackend", "MemoryCache", "RedisCache", "SQLiteCache", "create_cache", "register_cache",
    ),
    f"{_ROOT}.usage": ("UsageTracker", "create_usage_tracker"),
    f"{_ROOT}.setup": ("SetupWizard",),
    "polyvox.compat.names": (
        "AIUtilitiesError", "ProviderAPIError", "ProviderConfigurationError", "ProviderError",
        "ProviderRateLimitError",
    ),
}  # fmt: skip
_ROOMS = {name: room for room, names in _NAMES.items() for name in names}

__all__ = sorted(_ROOMS)  # noqa: PLE0605 - the names above, each once


def __getattr__(name: str) -> Any:
    """Each is loaded on first use."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
