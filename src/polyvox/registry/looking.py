"""A connection that looks at the table of deployments again and again: cheap where nothing changed, and cut loose from
a server that says nothing any more. It knows no entries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polyvox.database import Database
from polyvox.database.connecting import be_patient, cut, reader_engine
from polyvox.database.files import Identity, identity

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BUSY_MS = 50
_STATEMENT_MS = 1000
_CHECK_EVERY = 1.0
"""Seconds after which it is seen that a file took the place of the one that is open."""


class Look:
    """Asks one database, by one thread at a time. Raises what its driver raises."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock, self._check_at = clock, 0.0
        self._connection: Connection | None = None
        self._driver: Any = None
        self._file: Identity | None = None
        self._data: int | None = None
        self._newest: int | None = None
        self.is_new: bool = True  # nothing was seen through this connection

    def changed(self) -> bool:
        """Whether anything in the database may have changed since what was last `seen`."""
        path = self.database.address.path
        if path is not None and self._driver is not None and self._clock() >= self._check_at:
            self._check_at = self._clock() + _CHECK_EVERY
            if identity(path) != self._file:
                self.close()
        if self._driver is None:
            self._connect()
            self._file = None if path is None else identity(path)
        if path is None:
            return True
        # It counts what other connections committed, https://www.sqlite.org/pragma.html#pragma_data_version.
        self._newest = self._driver.execute("PRAGMA data_version").fetchone()[0]
        return self._newest != self._data

    def seen(self) -> None:
        """What there was when `changed` was asked is known now."""
        self._data, self.is_new = self._newest, False

    def ask(self, statement: str) -> list[Any]:
        """The rows of a statement without values."""
        rows: list[Any] = self._driver.execute(statement).fetchall()
        return rows

    def cut(self) -> None:
        """End what hangs, from another thread."""
        connection = self._connection
        if connection is not None:
            cut(connection)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection, self._driver, self._data = self._connection, None, None, None
        self.is_new = True
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _connect(self) -> None:
        database = self.database
        if not database.writer.started:
            database.open()
        self._connection = reader_engine(database.address).connect()
        self._driver = self._connection.connection.driver_connection
        if database.address.path is not None:
            be_patient(self._connection, _BUSY_MS)
        else:
            self._driver.autocommit = True
            self._driver.execute(f"SET statement_timeout={_STATEMENT_MS}")
