"""What it costs to hold a deployment within its limits: a lease, the breaker, a turn in the queue, a head to read; and
a lease in Redis, beside the round trip that it cannot do without."""

from __future__ import annotations

import asyncio
import threading
import uuid

from benchmarks.figures import REDIS, Figure, Size, awaited, took
from polyvox.dialects.rate_limits import allowances, spent
from polyvox.limits import Breaker, FairQueue, Full, Learned, Limits, MemoryLeases, RedisLeases, allowed

LIMITS = Limits(concurrency=64, requests_per_minute=10**9, tokens_per_minute=10**12)
HEAD = {
    "date": "Sat, 21 Nov 2026 12:00:00 GMT",
    "content-type": "application/json",
    **{f"x-other-{number}": "value" for number in range(12)},
    **{f"x-ratelimit-limit-{of}": "5000" for of in ("requests", "tokens")},
    **{f"x-ratelimit-remaining-{of}": "4999" for of in ("requests", "tokens")},
    **{f"x-ratelimit-reset-{of}": "6m0s" for of in ("requests", "tokens")},
}


def measure(size: Size) -> list[Figure]:
    """All figures of limits."""
    return [*_in_memory(size), *asyncio.run(_awaited(size))]


def _in_memory(size: Size) -> list[Figure]:
    often = size._replace(times=size.times * 10)
    leases, breaker, learned, lock = MemoryLeases(), Breaker(), Learned(), threading.Lock()
    pool = [Breaker() for _ in range(100)]

    def bare() -> None:
        for _ in range(2):
            with lock:
                pass

    def lease() -> None:
        taken = leases.take("a", LIMITS, 100)
        assert not isinstance(taken, Full)
        taken.settle(90)

    def called() -> None:
        breaker.ended(breaker.begin(1.0), None, 1.0)

    least = took(often, bare).cpu
    works = {
        "a success for the breaker": (called, 1.0),
        "who of 100 may be asked": (lambda: allowed(pool, 1.0), None),
        "a success for what was learned": (lambda: learned.well(1.0), None),
        "a head in which something remains": (lambda: spent(HEAD), None),
        "all limits of a head": (lambda: allowances(HEAD), None),
    }
    return [
        Figure("a lease in memory, taken and settled", took(often, lease).cpu, "µs CPU", "two locks", least, at_most=3),
        *(Figure(name, took(often, work).cpu, "µs CPU", at_most=most) for name, (work, most) in works.items()),
    ]


async def _awaited(size: Size) -> list[Figure]:
    queue, leases = FairQueue(), MemoryLeases()
    leases.watch(queue.wake_soon)

    async def free() -> None:
        (await queue.wait(lambda: leases.take("a", LIMITS))).settle()

    figures = [Figure("a turn in the queue where there is room", (await awaited(size, free)).wall)]
    narrow = Limits(concurrency=1)

    async def after_another() -> None:
        held = await queue.wait(lambda: leases.take("b", narrow))
        turn = asyncio.ensure_future(queue.wait(lambda: leases.take("b", narrow), tenant="x"))
        await asyncio.sleep(0)
        held.settle()
        (await turn).settle()

    figures.append(Figure("two turns, one after the other", (await awaited(size, after_another)).wall))
    return figures + await _in_redis(size)


async def _in_redis(size: Size) -> list[Figure]:
    import redis.asyncio

    leases = RedisLeases(REDIS, prefix=f"polyvox-bench-{uuid.uuid4().hex[:8]}:", lasts=2)
    size = size._replace(times=max(size.times // 10, 50))

    async def lease() -> None:
        taken = await leases.take("a", LIMITS, 100)
        assert not isinstance(taken, Full)
        taken.settle(90)

    async with redis.asyncio.Redis.from_url(REDIS) as client:
        try:
            await client.ping()
            bare = (await awaited(size, client.ping)).wall
            return [
                Figure("a lease in Redis, taken and settled", (await awaited(size, lease)).wall, "µs", "PING", bare)
            ]
        except redis.exceptions.ConnectionError:
            return []
        finally:
            await leases.close()
