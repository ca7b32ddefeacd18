"""A process that spends money under budgets as fast as it can, and writes each cost down where it is charged.

python worker.py spend|hold KIND PLACE PREFIX LOG SEED COUNT
"""

import asyncio
import contextlib
import os
import random
import sys
import time
import uuid
from decimal import Decimal

from polyvox.budgets import Budget, BudgetExceededError, Budgets, Facts, RedisStore, SqlStore
from polyvox.database import Database

LIMIT, ROLLING = Decimal("3"), Decimal("0.5")
SPAN = "1s"
LEASE = 1.5


def rules():
    return [
        Budget(LIMIT, name="all", warn_at=()),
        Budget(LIMIT / 2, each="user", name="user", warn_at=()),
        Budget(ROLLING, window=SPAN, tag="rolling", name="rolling", warn_at=()),
    ]


def opened(kind, place, prefix, lease=60.0):
    """Budgets in a store, and what to close."""
    if kind == "redis":
        return Budgets(rules(), RedisStore(place, prefix=prefix, timeout=20, lease=lease)), contextlib.nullcontext()
    database = Database(place, patience=30)
    return Budgets(rules(), SqlStore(database, lease=lease)), database


class Provider:
    """Charges: one line each, appended whole."""

    def __init__(self, log):
        self.file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def charge(self, facts, cost):
        words = [str(time.time()), facts.user, ",".join(facts.tags) or "-", str(cost)]
        os.write(self.file, (" ".join(words) + "\n").encode())


async def spend(budgets, provider, seed, count):
    """Make calls until there were so many or there is no money."""
    chance = random.Random(seed)
    granted = 0
    for _ in range(count):
        facts = Facts(user=chance.choice(["ann", "bob"]), tags=("rolling",) if chance.random() < 0.4 else ())
        most = Decimal(chance.randrange(1, 200)) / 1000
        try:
            reservation = await budgets.reserve(uuid.uuid4().hex, facts, most)
        except BudgetExceededError:
            continue
        granted += 1
        await asyncio.sleep(chance.random() * 0.003)
        if chance.random() < 0.3:
            await budgets.refund(reservation)
            continue
        cost = most * chance.randrange(0, 101) / 100
        provider.charge(facts, cost)
        await asyncio.sleep(chance.random() * 0.003)
        await budgets.settle(reservation, cost)
    return granted


async def several(budgets, provider, seed, count):
    granted = await asyncio.gather(*[spend(budgets, provider, f"{seed}-{part}", count) for part in range(4)])
    await budgets.close()
    return sum(granted)


async def hold(budgets):
    """Take money and never give it back."""
    for _ in range(5):
        await budgets.reserve(uuid.uuid4().hex, Facts(user="ann"), Decimal("0.2"))
    print("holding", flush=True)
    await asyncio.sleep(60)


def main():
    what, kind, place, prefix, log, seed, count = sys.argv[1:]
    budgets, database = opened(kind, place, prefix, LEASE if what == "hold" else 60.0)
    with database:
        if what == "hold":
            asyncio.run(hold(budgets))
        else:
            print(asyncio.run(several(budgets, Provider(log), seed, int(count))), flush=True)


if __name__ == "__main__":
    main()
