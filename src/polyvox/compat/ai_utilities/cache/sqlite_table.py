"""The table that AI Utilities' document prints for its SQLite cache, made or taken over. The care of its file is the
core's, `polyvox.stores.sqlite_file`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

from polyvox.stores.sqlite_file import Layout

MARK = 0x50565841
"""What `PRAGMA application_id` says of a file of ours: "PVXA". One that the document's own block made says 0."""
SCHEMA = 1
BUSY_SECONDS = 5.0
COLUMNS = ("key", "value", "namespace", "created_at", "expires_at")
_ALL = f"SELECT {', '.join(COLUMNS)} FROM cache"  # noqa: S608 - constants

TABLES = (
    """CREATE TABLE IF NOT EXISTS cache (
           key TEXT PRIMARY KEY, value TEXT, namespace TEXT, created_at TIMESTAMP, expires_at TIMESTAMP)""",
    "CREATE INDEX IF NOT EXISTS cache_by_namespace ON cache (namespace)",
    "CREATE INDEX IF NOT EXISTS cache_by_age ON cache (created_at)",
    "CREATE INDEX IF NOT EXISTS cache_by_end ON cache (expires_at)",
)
PUT = "INSERT OR REPLACE INTO cache (key, value, namespace, created_at, expires_at) VALUES (?, ?, ?, ?, ?)"


def full_key(namespace: str, key: str) -> str:
    """The text of a key in the table, whose only key it is: with its namespace, so that two namespaces fit."""
    return f"{quote(namespace, safe='')}:{key}"


def moment(seconds: float) -> str:
    """A time since the epoch as the table has it: UTC, in a form that sorts and that SQLite's own functions read."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def layout(wall: Callable[[], float]) -> Layout:
    """The table as files of the core have theirs; wall says when rows without a time are taken to have been made."""
    return Layout(
        MARK, SCHEMA, f"{_ALL} LIMIT 1", lambda connection: _make(connection, wall()), _is_printed, BUSY_SECONDS
    )


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(cache)")}


def _is_printed(connection: sqlite3.Connection) -> bool:
    """Whether it has the table as the document's own block makes it."""
    return _columns(connection).issuperset(COLUMNS)


def _make(connection: sqlite3.Connection, now: float) -> None:
    """Make the table; one that the document's own block made keeps what can be read of it."""
    found = connection.execute(_ALL).fetchall() if _columns(connection) else []
    if found:
        connection.execute("DELETE FROM cache")
    for statement in TABLES:
        connection.execute(statement)
    connection.executemany(PUT, [row for row in (_ours(*row, now=now) for row in found) if row is not None])


def _ours(
    key: object, value: object, namespace: object, created: object, end: object, *, now: float
) -> tuple[str, str, str, str, str | None] | None:
    """A row that somebody else wrote, as we write it; None for one that says nothing, or not until when it holds."""
    began, over = _seconds(created), _seconds(end)
    if not isinstance(key, str) or not isinstance(value, str) or (over is None and end is not None):
        return None
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return None
    space = namespace if isinstance(namespace, str) and namespace else "default"
    return (
        full_key(space, key), value, space, moment(now if began is None else began),
        None if over is None else moment(over),
    )  # fmt: skip


def _seconds(said: object) -> float | None:
    """A time that somebody else wrote: seconds since the epoch, or a date in ISO form, UTC where it names no zone."""
    try:
        if isinstance(said, int | float):
            datetime.fromtimestamp(said, UTC)
            return float(said)
        if isinstance(said, str):
            read = datetime.fromisoformat(said)
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return None
