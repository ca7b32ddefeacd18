"""What the engine and the client add to a call above its transport and its codec: with one deployment, with a pool of
one that has limits, and with more. The transport answers at once, from memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from benchmarks.contestants import PROMPT
from benchmarks.figures import Figure, Size
from benchmarks.server import PLAIN
from polyvox import AsyncClient
from polyvox.config import Settings
from polyvox.engine import CallOptions
from polyvox.limits import Limits
from polyvox.registry import DictRegistry, Entry
from polyvox.transports import Outgoing, Timeouts
from polyvox.types import Message, Request, Text

LIMITS = Limits(concurrency=64, requests_per_minute=10**9, tokens_per_minute=10**12)
REQUEST = Request("bench", (Message("user", (Text(PROMPT),)),))
OPTIONS = CallOptions(timeout=60.0)
ROW = {"base_url": "http://127.0.0.1:9/v1", "hosts": ["127.0.0.1"], "dialect": "openai.chat", "api_key": "test"}
SETTINGS = Settings(providers={"bench": ROW})
"""A provider whose prices nobody knows: what pricing takes stands by itself."""
OWN = 25.0
"""Microseconds that the engine may take for itself."""

Work = Callable[[], Awaitable[Any]]


class Answer:
    """An answer that is all there."""

    status = 200

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        self.headers = headers
        self._body = body

    async def read(self, limit: int) -> bytes:
        return self._body

    async def chunk(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def close(self) -> None:
        pass


class FromMemory:
    """A transport that has the answer of the benchmark's server in memory."""

    def __init__(self) -> None:
        head, _, self.body = PLAIN.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:]
        self.headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Answer:
        return Answer(self.headers, self.body)

    async def close(self) -> None:
        pass


def client(count: int | None = None) -> AsyncClient:
    """A client of one deployment, or of a pool of so many with limits."""
    if count is None:
        return AsyncClient("bench/bench", settings=SETTINGS, transport=FromMemory())
    entries = [Entry(f"d{number}", "bench/bench", tier="standard", limits=LIMITS) for number in range(count)]
    registry = DictRegistry(entries, settings=SETTINGS)
    return AsyncClient(tier="standard", registry=registry, settings=SETTINGS, transport=FromMemory())


def works() -> dict[str, Work]:
    """What is measured, by what it is called; the first is what the others are above."""
    one = client()
    deployment = one._deployments.get("bench/bench")

    async def bare() -> Any:
        return await deployment.answer(deployment.encoded(REQUEST, OPTIONS)[0])

    found: dict[str, Work] = {
        "": bare,
        "the engine, one deployment": lambda: one._engine.call(REQUEST, deployment, OPTIONS),
        "the whole client, one deployment": lambda: one.ask(PROMPT),
    }
    for count in (1, 3, 100):
        of, pool = _pooled(count)
        named = f"a pool of {count} with limits"
        found[f"the engine, {named}"] = lambda of=of, pool=pool: of._engine.call(REQUEST, pool, OPTIONS)
        found[f"the whole client, {named}"] = lambda of=of: of.ask(PROMPT)
    return found


def _pooled(count: int) -> tuple[AsyncClient, Any]:
    of = client(count)
    return of, of._pooling.find(None, "standard")


async def beside(size: Size, works: dict[str, Work]) -> dict[str, tuple[float, float]]:
    """For each work microseconds of CPU above the first, and those of the first: medians over rounds in which all
    take their turn, because what else the machine does moves them together."""
    rounds: list[dict[str, float]] = []
    for _ in range(size.rounds * 2 + 1):
        took = {}
        for what, work in works.items():
            before = time.process_time()
            for _ in range(size.times):
                await work()
            took[what] = (time.process_time() - before) / size.times * 1e6
        rounds.append(took)
    first, *names = works
    rounds = rounds[1:]  # the first one only warms up
    bare = statistics.median(took[first] for took in rounds)
    return {what: (statistics.median(took[what] - took[first] for took in rounds), bare) for what in names}


def measure(size: Size) -> list[Figure]:
    """All figures of pools."""
    promised = ("the engine, one deployment", "the engine, a pool of 1 with limits")

    async def run() -> dict[str, tuple[float, float]]:
        return await beside(size, works())

    return [
        Figure(what, own, "µs CPU", "transport and codec", bare, at_most=OWN if what in promised else None)
        for what, (own, bare) in asyncio.run(run()).items()
    ]
