"""A file of SQLite in which answers are kept: made private, checked for being ours, put aside when it is damaged, left
alone by a child of a fork. Which tables it has is said to it; it decides nothing about what is kept."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from polyvox.database.faults import meaning, told
from polyvox.database.files import (
    beside,
    drop_orphans,
    identity,
    is_no_database,
    make_private,
    put_aside,
    refuse_stranger,
    warn_of_network,
)

log: logging.Logger = logging.getLogger("polyvox.stores")

OURS = 0x50565843
"""What `PRAGMA application_id` says of our file: "PVXC"."""
SCHEMA = 1
BUSY_SECONDS = 0.25

TABLES = (
    """CREATE TABLE cache (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, size INTEGER NOT NULL,
       created_at INTEGER NOT NULL, expires_at INTEGER, used_at INTEGER NOT NULL, PRIMARY KEY (space, key))""",
    "CREATE INDEX cache_by_use ON cache (used_at, size)",
    "CREATE INDEX cache_by_end ON cache (expires_at) WHERE expires_at IS NOT NULL",
)
_LOOK = "SELECT space, key, value, size, created_at, expires_at, used_at FROM cache LIMIT 1"


def _nobodys(connection: sqlite3.Connection) -> bool:  # noqa: ARG001 - for those who take over anything
    return False


def _make(connection: sqlite3.Connection) -> None:
    for statement in TABLES:
        connection.execute(statement)


class Layout(NamedTuple):
    """Which tables a file of ours has.

    mark and version are what `PRAGMA application_id` and `PRAGMA user_version` say of it; look reads all columns, so
    that it fails where one is missing; make makes the tables in a transaction; takes_over says of tables without a
    mark whether make may have them; busy is for how many seconds a lock is waited for.
    """

    mark: int
    version: int
    look: str
    make: Callable[[sqlite3.Connection], None]
    takes_over: Callable[[sqlite3.Connection], bool] = _nobodys
    busy: float = BUSY_SECONDS


STORE: Layout = Layout(OURS, SCHEMA, _LOOK, _make)
"""That of `SQLiteStore`."""

carried: list[sqlite3.Connection] = []
"""Connections that a child got from the process it was forked from: kept, because it must not even close them."""

Meant = Literal["again", "away", "corrupt", "wrong"]


class NotOursError(Exception):
    """The file belongs to another program, or to a newer version: it is left alone."""


class DamagedError(Exception):
    """The file says that it is ours, and does not look like it."""


def meant(error: BaseException) -> Meant:
    """What to do about a failure: see `polyvox.database.faults.Meaning`."""
    if isinstance(error, DamagedError):
        return "corrupt"
    return "away" if isinstance(error, NotOursError) else meaning(error)


def why(error: BaseException) -> str:
    """A failure in one line."""
    return told(error)


def connect(path: Path, *, reads: bool, busy: float = BUSY_SECONDS) -> sqlite3.Connection:
    """A connection to a file that is there; busy is for how many seconds it waits for a lock. One that reads never
    waits: what it cannot read is a miss."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=0 if reads else busy,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA query_only={'ON' if reads else 'OFF'}")
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_text(path: Path) -> None:
    """StrangerError for a file with something in it that is no database and never was ours."""
    if is_no_database(path):
        refuse_stranger(path, OURS)


class StoreFile:
    """The connection that writes, and which file it is to. Used by one thread at a time."""

    def __init__(self, path: Path, wall: Callable[[], float], layout: Layout = STORE) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._wall = wall
        self._layout = layout
        self._process = 0
        self._file = identity(path)
        self._beside = beside(path)

    def opened(self) -> sqlite3.Connection:
        """The connection, made where there is none. Raises what SQLite raises, NotOursError and DamagedError."""
        if self.connection is None:
            if identity(self.path) is None:
                warn_of_network(self.path)
            make_private(self.path)
            self._file = identity(self.path)
            if is_no_database(self.path):
                # SQLite takes a file of one byte for an empty one, and would write over it.
                raise DamagedError("file is not a database")
            connection = connect(self.path, reads=False, busy=self._layout.busy)
            try:
                _prepare(connection, self._layout)
            except BaseException:
                connection.close()
                raise
            self.connection, self._process = connection, os.getpid()
            self._beside = beside(self.path)
        return self.connection

    def moved(self) -> bool:
        """Whether the name stands for another file now, or for none."""
        return identity(self.path) != self._file

    def leave(self) -> None:
        """The file was deleted or replaced: let go of it, and of the log that it left behind."""
        known = self._beside
        self.close()
        drop_orphans(self.path, known)
        log.warning("%s was deleted or replaced while in use; going on with what is there now", self.path)

    def quarantine(self, reason: str) -> None:
        """Put a damaged file aside, unless another process already did. StrangerError for one that never was ours."""
        self.close()
        found = identity(self.path)
        if found is not None and found == self._file:
            refuse_stranger(self.path, self._layout.mark, self._beside)
            aside = put_aside(self.path, "corrupt", self._wall)
            log.warning("%s was damaged (%s); it is %s now, and begins anew", self.path, reason, aside.name)

    def close(self) -> None:
        """Let go of the connection. A child of a fork has no right to use that of its parent, nor even to close it,
        https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self._process == os.getpid():
            connection.close()
        else:
            carried.append(connection)


def _prepare(connection: sqlite3.Connection, layout: Layout) -> None:
    """Check whose file it is before anything in it is changed; make the tables of an empty one."""
    if _checked(connection, layout):
        _set_up(connection)
        return
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    _set_up(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _checked(connection, layout):  # another process may have made them meanwhile
            layout.make(connection)
            connection.execute(f"PRAGMA application_id={layout.mark}")
            connection.execute(f"PRAGMA user_version={layout.version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _set_up(connection: sqlite3.Connection) -> None:
    # While another process opens the file SQLite refuses to switch it, without a wait; it is right either way.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
    # Without a sync for each commit: a power cut may take the last answers, and never the file.
    connection.execute("PRAGMA synchronous=NORMAL")


def _checked(connection: sqlite3.Connection, layout: Layout) -> bool:
    """Whether the tables are there."""
    # In this order: who makes the tables meanwhile commits the mark with them, so whoever sees tables sees the mark.
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not things and mark in (0, layout.mark):
        return False
    if not mark and layout.takes_over(connection):
        return False
    if mark != layout.mark:
        raise NotOursError("the file holds the tables of another program; name another file")
    if version > layout.version:
        raise NotOursError("the file was made by a newer version; name another file, or use that version")
    try:
        connection.execute(layout.look).fetchone()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise DamagedError(str(error)) from error
        raise
    if version != layout.version:
        raise DamagedError(f"its schema says that it is version {version}")
    return True
