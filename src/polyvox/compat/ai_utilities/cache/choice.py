"""Which cache settings mean: a table of names that anybody may add to. It makes one and gives it away."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from polyvox.compat.ai_utilities.cache.backend import CacheBackend
from polyvox.compat.errors import named
from polyvox.errors import ConfigError, InputError

_OURS = {
    "memory": ("stored", "MemoryCache"),
    "sqlite": ("sqlite", "SQLiteCache"),
    "redis": ("stored", "RedisCache"),
}
_added: dict[str, type[CacheBackend]] = {}


def cache_backends() -> tuple[str, ...]:
    """The names that settings.cache_backend may have: ours, then those that were registered.

    >>> cache_backends()[:3]
    ('memory', 'sqlite', 'redis')
    """
    return (*_OURS, *_added)


def register_cache(name: str, cls: type[CacheBackend]) -> Callable[[], None]:
    """Let settings.cache_backend name a cache of somebody else's; call what comes back to take it away again.

    A name that was registered gets the new class. InputError for a name that is none or one of ours, and for what is
    no subclass of `CacheBackend`.
    """
    word = name.strip().lower() if isinstance(name, str) else ""
    if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,62}", word):
        raise named(InputError(f"{name!r} is no name for a cache", hint="letters, digits, - and _"))
    if word in _OURS:
        raise named(InputError(f"{word} is a cache of ours", hint="register yours by another name"))
    if not (isinstance(cls, type) and issubclass(cls, CacheBackend)):
        raise named(InputError(f"{cls!r} is no class of caches", hint="inherit from CacheBackend"))
    _added[word] = cls

    def forget() -> None:
        if _added.get(word) is cls:
            del _added[word]

    return forget


def create_cache(settings: Any) -> CacheBackend | None:
    """The cache that settings choose by cache_backend; None where cache_enabled is off.

    Its class reads what else it needs of them: see `CacheBackend.from_settings`. ConfigError for a name that is not
    known, and for options that its constructor does not take.
    """
    if not hasattr(settings, "cache_enabled"):
        raise named(InputError(f"settings are AiSettings, not {type(settings).__name__}", hint="AiSettings(...)"))
    if not settings.cache_enabled:
        return None
    cls = _class_of(str(settings.cache_backend).strip().lower())
    try:
        return cls.from_settings(settings)
    except TypeError as error:
        raise named(ConfigError(
            f"{cls.__name__} cannot be made with these options: {error}", hint="mend settings.cache_options"
        )) from error  # fmt: skip


def _class_of(name: str) -> type[CacheBackend]:
    if name in _added:
        return _added[name]
    if name not in _OURS:
        near = difflib.get_close_matches(name, cache_backends(), n=1)
        raise named(ConfigError(
            f"there is no cache {name!r}; there are {', '.join(cache_backends())}",
            hint=f"did you mean {near[0]}?" if near else "register_cache(name, cls) adds one",
        ))  # fmt: skip
    module, kind = _OURS[name]
    found: type[CacheBackend] = getattr(import_module(f"polyvox.compat.ai_utilities.cache.{module}"), kind)
    return found
