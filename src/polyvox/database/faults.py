"""What a failure of a database means for whoever writes: try again, go on without it, put the file away, or blame the
one thing that was written. Tables of codes; it connects to nothing."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

from polyvox.errors import ConfigError, PolyvoxError
from polyvox.keys import redact

Meaning = Literal["again", "away", "corrupt", "wrong"]
"""again: the same may work in a moment · away: the database cannot be written now · corrupt: the file is no database
any more · wrong: what was written is at fault."""


class DatabaseError(PolyvoxError):
    """The database refused what was asked of it."""

    kind = "database"
    advice = "see what the database says, and whether its disk and its server are well"


class DatabaseAwayError(DatabaseError):
    """The database cannot be used now: gone, locked, full or read-only. It is tried again in the background."""

    kind = "database_away"
    retry = True


class SchemaError(ConfigError):
    """The tables are not those this version works with."""

    kind = "schema"
    advice = "use the version of polyvox that wrote this database, or another database"


SQLITE: dict[int, Meaning] = {
    sqlite3.SQLITE_BUSY: "again",
    sqlite3.SQLITE_LOCKED: "again",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_PERM: "away",
    sqlite3.SQLITE_NOMEM: "away",
    sqlite3.SQLITE_READONLY: "away",
    sqlite3.SQLITE_INTERRUPT: "away",
    sqlite3.SQLITE_IOERR: "away",
    sqlite3.SQLITE_FULL: "away",
    sqlite3.SQLITE_CANTOPEN: "away",
    sqlite3.SQLITE_PROTOCOL: "away",
    sqlite3.SQLITE_AUTH: "away",
}
"""By the primary result code, https://www.sqlite.org/rescode.html."""

STATES: dict[str, Meaning] = {
    "40001": "again",  # serialization failure
    "40P01": "again",  # deadlock
    "55P03": "again",  # a lock that somebody else held for too long
    "3F000": "away",  # no such schema
    "42501": "away",  # rights that were taken
    "42P01": "away",  # tables that are gone
}
STATE_CLASSES: dict[str, Meaning] = {
    "08": "away",  # connection
    "25": "away",  # read-only, because this server is a standby now; or a transaction in a state nobody expected
    "28": "away",  # may not log in
    "3D": "away",  # no such database
    "53": "away",  # out of disk, memory or connections
    "55": "away",  # locked
    "57": "away",  # shut down, or cancelled for taking too long
    "58": "away",  # the system under it failed
    "F0": "away",
    "XX": "away",
}
"""By SQLSTATE and its class, https://www.postgresql.org/docs/current/errcodes-appendix.html."""


def origin(error: BaseException) -> Any:
    """What the driver raised, where SQLAlchemy wrapped it."""
    return getattr(error, "orig", None) or error


def meaning(error: BaseException) -> Meaning:
    """What to do about a failure."""
    if isinstance(error, DatabaseAwayError | OSError):
        return "away"
    if isinstance(error, PolyvoxError):
        return "wrong"
    cause = origin(error)
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:
            # The module itself is not content: a closed connection, or a value it cannot bind.
            return "away" if "closed" in str(cause) else "wrong"
        if "no such table" in str(cause):
            return "away"
        return SQLITE.get(code & 0xFF, "wrong")
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return STATES.get(state) or STATE_CLASSES.get(state[:2], "wrong")
    # A lost connection has no SQLSTATE: the server could not say one.
    if type(cause).__module__.partition(".")[0] == "psycopg" and type(cause).__name__ in _LOST:
        return "away"
    return "wrong"


_LOST = ("OperationalError", "InterfaceError", "ConnectionTimeout", "PipelineAborted")


def told(error: BaseException) -> str:
    """The driver's own words in one line, without secrets."""
    cause = origin(error)
    text = str(cause).strip().splitlines()
    return redact(text[0]) if text else type(cause).__name__
