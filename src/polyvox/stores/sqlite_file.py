"""The file behind a store in SQLite: made private, checked for being ours, put aside when it is damaged. It decides
nothing about what is kept."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal
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


def connect(path: Path, *, reads: bool) -> sqlite3.Connection:
    """A connection to a file that is there. One that reads never waits for a lock: what it cannot read is a miss."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=0 if reads else BUSY_SECONDS,
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
    """The connection that writes, and which file it is to. Used by one thread."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._wall = wall
        self._file = identity(path)
        self._beside = beside(path)

    def opened(self) -> sqlite3.Connection:
        """The connection, made where there is none. Raises what SQLite raises, NotOursError and DamagedError."""
        if self.connection is None:
            if identity(self.path) is None:
                warn_of_network(self.path)
            make_private(self.path)
            self._file = identity(self.path)
            connection = connect(self.path, reads=False)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self.connection = connection
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
            refuse_stranger(self.path, OURS, self._beside)
            aside = put_aside(self.path, "corrupt", self._wall)
            log.warning("%s was damaged (%s); it is %s now, and begins anew", self.path, reason, aside.name)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    """Check whose file it is before anything in it is changed; make the tables of an empty one."""
    if _checked(connection):
        _set_up(connection)
        return
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    _set_up(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _checked(connection):  # another process may have made them meanwhile
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={OURS}")
            connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    # Without a sync for each commit: a power cut may take the last answers, and never the file.
    connection.execute("PRAGMA synchronous=NORMAL")


def _checked(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not things and mark in (0, OURS):
        return False
    if mark != OURS:
        raise NotOursError("the file holds the tables of another program; name another file")
    if version > SCHEMA:
        raise NotOursError("the file was made by a newer version; name another file, or use that version")
    try:
        connection.execute(_LOOK).fetchone()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise DamagedError(str(error)) from error
        raise
    if version != SCHEMA:
        raise DamagedError(f"its schema says that it is version {version}")
    return True
