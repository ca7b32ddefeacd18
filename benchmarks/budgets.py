"""What a budget costs a call: reserving and settling in memory beside two updates of a dict, and in a database and in
Redis beside memory, one after another and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from benchmarks.figures import REDIS, Figure, Size, awaited, postgres_schema, took
from polyvox.budgets import Budget, Budgets, Facts, MemoryStore, RedisStore, SqlStore, Store
from polyvox.database import Database

MOST, COST = Decimal("0.02"), Decimal("0.0132")
FACTS = Facts(key="team-a", user="ann", model="demo/parrot", tags=("night",))
ONE = [Budget(9_000_000, window="month", warn_at=())]
TWO = [*ONE, Budget(9_000_000, window="5h", each="user", warn_at=())]
DICT = "two updates of a dict"


def in_memory(rules: list[Budget], size: Size) -> float:
    """Microseconds that reserving and settling take."""
    budgets, numbers = Budgets(rules, MemoryStore()), iter(range(10**9))

    async def once() -> None:
        await budgets.settle(await budgets.reserve(f"a{next(numbers)}", FACTS, MOST), COST)

    return asyncio.run(awaited(size, once)).wall


async def calls(budgets: Budgets, count: int, at_once: int) -> float:
    """Seconds that so many calls take, each reserved and settled."""
    run = uuid.uuid4().hex
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await budgets.settle(await budgets.reserve(f"{run}-{number}", FACTS, MOST), COST)

    before = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(at_once)])
    return time.perf_counter() - before


@contextlib.contextmanager
def stores() -> Iterator[dict[str, Store]]:
    """Where to measure, beside memory."""
    found: dict[str, Store] = {}
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory())
        found["SQLite"] = SqlStore(undo.enter_context(Database(Path(folder) / "budgets.db")))
        if place := undo.enter_context(postgres_schema()):
            found["PostgreSQL"] = SqlStore(undo.enter_context(Database(place)))
        with contextlib.suppress(Exception):
            import redis

            client = undo.enter_context(redis.Redis.from_url(REDIS, socket_connect_timeout=2))
            client.ping()
            prefix = f"polyvox-bench-{uuid.uuid4().hex[:8]}"
            undo.callback(lambda: [client.delete(key) for key in client.scan_iter(f"{{{prefix}}}*", count=1000)])
            found["Redis"] = RedisStore(REDIS, prefix=prefix, timeout=10)
        yield found


def measure(size: Size) -> list[Figure]:
    """All figures of budgets."""
    held: dict[str, Decimal] = {}

    def update() -> None:
        held["a"] = MOST
        held["a"] = COST

    bare = took(size._replace(times=size.times * 10), update).wall
    one, two = in_memory(ONE, size), in_memory(TWO, size)
    found = [
        Figure("memory, one budget", one, "µs", DICT, bare),
        Figure("memory, two budgets, one of them rolling", two, "µs", DICT, bare),
    ]
    with stores() as places:
        for name, store in places.items():
            for at_once in (1, 64):
                budgets = Budgets(TWO, store)
                asyncio.run(calls(budgets, 50, at_once))
                count = size.times // 10 * (1 if at_once == 1 else 5)
                spent = asyncio.run(calls(budgets, count, at_once)) / count * 1e6
                found.append(Figure(f"{name}, two budgets, {at_once} at once", spent, "µs", "memory", two))
            asyncio.run(store.close())
    return found
