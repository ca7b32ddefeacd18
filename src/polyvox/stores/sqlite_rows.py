"""What is done to the rows of a store in SQLite, within a transaction of the writer: what is live, what has to go.
Times in the rows are whole microseconds since the epoch."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping

from polyvox.stores.clocks import SKEW
from polyvox.stores.frame import framed, unframed
from polyvox.stores.tally import Counted, Tally

SECOND = 1_000_000
SWEEP_SECONDS = 60
COUNT_EVERY = 64
"""Transactions after which the rows are counted anew: other processes write too."""

GET = "SELECT value, created_at, expires_at FROM cache WHERE space = ? AND key = ?"
_SIZE = "SELECT size FROM cache WHERE space = ? AND key = ?"
_PUT = """INSERT INTO cache (space, key, value, size, created_at, expires_at, used_at) VALUES (?, ?, ?, ?, ?, ?, ?)
          ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, size = excluded.size,
          created_at = excluded.created_at, expires_at = excluded.expires_at, used_at = excluded.used_at"""
_OVER = "expires_at <= ? OR created_at > ?"
_OLDEST = "SELECT rowid, size FROM cache ORDER BY used_at LIMIT ?"


def live(kept: tuple[bytes, int, int | None], now: float) -> bool:
    """Whether a row has time left. One from the future was written by a clock that was wrong: its end is wrong too."""
    _, created, end = kept
    return (end is None or end > now * SECOND) and created <= (now + SKEW) * SECOND


class Rows:
    """The rows, as the writer sees them: used between `begin` and `end`."""

    connection: sqlite3.Connection

    def __init__(self, max_entries: int, max_bytes: int, *, wall: Callable[[], float], tally: Tally) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._wall = wall
        self._tally = tally
        self._entries = self._bytes = 0
        self._turns = 0
        self._swept = float("-inf")
        self._counts: dict[Counted, int] = {}
        self._before = (0, 0, float("-inf"))
        self._freed = False

    # ---- a transaction ------------------------------------------------------------------------

    def begin(self, connection: sqlite3.Connection, *, fresh: bool) -> None:
        """A transaction has begun; fresh says that it may be another file."""
        self.connection = connection
        self._counts = {}
        self._freed = False
        if fresh or self._turns % COUNT_EVERY == 0:
            self._recount()
        if fresh:
            self._swept = float("-inf")
        self._before = self._entries, self._bytes, self._swept

    def end(self) -> None:
        """Make room before the transaction ends."""
        self._turns += 1
        if self._wall() - self._swept >= SWEEP_SECONDS:
            self.clean()
        if self._entries > self.max_entries or self._bytes > self.max_bytes:
            self._recount()
            self._evict()

    def committed(self) -> None:
        """What was counted is true."""
        for what, many in self._counts.items():
            self._tally.count(what, many)
        if self._freed:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("PRAGMA incremental_vacuum").fetchall()

    def undo(self) -> None:
        """Nothing of it happened."""
        self._entries, self._bytes, self._swept = self._before

    # ---- what is done -------------------------------------------------------------------------

    def put(self, space: str, key: str, value: bytes, life: float | None) -> bool:
        """Keep a value, or forget the key where it is too large or over at once."""
        size = len(value) + len(space) + len(key)
        if size > self.max_bytes or life == 0:
            self.delete(space, key)
            return False
        now = int(self._wall() * SECOND)
        end = None if life is None else now + int(life * SECOND)
        was = self.connection.execute(_SIZE, (space, key)).fetchone()
        self.connection.execute(_PUT, (space, key, framed(space, key, value), size, now, end, now))
        self._entries += was is None
        self._bytes += size - (was[0] if was else 0)
        self._count("stored")
        return True

    def add(self, space: str, key: str, value: bytes, life: float | None) -> bool:
        """Keep a value where there is none."""
        return self._value(space, key) is None and self.put(space, key, value, life)

    def swap(self, space: str, key: str, old: bytes, new: bytes, life: float | None) -> bool:
        """Keep a value in the place of exactly this one."""
        return self._value(space, key) == old and self.put(space, key, new, life)

    def delete(self, space: str, key: str) -> bool:
        """Forget a key; whether it held something that was not over."""
        there = self._value(space, key) is not None
        self._remove("space = ? AND key = ?", (space, key))
        return there

    def drop(self, space: str, key: str, kept: bytes) -> None:
        """Forget a value that is damaged, unless another has taken its place."""
        if self._remove("space = ? AND key = ? AND value = ?", (space, key, kept)):
            self._count("damaged")

    def clear(self, space: str | None) -> int:
        """Forget a space, or all."""
        self._freed = True
        return self._remove("space = ?", (space,)) if space is not None else self._remove("1", ())

    def clean(self) -> int:
        """Remove what is over, and what comes from the future."""
        now = self._wall()
        self._swept = now
        removed = self._remove(_OVER, (int(now * SECOND), int((now + SKEW) * SECOND)))
        if removed:
            self._freed = True
            self._count("expired", removed)
        return removed

    def touch(self, used: Mapping[tuple[str, str], float]) -> None:
        """Note when keys were last read."""
        self.connection.executemany(
            "UPDATE cache SET used_at = max(used_at, ?) WHERE space = ? AND key = ?",
            [(int(when * SECOND), space, key) for (space, key), when in used.items()],
        )

    # ---- within ------------------------------------------------------------------------------

    def _value(self, space: str, key: str) -> bytes | None:
        kept = self.connection.execute(GET, (space, key)).fetchone()
        if kept is None or not live(kept, self._wall()):
            return None
        return unframed(space, key, kept[0])

    def _remove(self, which: str, values: tuple[object, ...]) -> int:
        gone = self.connection.execute(f"DELETE FROM cache WHERE {which} RETURNING size", values).fetchall()  # noqa: S608 - constants of this module
        self._entries -= len(gone)
        self._bytes -= sum(size for (size,) in gone)
        return len(gone)

    def _evict(self) -> None:
        goal = self.max_entries, self.max_bytes
        while self._entries > goal[0] or self._bytes > goal[1]:
            oldest = self.connection.execute(_OLDEST, (100,)).fetchall()
            for row, size in oldest:
                if self._entries <= goal[0] and self._bytes <= goal[1]:
                    break
                self.connection.execute("DELETE FROM cache WHERE rowid = ?", (row,))
                self._entries -= 1
                self._bytes -= size
                self._count("evictions")
            if not oldest:
                self._recount()
                return

    def _recount(self) -> None:
        self._entries, self._bytes = self.connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM cache"
        ).fetchone()

    def _count(self, what: Counted, many: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + many
