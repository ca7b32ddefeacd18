"""Clients that keep all there is to keep: a ledger in SQLite, a budget in memory, prices, a cache that never hits, and
observers. What they cost beside a plain client is what all of it costs a call."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contestants import PROMPT
from polyvox import AsyncClient
from polyvox.budgets import Budget
from polyvox.config import Settings
from polyvox.ledger import Ledger
from polyvox.ledger.values import Durability

PRICES = {"bench/bench": {"input": "3", "output": "15", "cache_read": "0.3"}}
LIMIT = 9_000_000
"""USD: a budget that is counted for each call and never spent."""


def settings(base_url: str) -> Settings:
    """A provider of a priced model at the benchmark's server."""
    row = {"base_url": base_url, "hosts": ["127.0.0.1"], "dialect": "openai.chat", "api_key": "test"}
    return Settings(providers={"bench": row}, prices=PRICES)


class Everything:
    """One client with everything on. Each prompt is another one, so that the cache looks, misses and keeps."""

    def __init__(self, base_url: str, durability: Durability, hooks: tuple[Any, ...]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="polyvox-benchmark-"))
        self.ledger = Ledger(self.folder / "ledger.db", durability=durability)
        self.client = AsyncClient(
            "bench/bench",
            settings=settings(base_url),
            ledger=self.ledger,
            budgets=[Budget(LIMIT, window="month", warn_at=())],
            cache=True,
            hooks=hooks,
            max_tokens=400,
        )
        self.asked = 0

    def prompt(self) -> str:
        """A prompt that nobody asked before."""
        self.asked += 1
        return f"{PROMPT} {self.asked}"

    async def chat(self) -> str:
        response = await self.client.ask(self.prompt())
        if not response.cost.amount:
            raise RuntimeError(f"this call has no price: {response.cost}")
        return response.text

    async def stream(self) -> str:
        return "".join([text async for text in self.client.stream(self.prompt())])

    async def close(self) -> None:
        await self.client.close()
        health = self.ledger.health()
        self.ledger.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if health.state != "ok":
            raise RuntimeError(f"the ledger did not keep up: {health}")
