"""Processes that make calls until they are killed. A first process loads everything once; each victim is a fork of it,
because loading takes longer than living."""

import contextlib
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

NURSERY = """
import os, sys
import sqlalchemy.dialects.sqlite, sqlalchemy.dialects.postgresql, psycopg
from tests.ledger.victims import live
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


def live(place, diary, workers):
    """Make calls for ever, several at once; say in a file what is about to be, and what was."""
    import asyncio
    import random

    from polyvox.ledger import Ledger
    from tests.ledger.calls import ended, starting

    handle = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ledger = Ledger(place)
    chance = random.Random()

    async def worker():
        while True:
            start = starting(ledger)
            await ledger.begin(start)
            # From here on the call is admitted: its first byte may leave.
            os.write(handle, f"admitted {start.id}\n".encode())
            await asyncio.sleep(chance.random() * 0.004)
            cost = Decimal(chance.randrange(1, 10**9)).scaleb(-12)
            # What the provider counts, whether we live to write it down or not.
            os.write(handle, f"billed {start.id} {cost:f}\n".encode())
            await ledger.finish(ended(start, cost=cost))
            os.write(handle, f"done {start.id}\n".encode())

    async def all_of_them():
        await asyncio.gather(*[worker() for _ in range(int(workers))])

    asyncio.run(all_of_them())


class Diary:
    """What a victim said before it died."""

    def __init__(self, path):
        self.admitted, self.billed, self.done = set(), {}, set()
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if not line.endswith("\n"):
                continue
            word, id, *rest = line.split()
            if word == "admitted":
                self.admitted.add(id)
            elif word == "billed":
                self.billed[id] = Decimal(rest[0])
            else:
                self.done.add(id)


class Nursery:
    """Brings up victims, one after another."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", NURSERY], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def live_and_die(self, place, diary, workers, seconds):
        """A victim that is killed so many seconds after its first call was admitted; what it said."""
        self.process.stdin.write(f"{place}\t{diary}\t{workers}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        end = time.monotonic() + 30
        while not (diary.exists() and diary.stat().st_size):
            assert time.monotonic() < end, "the victim made no call"
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(pid, 9)
        assert self.process.stdout.readline() == "dead\n"
        return Diary(diary)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
