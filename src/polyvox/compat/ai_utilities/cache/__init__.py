"""The caches of AI Utilities: one interface, kept in memory, in a SQLite file or in Redis, and found by the name that
settings give. They keep values and know nothing of what is asked; off until settings switch one on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.cache.backend import CacheBackend as CacheBackend
    from polyvox.compat.ai_utilities.cache.backend import CacheStats as CacheStats
    from polyvox.compat.ai_utilities.cache.choice import cache_backends as cache_backends
    from polyvox.compat.ai_utilities.cache.choice import create_cache as create_cache
    from polyvox.compat.ai_utilities.cache.choice import register_cache as register_cache
    from polyvox.compat.ai_utilities.cache.keys import _generate_cache_key as _generate_cache_key
    from polyvox.compat.ai_utilities.cache.sqlite import SQLiteCache as SQLiteCache
    from polyvox.compat.ai_utilities.cache.stored import MemoryCache as MemoryCache
    from polyvox.compat.ai_utilities.cache.stored import RedisCache as RedisCache

_ROOMS = {
    "CacheBackend": "backend",
    "CacheStats": "backend",
    "MemoryCache": "stored",
    "RedisCache": "stored",
    "SQLiteCache": "sqlite",
    "_generate_cache_key": "keys",
    "cache_backends": "choice",
    "create_cache": "choice",
    "register_cache": "choice",
}

__all__ = sorted(_ROOMS)  # noqa: PLE0605 - the names above, each once


def __getattr__(name: str) -> Any:
    """Each is loaded on first use."""
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
