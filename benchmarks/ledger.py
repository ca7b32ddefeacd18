"""What the ledger costs: CPU to the caller, how long a call waits, rows a second into each database beside bare
INSERTs, and how long a table of usage takes over years of calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Size, postgres_schema
from polyvox.database import Database, micros
from polyvox.ledger import AttemptEnd, CallEnd, CallStart, History, Ledger
from polyvox.ledger.columns import CALL, Manner, written_end
from polyvox.ledger.ids import new_id
from polyvox.types import Attempt, Usage

USAGE = Usage(input=1200, output=340, cache_read=800, reasoning=90, total=1540, source="provider")
ATTEMPT = AttemptEnd(attempt=Attempt("demo/parrot", 1.5, request_id="req-1"), usage=USAGE, cost=Decimal("0.0042"))
CALLER, RATE, MONTH = 15.0, 5_000.0, 1.0
"""At most so many microseconds of CPU to the caller, at least so many rows a second, at most so many seconds for a
month's usage."""
ROWS = 3
"""Rows of one call: its start, its end and its attempt."""
MODELS = [f"demo/model-{number}" for number in range(20)]


def facts_of(number: int) -> dict[str, Any]:
    model = MODELS[number % len(MODELS)]
    return {"deployment": model, "provider": "demo", "model": model, "stream": True, "user": f"u{number % 100}"}


def end_of(start: CallStart, duration: int) -> CallEnd:
    return CallEnd(
        start=start, duration=duration, first_token=duration // 5, finish_reason="stop", usage=USAGE,
        cost=Decimal("0.0042"), cost_source="catalog", attempts=(ATTEMPT,), request_id="req-1",
    )  # fmt: skip


# ---- a running ledger -------------------------------------------------------------------------


async def calls(ledger: Ledger | None, count: int, at_once: int, waits: list[float]) -> None:
    """Make calls that do nothing else: each begins, lets others have a turn, and ends. Without a ledger they only let
    others have a turn."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            facts = facts_of(number)
            before = time.perf_counter()
            if ledger is not None:
                start = ledger.start(**facts)
                await ledger.begin(start)
            waits.append(time.perf_counter() - before)
            await asyncio.sleep(0)
            if ledger is not None:
                await ledger.finish(end_of(start, 1_500_000))

    await asyncio.gather(*[worker() for _ in range(at_once)])


def caller_cpu(place: str, count: int, *, relaxed: bool) -> float:
    """CPU microseconds a call costs its event loop's thread, beyond what the same loop costs without a ledger."""

    async def spent(ledger: Ledger | None) -> float:
        waits: list[float] = []
        await calls(ledger, 500, 64, waits)
        before = time.thread_time()
        await calls(ledger, count, 64, waits)
        return time.thread_time() - before

    with Ledger(place, durability="relaxed" if relaxed else "commit") as ledger:
        written = min(asyncio.run(spent(ledger)) for _ in range(3))
    bare = min(asyncio.run(spent(None)) for _ in range(3))
    return (written - bare) / count * 1e6


def sustained(place: str, count: int, at_once: int) -> tuple[float, float, float]:
    """Calls a second, and the median and 95th percentile of how long a beginning waits, in seconds."""
    waits: list[float] = []
    with Ledger(place) as ledger:
        asyncio.run(calls(ledger, 200, at_once, []))
        before = time.perf_counter()
        asyncio.run(calls(ledger, count, at_once, waits))
        spent = time.perf_counter() - before
    waits.sort()
    return count / spent, statistics.median(waits), waits[int(len(waits) * 0.95)]


def bare_inserts(place: str, count: int, batch: int) -> tuple[float, float, float]:
    """Rows a second of the same row with nothing but the driver, a transaction for as many as come together; and the
    median and 95th percentile of such a transaction, in seconds."""
    with Database(place) as database:
        address = database.address
    manner = Manner(1)
    first_at = time.time_ns() // 1000
    rows = [written_end(end_of(start_at(first_at + number, number), 1_500_000), manner).call for number in range(count)]
    text = f"INSERT INTO calls ({', '.join(CALL)}) VALUES ({', '.join('?' * len(CALL))})"
    connection: Any
    if address.path is not None:
        connection = sqlite3.connect(address.path)
        connection.execute("PRAGMA synchronous=FULL")
        cursor = connection
    else:
        import psycopg

        connection = psycopg.connect(place)
        cursor, text = connection.cursor(), text.replace("?", "%s")
    spent = []
    for first in range(0, count, batch):
        before = time.perf_counter()
        cursor.executemany(text, rows[first : first + batch])
        connection.commit()
        spent.append(time.perf_counter() - before)
    connection.close()
    return count / sum(spent), statistics.median(spent), sorted(spent)[int(len(spent) * 0.95)]


