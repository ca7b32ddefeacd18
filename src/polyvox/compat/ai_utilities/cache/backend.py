"""What a cache of AI Utilities promises: the methods of both definitions that its document gives, on one class. It
keeps nothing itself."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

from msgspec import Struct

from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, UsageError
from polyvox.stores import StoreStats
from polyvox.stores.frame import seconds

DEFAULT_NAMESPACE = "default"
TTL_SECONDS = 3600


class CacheStats(Struct, frozen=True, kw_only=True):
    """What a cache did since it was made, in this process. size is how many entries it holds now, of all namespaces;
    None where nobody counts. Of state "degraded", why says what does not work."""

    hits: int | None = None
    misses: int | None = None
    sets: int | None = None
    evictions: int | None = None
    expired: int | None = None
    size: int | None = None
    errors: int | None = None
    state: Literal["ok", "degraded"] = "ok"
    why: str | None = None


class CacheBackend(ABC):
    """Values by key, each in a namespace. To add a cache, inherit from it, write `get` and `set`, and whatever else
    the storage can do; `register_cache` gives it a name.

    `namespace` is the one that get, set and delete speak of; `in_namespace` gives the same storage by another.
    """

    namespace: str = DEFAULT_NAMESPACE

    @abstractmethod
    def get(self, key: str) -> Any | None:
        """What is kept under a key; None where there is nothing, so that None itself is never kept."""

    @abstractmethod
    def set(self, key: str, value: Any, ttl: int) -> None:
        """Keep a value for ttl seconds, in the place of another."""

    def delete(self, key: str) -> None:
        """Forget a key; one that there is not is no error."""
        self.set(key, None, 0)

    def clear(self) -> None:
        """Forget everything, in all namespaces."""
        raise named(UsageError(
            f"{type(self).__name__} cannot be cleared", hint="write its method clear()", sent="no"
        ))  # fmt: skip

    def clear_namespace(self, namespace: str) -> None:
        """Forget what is in one namespace."""
        raise named(UsageError(
            f"{type(self).__name__} has no namespaces", hint="write its method clear_namespace(namespace)", sent="no"
        ))  # fmt: skip

    def stats(self) -> CacheStats:
        """What it did; a cache that does not count says nothing."""
        return CacheStats()

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of files and connections."""

    def in_namespace(self, namespace: str) -> Self:
        """The same storage, seen by another namespace. InputError for a name that is none."""
        view = copy.copy(self)
        view.namespace = checked_namespace(namespace)
        return view

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """One as settings have it: their `cache_options` are the arguments of the constructor."""
        return cls(**dict(getattr(settings, "cache_options", None) or {}))


class OwnCache(CacheBackend):
    """What the caches of this package share: what a key, a value and a time to live may be, and which settings they
    read. How a text is put, dropped and emptied (of one namespace, or of all where it is None) is each one's own."""

    SETTINGS: ClassVar[tuple[str, ...]] = ()
    """The arguments that settings also have by name: cache_NAME."""

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        """The arguments that settings have: cache_NAME for each of SETTINGS, then `cache_options`, which win."""
        said = {name: getattr(settings, f"cache_{name}", None) for name in cls.SETTINGS}
        return {name: value for name, value in said.items() if value is not None} | dict(
            getattr(settings, "cache_options", None) or {}
        )

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """See `CacheBackend`."""
        return cls(**cls.options(settings))

    def set(self, key: str, value: Any, ttl: float | None = TTL_SECONDS) -> None:
        """Keep what JSON can say. ttl is seconds: None keeps it until it is evicted, 0 keeps nothing and forgets what
        was there. InputError for None, for what JSON cannot say, and for a ttl that is no time."""
        checked_key(key)
        with speaking():
            self._put(key, text_of(value), seconds(ttl))

    def delete(self, key: str) -> None:
        """See `CacheBackend`."""
        self._drop(checked_key(key))

    def clear(self) -> None:
        """See `CacheBackend`."""
        self._empty(None)

    def clear_namespace(self, namespace: str) -> None:
        """See `CacheBackend`."""
        self._empty(checked_namespace(namespace))

    @abstractmethod
    def _put(self, key: str, text: str, life: float | None) -> None: ...

    @abstractmethod
    def _drop(self, key: str) -> None: ...

    @abstractmethod
    def _empty(self, namespace: str | None) -> None: ...


def checked_namespace(namespace: str) -> str:
    """A namespace; InputError for what is none."""
    if not _is_text(namespace) or len(namespace) > 200:
        raise named(InputError("a namespace is a name of 1 to 200 characters", hint='say namespace="default"'))
    return namespace


def checked_key(key: str) -> str:
    """A key; InputError for what is none."""
    if not _is_text(key):
        raise named(InputError("the key of a cache is text", hint="_generate_cache_key(...) makes one"))
    return key


def _is_text(value: object) -> bool:
    """Whether it is text, not empty, that every storage can write."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def text_of(value: Any) -> str:
    """A value as JSON text. InputError for None, and for what would not come back as it was put."""
    try:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        sound = value is not None and json.loads(text) == value
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise named(InputError(
            f"a cache keeps what JSON can say, which this {type(value).__name__} is not",
            hint="give text, numbers, lists and dicts with text keys" if value is not None
            else "None is what a cache has where there is nothing; delete(key) forgets",
        ))  # fmt: skip
    return text


def value_of(text: str | bytes) -> Any | None:
    """The value in JSON text; None for text that is damaged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def stats_of(store: StoreStats) -> CacheStats:
    """What a store says of itself, in the words of this interface."""
    return CacheStats(
        hits=store.hits,
        misses=store.misses,
        sets=store.stored,
        evictions=store.evictions,
        expired=store.expired,
        size=store.entries,
        errors=store.errors,
        state=store.state,
        why=store.why,
    )
