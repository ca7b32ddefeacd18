"""Places for bytes that may be lost: one small protocol in memory, in SQLite and in Redis. What is kept in them, and
what a loss means, is for whoever keeps it to know."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvox.errors import ConfigError
from polyvox.stores.contract import Store, StoreStats

if TYPE_CHECKING:
    from polyvox.stores.memory import MemoryStore as MemoryStore
    from polyvox.stores.redis import RedisStore as RedisStore
    from polyvox.stores.sqlite import SQLiteStore as SQLiteStore

__all__ = ["MemoryStore", "RedisStore", "SQLiteStore", "Store", "StoreStats", "open_store"]

_ROOMS = {
    "MemoryStore": "polyvox.stores.memory",
    "RedisStore": "polyvox.stores.redis",
    "SQLiteStore": "polyvox.stores.sqlite",
}
_SERVERS = ("redis", "rediss", "unix")
_HINT = 'a store is "memory", the path of a file, sqlite:///path, or redis://host:6379/0'


def __getattr__(name: str) -> Any:
    """Each kind is loaded on first use."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_store(place: str | os.PathLike[str], **options: Any) -> Store:
    """The store that a text from a setting names; options go to its kind. Nothing is connected to yet.

    ConfigError for what names none; MissingExtraError where its driver is not installed.

    >>> open_store("memory", max_entries=100)
    MemoryStore(max_entries=100, max_bytes=268435456)
    """
    text = os.fspath(place).strip()
    scheme, separator, rest = text.partition("://")
    made: Store
    if text == "memory":
        made = import_module(_ROOMS["MemoryStore"]).MemoryStore(**options)
    elif separator and scheme.lower() in _SERVERS:
        made = import_module(_ROOMS["RedisStore"]).RedisStore(text, **options)
    elif separator and scheme.lower() == "sqlite" and rest.startswith("/") and len(rest) > 1:
        made = import_module(_ROOMS["SQLiteStore"]).SQLiteStore(rest[1:], **options)
    elif text and not separator and (len(Path(text).parts) > 1 or Path(text).suffix):
        made = import_module(_ROOMS["SQLiteStore"]).SQLiteStore(text, **options)
    else:
        # What may be a URL may hold a password.
        raise ConfigError(f"{scheme if separator else text!r} names no store", hint=_HINT)
    return made
