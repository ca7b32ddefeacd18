"""Writes starts and ends of calls: many of them with one statement each, in any order, twice without harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from polyvox.database import DatabaseError, Unit, run, run_many
from polyvox.ledger.columns import ATTEMPT, BEGUN, BYTES, CALL, CHANGED, CONTENT, TEXTS, Row, Written, joined

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Insert:
    """A statement for many rows of one table. SQLite takes it once for each row; a server takes all rows as one text of
    JSON, which costs this process a quarter of the work and the server half."""

    def __init__(self, table: str, columns: Sequence[str], conflict: str, fixed: Sequence[str] = ()) -> None:
        self.columns: tuple[str, ...] = tuple(columns)
        zeros = ", 0" * len(fixed)
        names = ", ".join((*columns, *fixed))
        typed = ", ".join(f"{name} {'TEXT' if name in BYTES | TEXTS else 'BIGINT'}" for name in columns)
        taken = ", ".join(f"decode({name}, 'base64')" if name in BYTES else name for name in columns)
        into, tail = f"INSERT INTO {table} ({names})", f"ON CONFLICT {conflict}"
        self.single: str = f"{into} VALUES ({', '.join('?' * len(columns))}{zeros}) {tail}"
        given = f"json_to_recordset(?::json) AS given({typed})"
        self.together: str = f"{into} SELECT {taken}{zeros} FROM {given} {tail}"  # noqa: S608 - names of ours

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write rows, no two of which may have the same key."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            run_many(connection, self.single, rows)
            return
        said = msgspec.json.encode([dict(zip(self.columns, row, strict=True)) for row in rows])
        run(connection, self.together, (said.decode(),))


START = Insert("calls", BEGUN, "DO NOTHING", fixed=("usage_source", "own_cache", "losses", "attempts"))
# An end is final; only what was open, or was taken for dead, is filled in.
END = Insert(
    "calls",
    CALL,
    f"(id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CHANGED)} WHERE calls.state IN (0, 4)",
)
ATTEMPTS = Insert("attempts", ATTEMPT, "DO NOTHING")
CONTENTS = Insert(
    "contents",
    CONTENT,
    "(call) DO UPDATE SET prompt = coalesce(excluded.prompt, contents.prompt), "
    "answer = coalesce(excluded.answer, contents.answer), "
    "cut = CASE WHEN excluded.cut > contents.cut THEN excluded.cut ELSE contents.cut END",
)


def write(connection: Connection, written: Iterable[Written]) -> None:
    """Write starts, then ends, then what hangs on them. Of two ends of a call the first counts."""
    starts: list[Row] = []
    ends: dict[bytes, Row] = {}
    attempts: list[Row] = []
    contents: dict[bytes, Row] = {}
    for one in written:
        call = one.call[0]
        if not one.ended:
            starts.append(one.call)
        elif call not in ends:
            ends[call] = one.call
            attempts += one.attempts
        if one.content is not None:
            contents[call] = joined(contents[call], one.content) if call in contents else one.content
    # An end says all that its start does.
    START.run(connection, [start for start in starts if start[0] not in ends])
    END.run(connection, list(ends.values()))
    ATTEMPTS.run(connection, attempts)
    CONTENTS.run(connection, list(contents.values()))


class CallRows:
    """The kind of row that is a start or an end of a call. `make` turns what was said into rows; `keep` takes them
    where the database does not."""

    def __init__(
        self, make: Callable[[Any], Written], keep: Callable[[Sequence[Written], DatabaseError], None]
    ) -> None:
        self.prepare: Callable[[Any], Written] = make
        self._keep = keep

    def apply(self, connection: Connection, rows: Sequence[Written]) -> None:
        """Write them all."""
        write(connection, rows)

    def refused(self, rows: Sequence[Written], error: DatabaseError) -> None:
        """Keep them elsewhere."""
        self._keep(rows, error)


class Opening(Unit):
    """The start of a call as a unit, to be written together with others."""

    def __init__(self, rows: CallRows, start: Any) -> None:
        self.rows: CallRows = rows
        self.start: Any = start

    def apply(self, connection: Connection) -> None:
        """Write it."""
        self.rows.apply(connection, [self.rows.prepare(self.start)])

    def refused(self, error: DatabaseError) -> None:
        """Keep it elsewhere."""
        self.rows.refused([self.rows.prepare(self.start)], error)
