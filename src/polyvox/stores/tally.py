"""What a store counts, and how it says once, not a thousand times, that something is wrong."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Any, Literal, Protocol

from polyvox.keys import redact
from polyvox.stores.contract import StoreStats

log: logging.Logger = logging.getLogger("polyvox.stores")

Counted = Literal["hits", "misses", "stored", "evictions", "expired", "damaged", "errors"]


class Tally:
    """The counts and the state of one store, for use from any thread. name is what warnings call it."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.why: str | None = None
        self._counts: dict[str, int] = {}
        self._odd: set[str] = set()
        self._lock = threading.Lock()

    def count(self, what: Counted, many: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + many

    def trouble(self, why: str) -> None:
        """It does not work now; warned of once, until it worked again."""
        self.count("errors")
        first, self.why = self.why is None, redact(why)
        if first:
            log.warning("%s does not work, so nothing is kept in it: %s", self.name, self.why)

    def well(self) -> None:
        """It works."""
        if self.why is not None:
            self.why = None
            log.info("%s works again", self.name)

    def odd(self, sort: str, what: str) -> None:
        """Something that should not be there is; warned of once for each sort."""
        with self._lock:
            known = sort in self._odd
            self._odd.add(sort)
        if not known:
            log.warning("%s: %s", self.name, redact(what))

    def stats(self, entries: int | None = None, size: int | None = None) -> StoreStats:
        """All of it."""
        with self._lock:
            counts: dict[str, Any] = dict(self._counts)
        state: Literal["ok", "degraded"] = "ok" if self.why is None else "degraded"
        return StoreStats(kind=self.kind, entries=entries, bytes=size, state=state, why=self.why, **counts)

    def after_fork(self) -> None:
        """A child's lock is its own: another thread may have held it while the process was forked."""
        self._lock = threading.Lock()


class _Forked(Protocol):
    def after_fork(self) -> None: ...


_stores: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_forks(store: _Forked) -> None:
    """Call its `after_fork` in every child of this process, as long as it lives."""
    _stores.add(store)


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
