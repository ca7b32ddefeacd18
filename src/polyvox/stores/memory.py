"""A store in this process: the least recently used goes first. It outlives nothing."""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from polyvox.errors import InputError
from polyvox.stores.contract import StoreStats
from polyvox.stores.frame import seconds
from polyvox.stores.tally import Tally, watch_forks

Place: TypeAlias = tuple[str, str]
Entry: TypeAlias = tuple[bytes, float | None]


class MemoryStore:
    """See `Store`. It holds at most so many entries and so many bytes of values and keys.

    >>> import asyncio
    >>> async def kept():
    ...     store = MemoryStore(max_entries=100)
    ...     await store.put("greetings", "first", b"hello", ttl=60)
    ...     return await store.get("greetings", "first")
    >>> asyncio.run(kept())
    b'hello'
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        bounds(max_entries, max_bytes)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[Place, Entry] = OrderedDict()
        self._ends: list[tuple[float, Place]] = []
        self._bytes = 0
        self._tally = Tally("memory", "the store in memory")
        self._lock = threading.Lock()
        self._closed = False
        watch_forks(self)

    def __repr__(self) -> str:
        """Its bounds; never what is in it."""
        return f"MemoryStore(max_entries={self.max_entries}, max_bytes={self.max_bytes})"

    async def get(self, space: str, key: str) -> bytes | None:
        """See `Store`."""
        with self._lock:
            value = self._live((space, key))
            if value is not None:
                self._entries.move_to_end((space, key))
        self._tally.count("misses" if value is None else "hits")
        return value

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        with self._lock:
            return self._keep((space, key), value, life)

    async def add(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        with self._lock:
            return self._live((space, key)) is None and self._keep((space, key), value, life)

    async def swap(self, space: str, key: str, old: bytes, new: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        with self._lock:
            return self._live((space, key)) == old and self._keep((space, key), new, life)

    async def delete(self, space: str, key: str) -> bool:
        """See `Store`."""
        with self._lock:
            there = self._live((space, key)) is not None
            self._drop((space, key))
        return there

    async def clear(self, space: str | None = None) -> int:
        """See `Store`."""
        with self._lock:
            places = [place for place in self._entries if space is None or place[0] == space]
            for place in places:
                self._drop(place)
            if not self._entries:
                self._ends.clear()
        return len(places)

    async def spaces(self) -> tuple[str, ...]:
        """See `Store`."""
        with self._lock:
            self._sweep()
            return tuple(sorted({space for space, _ in self._entries}))

    async def stats(self) -> StoreStats:
        """See `Store`."""
        with self._lock:
            self._sweep()
            entries, size = len(self._entries), self._bytes
        return self._tally.stats(entries, size)

    async def clean(self) -> int:
        """See `Store`."""
        with self._lock:
            return self._sweep()

    async def close(self) -> None:
        """See `Store`."""
        self._closed = True
        await self.clear()

    def after_fork(self) -> None:
        """The child has what was in it, and a lock of its own."""
        self._lock = threading.Lock()
        self._tally.after_fork()

    # ---- with the lock held -------------------------------------------------------------------

    def _live(self, place: Place) -> bytes | None:
        entry = self._entries.get(place)
        if entry is None:
            return None
        value, end = entry
        if end is not None and end <= self._clock():
            self._drop(place)
            self._tally.count("expired")
            return None
        return value

    def _keep(self, place: Place, value: bytes, life: float | None) -> bool:
        self._drop(place)
        self._sweep()
        size = _size(place, value)
        if self._closed or life == 0 or size > self.max_bytes:
            return False
        end = None if life is None else self._clock() + life
        self._entries[place] = (value, end)
        self._bytes += size
        if end is not None:
            heapq.heappush(self._ends, (end, place))
        while len(self._entries) > self.max_entries or self._bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            self._tally.count("evictions")
        self._tally.count("stored")
        return True

    def _drop(self, place: Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._bytes -= _size(place, entry[0])

    def _sweep(self) -> int:
        """Drop what is over. The heap also holds ends of entries that are gone or were replaced."""
        now, dropped = self._clock(), 0
        while self._ends and self._ends[0][0] <= now:
            end, place = heapq.heappop(self._ends)
            entry = self._entries.get(place)
            if entry is not None and entry[1] == end:
                self._drop(place)
                dropped += 1
        if len(self._ends) > 2 * len(self._entries) + 64:
            self._ends = [(end, place) for place, (_, end) in self._entries.items() if end is not None]
            heapq.heapify(self._ends)
        if dropped:
            self._tally.count("expired", dropped)
        return dropped


def _size(place: Place, value: bytes) -> int:
    return len(place[0]) + len(place[1]) + len(value)


def bounds(max_entries: int, max_bytes: int) -> None:
    """InputError for bounds that are no positive whole numbers."""
    for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
            raise InputError(f"{name} is a whole number, 1 or more", hint=f"say {name}=1000, or leave it out")
