"""The caches in memory and in Redis, which are stores of the core under the names of AI Utilities. How they bound,
expire and share is the stores' business."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from polyvox import portal
from polyvox.compat.ai_utilities.cache.backend import (
    DEFAULT_NAMESPACE,
    CacheStats,
    OwnCache,
    checked_key,
    checked_namespace,
    stats_of,
    value_of,
)
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError
from polyvox.keys import Secret
from polyvox.stores import Store
from polyvox.stores.memory import MemoryStore

T = TypeVar("T")


class _StoreCache(OwnCache):
    """A cache over a store: a namespace is one of its spaces, a value is JSON."""

    _store: Store

    def get(self, key: str) -> Any | None:
        """See `CacheBackend`. What comes back is the caller's own."""
        kept = self._wait(self._store.get(self.namespace, checked_key(key)))
        return None if kept is None else value_of(kept)

    def _put(self, key: str, text: str, life: float | None) -> None:
        self._wait(self._store.put(self.namespace, key, text.encode(), life))

    def _drop(self, key: str) -> None:
        self._wait(self._store.delete(self.namespace, key))

    def _empty(self, namespace: str | None) -> None:
        self._wait(self._store.clear(namespace))

    def stats(self) -> CacheStats:
        """Hits, misses, sets, evictions, size, and whether it works."""
        return stats_of(self._wait(self._store.stats()))

    def close(self) -> None:
        """Let go of it; from then on there is nothing to get and nothing is kept."""
        self._wait(self._store.close())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return portal.run(coroutine)


class MemoryCache(_StoreCache):
    """A cache in this process, for all its threads: at most max_entries, the least recently used goes first.

    >>> cache = MemoryCache()
    >>> cache.set("greeting", {"text": "hello"}, 60)
    >>> cache.get("greeting")
    {'text': 'hello'}
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("max_entries", "namespace")

    def __init__(
        self,
        max_entries: int = 1000,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        with speaking():
            self._store = MemoryStore(max_entries=max_entries, clock=clock)
        self.max_entries = max_entries
        self.namespace: str = checked_namespace(namespace)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # A store in memory never waits, so it needs no loop and no other thread.
        try:
            coroutine.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        coroutine.close()
        raise AssertionError("a store in memory waited")


class RedisCache(_StoreCache):
    """A cache in a Redis server, which machines share; the server bounds it. It needs redis-py: MissingExtraError
    without it, ConfigError for an address that cannot be read. While the server is away there is nothing to get.

    url is redis://, rediss:// or unix://; prefix begins every key there, and `clear` clears what begins so.
    """

    URL: ClassVar[str] = "redis://localhost:6379/0"
    SETTINGS: ClassVar[tuple[str, ...]] = ("url", "namespace")

    def __init__(
        self,
        url: str | Secret = URL,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        prefix: str = "ai_utilities:",
    ) -> None:
        from polyvox.stores.redis import RedisStore

        if not isinstance(url, str | Secret) or not isinstance(prefix, str):
            raise named(InputError("the address and the prefix are text", hint=f"such as {self.URL}", param="url"))
        with speaking():
            self._store = RedisStore(url, prefix=prefix)
        self.namespace: str = checked_namespace(namespace)
