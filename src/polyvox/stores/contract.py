"""What a store promises, and what it tells about itself. Shapes only."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct


class StoreStats(Struct, frozen=True, kw_only=True):
    """How a store is doing. Counts are of this process since it was made; entries and bytes are what is kept now,
    None where only the server knows.

    evictions made room, expired ones had outlived their time, damaged ones were not what had been put there; errors
    are operations that failed. state "degraded" says that it does not work now, and why.
    """

    kind: str
    entries: int | None = None
    bytes: int | None = None
    hits: int = 0
    misses: int = 0
    stored: int = 0
    evictions: int = 0
    expired: int = 0
    damaged: int = 0
    errors: int = 0
    state: Literal["ok", "degraded"] = "ok"
    why: str | None = None


class Store(Protocol):
    """Bytes by key, in spaces that are cleared by themselves. Usable from any event loop and thread.

    It never raises because of the world: where a disk is full or a server gone there is nothing to get and nothing is
    kept, and `stats` says why. Only what the caller passes can be wrong: InputError. ttl is seconds to live; None lives
    until it is evicted, 0 is over at once. What was put is what comes back, or nothing.
    """

    async def get(self, space: str, key: str) -> bytes | None:
        """What is kept under a key; None where there is nothing, or nothing sound."""

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Keep a value, in the place of another; whether it is kept."""

    async def add(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Keep a value where there is none; whether it was kept. Of many who add at once one does."""

    async def swap(self, space: str, key: str, old: bytes, new: bytes, ttl: float | None = None) -> bool:
        """Keep a value in the place of exactly this one; whether it was there and was replaced."""

    async def delete(self, space: str, key: str) -> bool:
        """Forget a key; whether there was something."""

    async def clear(self, space: str | None = None) -> int:
        """Forget a space, or all; how many entries that were."""

    async def spaces(self) -> tuple[str, ...]:
        """The spaces that hold something, in order."""

    async def stats(self) -> StoreStats:
        """How it is doing."""

    async def clean(self) -> int:
        """Remove what has outlived its time; how many entries that were. It also happens by itself."""

    async def close(self) -> None:
        """Let go of files, threads and connections. From then on there is nothing to get and nothing is kept."""
