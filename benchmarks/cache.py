"""What a kept answer costs: a hit in memory and in SQLite through a client, beside a bare dict and a bare SELECT; what
a key costs; and what the cache adds to a call that is asked for after all."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import uuid
from pathlib import Path

from benchmarks.figures import REDIS, Figure, Size, awaited, took
from polyvox import AsyncClient
from polyvox.cache import Fingerprint, ResponseCache, fingerprint
from polyvox.compat.ai_utilities.cache import CacheBackend, MemoryCache, RedisCache, SQLiteCache
from polyvox.dialects import Endpoint
from polyvox.ledger import Ledger
from polyvox.stores import MemoryStore, RedisStore, SQLiteStore, Store
from polyvox.testing import Simulator
from polyvox.types import Message, Request, Response, Text, Tool, Usage

LIMITS = {"memory": 40.0, "SQLite": 150.0}
"""Microseconds on the clock that a hit through a client may take."""
ENTRIES = 1000

AT = Endpoint("https://api.example/v1", "demo/small", frozenset({"max_tokens"}), {"version": "1"})
OF: Fingerprint = fingerprint("demo", "small", "openai.chat", endpoint=AT)
ANSWER = Response(
    Message("assistant", (Text("Nothing is as sure as a word that was kept. " * 10),)),
    "stop",
    usage=Usage(200, 90, total=290, source="provider"),
    id="r1",
    model="small-2026",
    created=1.0,
    raw=b"x" * 700,
)


def asked(size: int) -> Request:
    """A request of about so many bytes, with a tool."""
    tool = Tool("look_up", "Looks something up.", {"type": "object", "properties": {"q": {"type": "string"}}})
    return Request("small", (Message("user", (Text("word " * (size // 5)),)),), (tool,), temperature=0.5, max_tokens=99)


def bare(size: Size, folder: Path) -> dict[str, float]:
    """The least a store could do: microseconds."""
    kept = {("space", f"{number:064}"): b"x" * 1500 for number in range(ENTRIES)}
    found = {"dict": took(size, lambda: kept["space", f"{7:064}"]).wall}
    with contextlib.closing(sqlite3.connect(folder / "bare.db")) as connection:
        connection.execute("CREATE TABLE cache (space TEXT, key TEXT, value BLOB, PRIMARY KEY (space, key))")
        connection.executemany("INSERT INTO cache VALUES (?, ?, ?)", [(*key, value) for key, value in kept.items()])
        connection.commit()
        select = "SELECT value FROM cache WHERE space = ? AND key = ?"
        found["SELECT"] = took(size, lambda: connection.execute(select, ("space", f"{7:064}")).fetchone()).wall
    return found


async def hit(size: Size, store: Store, ledger: Ledger | None = None) -> float:
    """Microseconds of a hit among many entries, from `client.ask` to the whole response."""
    cache = ResponseCache(store)
    for number in range(ENTRIES - 1):
        await cache.set(cache.key(Request(f"other-{number}"), OF), ANSWER)
    words = "word " * 200
    with Simulator() as simulator:
        at = simulator.base_url("openai.chat")
        async with AsyncClient(base_url=at, api_key="test", model="m", cache=cache, ledger=ledger) as client:
            await client.ask(words)
            await cache.settle()

            async def once() -> None:
                if (await client.ask(words, cached="only")).attempts:
                    raise AssertionError("this answer was made")

            found = await awaited(size, once)
    await cache.clear()
    await cache.close()
    await store.close()
    return found.wall


def kept(size: Size, backend: CacheBackend) -> tuple[float, float]:
    """Microseconds to get one of many values from a backend of AI Utilities, and to set one."""
    value = {"text": "Nothing is as sure as a word that was kept. " * 10, "usage": {"prompt_tokens": 200}}
    for number in range(ENTRIES - 1):
        backend.set(f"{number:064}", value, 600)
    read = took(size, lambda: backend.get(f"{7:064}")).wall
    if backend.get(f"{7:064}") != value:
        raise AssertionError("this value was not kept")
    written = took(size, lambda: backend.set(f"{7:064}", value, 600)).wall
    backend.clear()
    backend.close()
    return read, written


def _backends(size: Size, place: Path, least: float) -> list[Figure]:
    smaller = size._replace(times=max(20, size.times // 10))
    backends: dict[str, CacheBackend] = {
        "MemoryCache": MemoryCache(),
        "SQLiteCache": SQLiteCache(str(place / "backend.db")),
    }
    with contextlib.suppress(Exception):
        import redis

        with redis.Redis.from_url(REDIS, socket_connect_timeout=2) as there:
            there.ping()
        backends["RedisCache"] = RedisCache(REDIS, prefix=f"polyvox-bench-{uuid.uuid4().hex[:8]}:")
    found = []
    for name, backend in backends.items():
        read, written = kept(smaller, backend)
        found.append(Figure(f"{name}.get", read, "µs", "dict", least))
        found.append(Figure(f"{name}.set", written, "µs", "dict", least))
    return found


async def miss(size: Size) -> float:
    """Microseconds the cache adds to a call that is asked for: the look-up, the flight, and keeping the answer."""
    cache, numbers = ResponseCache(), iter(range(10**9))

    async def make() -> Response:
        return ANSWER

    async def once() -> None:
        await cache.whole(cache.key(Request(f"model-{next(numbers)}"), OF), make)

    found = await awaited(size, once)
    await cache.settle()
    await cache.close()
    return found.wall


def _keys(size: Size, least: float) -> list[Figure]:
    found = []
    for name, length in (("1 KB", 1000), ("100 KB", 100_000)):
        request, cache = asked(length), ResponseCache()
        smaller = size._replace(times=max(20, size.times * 1000 // length))
        spent = took(smaller, lambda request=request, cache=cache: cache.key(request, OF)).wall  # type: ignore[misc]
        found.append(Figure(f"the key of a request of {name}", spent, "µs", "dict", least))
    return found


def measure(size: Size) -> list[Figure]:
    """All figures of the cache."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        least = bare(size, place)
        found = []
        stores: dict[str, tuple[Store, str]] = {
            "memory": (MemoryStore(), "dict"),
            "SQLite": (SQLiteStore(place / "store.db"), "SELECT"),
        }
        for name, (store, beside) in stores.items():
            spent = asyncio.run(hit(size, store))
            found.append(Figure(f"hit, {name}", spent, "µs", beside, least[beside], at_most=LIMITS[name]))
        with Ledger(place / "ledger.db", durability="relaxed") as ledger:
            spent = asyncio.run(hit(size, MemoryStore(), ledger))
        found.append(Figure("hit, memory, written down", spent, "µs", "dict", least["dict"]))
        with contextlib.suppress(Exception):
            import redis

            with redis.Redis.from_url(REDIS, socket_connect_timeout=2) as there:
                there.ping()
            store = RedisStore(REDIS, prefix=f"polyvox-bench-{uuid.uuid4().hex[:8]}:")
            smaller = size._replace(times=max(50, size.times // 10))
            found.append(Figure("hit, Redis", asyncio.run(hit(smaller, store)), "µs", "dict", least["dict"]))
        found.append(Figure("what a miss adds", asyncio.run(miss(size)), "µs", "dict", least["dict"]))
        return found + _keys(size, least["dict"]) + _backends(size, place, least["dict"])
