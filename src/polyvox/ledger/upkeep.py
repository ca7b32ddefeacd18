"""What is done to a ledger as a whole: old calls are removed, and calls are priced anew. In small steps between which
others write; it knows no prices."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from polyvox.database import Database, DatabaseError, Unit, dollars, micros, pico, run, run_many
from polyvox.ledger.columns import CALL, record_of
from polyvox.ledger.ids import floor_of
from polyvox.ledger.values import CallRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

STEP = 500
"""Calls that one transaction touches."""

_SELECT = f"SELECT {', '.join(CALL)} FROM calls"  # noqa: S608 - columns of ours


class NewPrice(NamedTuple):
    """What a call costs by another price: USD or None for unknown, who says so, and how it came about."""

    cost: Decimal | None
    source: str = "catalog"
    how: Mapping[str, Any] | None = None


class Repriced(NamedTuple):
    """What pricing anew did: calls looked at, calls changed, what they cost before and after; in USD, the sum of what
    was known."""

    seen: int
    changed: int
    before: Decimal
    after: Decimal


class Upkeep:
    """Work on a whole ledger. Its methods wait, for as long as it takes; call them outside of event loops."""

    def __init__(self, database: Database, wall: Callable[[], float] = time.time) -> None:
        self.database: Database = database
        self.wall: Callable[[], float] = wall

    def prune(self, before: datetime) -> int:
        """Remove calls that started before a time, and their attempts and texts; how many. Open calls stay: they end
        first. DatabaseAwayError where the database is away; what was removed by then stays removed."""
        edge, removed = micros(before), 0
        while count := self.database.write_sync(Prune(edge)):
            removed += count
        return removed

    def prune_soon(self, edge: int) -> None:
        """The same in the background, for calls before this microsecond."""
        self.database.post(Prune(edge, again=self.database))

    def reprice(self, since: datetime, price: Callable[[CallRecord], NewPrice | None]) -> Repriced:
        """Price every ended call from a time on anew. price gets the record of a call, without its attempts, and gives
        what it costs now, or None to leave it as it is."""
        start, end = floor_of(micros(since)), floor_of(int(self.wall() * 1_000_000) + 1)
        seen = changed = 0
        before = after = Decimal(0)

        def ask(connection: Connection) -> Sequence[Any]:
            text = f"{_SELECT} WHERE id > ? AND id < ? AND state <> 0 ORDER BY id LIMIT {STEP}"
            return [dict(row) for row in run(connection, text, (start, end)).mappings()]

        while rows := self.database.read_sync(ask):
            news: list[Any] = []
            for row in rows:
                record = record_of(row)
                new = price(record)
                if new is None or (new.cost == record.cost and new.source == record.cost_source):
                    continue
                amount = None if new.cost is None else pico(new.cost)
                how = None if new.how is None else msgspec.json.encode(new.how, enc_hook=str).decode()
                news.append((amount, new.source if amount is not None else "unknown", how, row["id"]))
                before += record.cost or 0
                after += Decimal(0) if amount is None else dollars(amount)
            if news:
                self.database.write_sync(Reprice(news))
            seen, changed, start = seen + len(rows), changed + len(news), bytes(rows[-1]["id"])
        return Repriced(seen, changed, before, after)


class Reprice(Unit):
    """Writes new costs of some calls."""

    def __init__(self, news: list[Any]) -> None:
        self.news = news

    def apply(self, connection: Connection) -> None:
        """Write them."""
        run_many(connection, "UPDATE calls SET cost = ?, cost_source = ?, cost_how = ? WHERE id = ?", self.news)


class Prune(Unit):
    """Removes some of the calls before a microsecond; how many. With a database it goes on by itself until none is
    left."""

    def __init__(self, edge: int, again: Database | None = None) -> None:
        self.edge: int = edge
        self.again: Database | None = again

    def apply(self, connection: Connection) -> int:
        """Remove the oldest."""
        floor = floor_of(self.edge)
        rows = run(connection, f"SELECT id FROM calls WHERE id < ? AND state <> 0 ORDER BY id LIMIT {STEP}", (floor,))  # noqa: S608
        calls = [(bytes(row[0]),) for row in rows]
        for table, column in (("contents", "call"), ("attempts", "call"), ("calls", "id")):
            run_many(connection, f"DELETE FROM {table} WHERE {column} = ?", calls)  # noqa: S608
        if not calls:
            run(connection, "DELETE FROM instances WHERE ended < ?", (self.edge,))
        return len(calls)

    def committed(self, result: int) -> None:
        """Go on."""
        if result and self.again is not None:
            self.again.post(Prune(self.edge, self.again))

    def refused(self, error: DatabaseError) -> int:
        """In the background another day does."""
        if self.again is None:
            raise error
        return 0
