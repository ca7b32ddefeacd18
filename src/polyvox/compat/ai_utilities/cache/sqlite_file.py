"""The file behind the SQLite cache of AI Utilities: the table that the document prints, made or taken over, and put
aside with its file when that is damaged. It decides nothing about what is kept."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from polyvox.compat.errors import named
from polyvox.database.faults import meaning, told
from polyvox.database.files import (
    Identity,
    beside,
    drop_orphans,
    identity,
    is_no_database,
    make_private,
    put_aside,
    refuse_stranger,
)
from polyvox.errors import ConfigError
from polyvox.stores.tally import watch_forks

log: logging.Logger = logging.getLogger("polyvox.stores")

OURS = 0x50565841
"""What `PRAGMA application_id` says of a file of ours: "PVXA". One that the document's own block made says 0."""
SCHEMA = 1
BUSY_SECONDS = 5.0
COLUMNS = ("key", "value", "namespace", "created_at", "expires_at")

TABLES = (
    """CREATE TABLE IF NOT EXISTS cache (
           key TEXT PRIMARY KEY, value TEXT, namespace TEXT, created_at TIMESTAMP, expires_at TIMESTAMP)""",
    "CREATE INDEX IF NOT EXISTS cache_by_namespace ON cache (namespace)",
    "CREATE INDEX IF NOT EXISTS cache_by_age ON cache (created_at)",
    "CREATE INDEX IF NOT EXISTS cache_by_end ON cache (expires_at)",
)
PUT = "INSERT OR REPLACE INTO cache (key, value, namespace, created_at, expires_at) VALUES (?, ?, ?, ?, ?)"

_inherited: list[sqlite3.Connection] = []
"""Connections that a child got from the process it was forked from: kept, because it must not even close them."""


def full_key(namespace: str, key: str) -> str:
    """The text of a key in the table, whose only key it is: with its namespace, so that two namespaces fit."""
    return f"{quote(namespace, safe='')}:{key}"


def moment(seconds: float) -> str:
    """A time since the epoch as the table has it: UTC, in a form that sorts and that SQLite's own functions read."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


class CacheFile:
    """One connection to the file, for all threads of a process; each process makes its own."""

    def __init__(self, path: str | os.PathLike[str], wall: Callable[[], float]) -> None:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(text, str) or not text.strip() or text == ":memory:" or not text.isprintable():
            raise named(ConfigError(f"{path!r} names no file", hint="MemoryCache() keeps in memory"))
        self.path: Path = Path(text).expanduser().absolute()
        self._wall = wall
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._end: Callable[[], object] | None = None
        self._file: Identity | None = None
        self._beside: dict[str, Identity | None] = {}
        self._closed = False
        watch_forks(self)

    @contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction that writes, for one thread. Raises what SQLite raises."""
        with self._lock:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    @contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """The connection without a transaction, for one thread."""
        with self._lock:
            yield self._opened()

    def quarantine(self, error: BaseException) -> None:
        """Put a damaged file aside, unless another process did. StrangerError for one that was never a cache."""
        with self._lock:
            self._let_go()
            if self._file is not None and identity(self.path) == self._file:
                refuse_stranger(self.path, OURS, self._beside)
                aside = put_aside(self.path, "corrupt", self._wall)
                log.warning(
                    "the cache %s was damaged (%s); it is %s now, and begins anew", self.path, told(error), aside.name
                )

    def close(self) -> None:
        """Let go of the file for good."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise OSError("the cache is closed")
        if self._connection is not None and identity(self.path) != self._file:
            # It was deleted or replaced; SQLite would replay the log it left into the file that took its name.
            known = self._beside
            self._let_go()
            drop_orphans(self.path, known)
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        make_private(self.path)
        self._file = identity(self.path)
        if is_no_database(self.path):
            raise _damaged()
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            prepare(connection, self._wall)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._beside = beside(self.path)
        self._end = weakref.finalize(self, _ended, connection, os.getpid())

    def _let_go(self) -> None:
        if self._end is not None:
            self._end()
        self._connection = self._end = None

    def after_fork(self) -> None:
        """A child makes a connection of its own, and has a lock that no other thread holds."""
        self._lock = threading.RLock()
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = self._end = None


def _ended(connection: sqlite3.Connection, owner: int) -> None:
    if os.getpid() == owner:
        connection.close()
    else:
        _inherited.append(connection)


def _damaged() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("file is not a database")
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error


def is_corrupt(error: BaseException) -> bool:
    """Whether a failure means that the file is damaged."""
    return isinstance(error, sqlite3.Error) and meaning(error) == "corrupt"


# ---- the table ----------------------------------------------------------------------------------


def prepare(connection: sqlite3.Connection, wall: Callable[[], float] = time.time) -> None:
    """Make the table where there is none; take over one that the document's own block made. ConfigError for a file
    with the tables of another program or of a newer version: it is left as it is."""
    if _is_ready(connection):
        _set_up(connection)
        return
    _set_up(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ready(connection):  # another process may have made it meanwhile
            _take_over(connection, wall())
            connection.execute(f"PRAGMA application_id={OURS}")
            connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _set_up(connection: sqlite3.Connection) -> None:
    # While another process opens the file it cannot be switched; it is right either way.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
    # Without a sync for each commit: a power cut may take the last answers, and never the file.
    connection.execute("PRAGMA synchronous=NORMAL")


def _is_ready(connection: sqlite3.Connection) -> bool:
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    columns = {row[1] for row in connection.execute("PRAGMA table_info(cache)")}
    if mark not in (0, OURS) or (columns and not columns.issuperset(COLUMNS)):
        raise named(ConfigError("the file holds the tables of another program", hint="name another file"))
    if mark == OURS and version > SCHEMA:
        raise named(ConfigError("the cache was made by a newer version", hint="name another file"))
    return bool(columns) and mark == OURS


def _take_over(connection: sqlite3.Connection, now: float) -> None:
    found = []
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'cache'").fetchone():
        found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM cache").fetchall()  # noqa: S608 - constants
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