def start_at(started: int, number: int) -> CallStart:
    return CallStart(id=new_id(started, os.urandom), started=started, **facts_of(number))


# ---- years of calls ---------------------------------------------------------------------------


def loaded(count: int, until: datetime, months: int = 24) -> Iterator[tuple[Any, ...]]:
    """Rows of calls, evenly over the months before a time."""
    chance = random.Random(7)
    last = micros(until)
    step = months * 30 * 86_400_000_000 // count
    manner = Manner(1)
    durations = [int(chance.lognormvariate(14, 1)) for _ in range(1000)]
    samples = [written_end(end_of(start_at(1, number), duration), manner).call for number, duration in
               enumerate(durations)]  # fmt: skip
    for number in range(count):
        started = last - (count - number) * step
        sample = samples[number % len(samples)]
        yield (bytes.fromhex(new_id(started, chance.randbytes)), started, *sample[2:])


def load(place: str, count: int, until: datetime) -> float:
    """Load calls in bulk; seconds."""
    with Database(place) as database:
        address = database.address
    before = time.perf_counter()
    rows = loaded(count, until)
    names = ", ".join(CALL)
    if address.path is not None:
        with contextlib.closing(sqlite3.connect(address.path)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA cache_size=-400000")
            connection.executemany(f"INSERT INTO calls ({names}) VALUES ({', '.join('?' * len(CALL))})", rows)
            connection.commit()
    else:
        import psycopg

        with psycopg.connect(place, autocommit=True) as connection:
            with connection.cursor() as cursor, cursor.copy(f"COPY calls ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.execute("VACUUM ANALYZE calls")
    return time.perf_counter() - before


def month_of_usage(place: str, until: datetime) -> list[float]:
    """Seconds that usage by model of one month takes, a few times over; the first is the coldest."""
    spent = []
    with Database(place) as database:
        history = History(database)
        for _ in range(5):
            before = time.perf_counter()
            rows = history.usage("model", since=until - timedelta(days=60), until=until - timedelta(days=30))
            spent.append(time.perf_counter() - before)
            assert len(rows) == len(MODELS)
    return spent


# ---- all of it --------------------------------------------------------------------------------


def at_once(name: str, place: str, count: int, many: int) -> list[Figure]:
    """What so many calls at a time cost, beside the same rows with nothing but the driver."""
    rate, median, most = sustained(place, count, many)
    bare, middle, slow = bare_inserts(place, count, many)
    beside = f"INSERT, {many} a transaction" if many > 1 else "INSERT"
    found = [
        Figure(f"{name}, a beginning waits, {many} at once, p50", median * 1e3, "ms", beside, middle * 1e3),
        Figure(f"{name}, a beginning waits, {many} at once, p95", most * 1e3, "ms", beside, slow * 1e3),
    ]
    if many > 1:
        found.append(Figure(f"{name}, {many} at once", ROWS * rate, "rows/s", beside, bare, at_least=RATE))
    return found


def measure(size: Size) -> list[Figure]:
    """All figures of the ledger."""
    found = []
    with tempfile.TemporaryDirectory() as folder, postgres_schema() as schema:
        places = {"SQLite": str(Path(folder) / "ledger.db")} | ({"PostgreSQL": schema} if schema else {})
        for name, place in places.items():
            bare = 1e6 / bare_inserts(place, size.times * 2, 64)[0]
            for durability in ("commit", "relaxed"):
                spent = caller_cpu(place, size.times * 2, relaxed=durability == "relaxed")
                what = f"{name}, {durability}, CPU to the caller"
                found.append(Figure(what, spent, "µs CPU", "INSERT, 64 a transaction", bare, at_most=CALLER))
            found += at_once(name, place, max(50, size.times // 10), 1)
            found += at_once(name, place, size.times * 5, 64)
            if size.history:
                until = datetime.now(UTC) - timedelta(hours=1)
                load(place, size.history, until)
                spent = statistics.median(month_of_usage(place, until))
                what = f"{name}, usage by model, one month of {size.history:,} calls in 24"
                found.append(Figure(what, spent, "s", at_most=MONTH))
    return found
