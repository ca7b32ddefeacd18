"""The providers of AI Utilities behind one interface, and the factory that knows them by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.providers.base_provider import BaseProvider as BaseProvider
    from polyvox.compat.ai_utilities.providers.catalog_provider import CatalogProvider as CatalogProvider
    from polyvox.compat.ai_utilities.providers.conformance import check_provider as check_provider
    from polyvox.compat.ai_utilities.providers.factory import create_provider as create_provider
    from polyvox.compat.ai_utilities.providers.factory import provider_names as provider_names
    from polyvox.compat.ai_utilities.providers.factory import register_provider as register_provider
    from polyvox.compat.ai_utilities.providers.groq_provider import GroqProvider as GroqProvider
    from polyvox.compat.ai_utilities.providers.ollama_provider import OllamaProvider as OllamaProvider
    from polyvox.compat.ai_utilities.providers.openai_provider import OpenAIProvider as OpenAIProvider

_ROOMS = {
    "BaseProvider": "base_provider",
    "CatalogProvider": "catalog_provider",
    "GroqProvider": "groq_provider",
    "OllamaProvider": "ollama_provider",
    "OpenAIProvider": "openai_provider",
    "check_provider": "conformance",
    "create_provider": "factory",
    "provider_names": "factory",
    "register_provider": "factory",
}

__all__ = sorted(_ROOMS)  # noqa: PLE0605 - the names above, each once


def __getattr__(name: str) -> Any:
    """Each is loaded on first use."""
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
