"""Clients that stream and ask until they are killed. A first process loads everything once; each victim is a fork of
it, because loading takes longer than living."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

KEY = "sk-simulated-0123456789"
MODEL = "openai/gpt-5.4-mini"
LIMIT = "1000"
BUDGET = "everything"

NURSERY = """
import os, sys
import httpx2, sqlalchemy.dialects.sqlite, sqlalchemy.dialects.postgresql, psycopg
import polyvox.books, polyvox.client, polyvox.dialects.openai_chat, polyvox.transports.http
from tests.kill_worker import live
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(*line.rstrip("\\n").split("\\t"))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def money(database):
    """A budget that every call counts in, in this database."""
    from polyvox.budgets import Budget, Budgets, SqlStore

    return Budgets([Budget(LIMIT, name=BUDGET, warn_at=())], SqlStore(database))


def settings(base_url):
    """Where a provider whose prices are known is the one at this address."""
    from polyvox.config import Settings

    row = {"base_url": base_url, "hosts": ["127.0.0.1"], "api_key": KEY}
    return Settings(providers={"openai": row})


def live(place, base_url, diary, name, workers):
    """Make calls for ever, several at once, every other one streamed; say in a file which ended well. Each call has a
    user of its own, so that whoever answers it knows it."""
    import asyncio

    from polyvox import AsyncClient
    from polyvox.database import Database
    from polyvox.ledger import Ledger

    handle = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def worker(client, number):
        for count in range(1_000_000):
            user = f"{name}-{number}-{count}"
            if (number + count) % 2:
                answer = await client.stream(f"a story of {user}", user=user).finish()
            else:
                answer = await client.ask(f"hello from {user}", user=user)
            os.write(handle, f"{user} {answer.usage.input} {answer.usage.output} {answer.cost.amount:f}\n".encode())

    async def all_of_them():
        database = Database(place, patience=10)  # they die by being killed, not of a disk that is busy
        facts = {"settings": settings(base_url), "max_tokens": 100, "retries": 0}
        async with AsyncClient(MODEL, ledger=Ledger(database), budgets=money(database), **facts) as client:
            await asyncio.gather(*[worker(client, number) for number in range(int(workers))])

    asyncio.run(all_of_them())


def said(diary):
    """What victims said ended well: tokens in, tokens out and cost as text, by the user of the call."""
    lines = diary.read_text().splitlines(keepends=True) if diary.exists() else []
    rows = [line.split() for line in lines if line.endswith("\n")]
    return {user: (int(asked), int(answered), cost) for user, asked, answered, cost in rows}


class Nursery:
    """Brings up victims, one after another."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", NURSERY], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def live_and_die(self, *facts, until):
        """A victim that is killed as soon as `until` comes back."""
        self.process.stdin.write("\t".join(map(str, facts)) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        try:
            until()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            assert self.process.stdout.readline() == "dead\n"

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
