"""Calls to write down, by plain descriptions, and what must be found of them."""

import asyncio
import time
from decimal import Decimal

from polyvox.database import run
from polyvox.ledger import AttemptEnd, CallEnd
from polyvox.types import Attempt, Usage

USAGE = Usage(input=100, output=20, cache_read=60, reasoning=5, total=120, source="provider")


def ended(start, **facts):
    """The end of a call, with everything in it that a call may have."""
    said = {
        "duration": 1_500_000,
        "first_token": 300_000,
        "finish_reason": "stop",
        "usage": USAGE,
        "cost": Decimal("0.00125"),
        "cost_source": "catalog",
        "cost_how": {"since": "2026-01-01", "tier": "flex"},
        "request_id": "req-1",
        "attempts": (AttemptEnd(attempt=Attempt("demo/parrot", 1.5, request_id="req-1"), usage=USAGE),),
    }
    return CallEnd(start=start, **{**said, **facts})


FACTS = {"deployment": "demo/parrot", "provider": "demo", "model": "parrot"}


def starting(ledger, **facts):
    return ledger.start(**{**FACTS, **facts})


async def call(ledger, end=None, **facts):
    """A whole call; its id."""
    start = starting(ledger, **facts)
    await ledger.begin(start)
    await ledger.finish(ended(start, **(end or {})))
    return start.id


def make_calls(ledger, count, **facts):
    """So many whole calls at once; their ids."""

    async def all_of_them():
        return await asyncio.gather(*[call(ledger, **facts) for _ in range(count)])

    return asyncio.run(all_of_them())


def begin(ledger, **facts):
    """A call that only begins."""
    start = starting(ledger, **facts)
    asyncio.run(ledger.begin(start))
    return start


def finish(ledger, start, **facts):
    asyncio.run(ledger.finish(ended(start, **facts)))


def states(ledger):
    """The state of every call, by id; fails when a call has two rows."""
    records = list(ledger.history.export())
    found = {record.id: record.state for record in records}
    assert len(found) == len(records)
    return found


def count(ledger, table):
    return ledger.database.read_sync(lambda connection: run(connection, f"SELECT count(*) FROM {table}").scalar())


def until(true, seconds=60):
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
