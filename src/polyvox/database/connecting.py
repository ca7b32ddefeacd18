"""Connections to either kind of database, set up for what they are for: one that writes, some that only read.
SQLAlchemy and the driver are loaded here, on first use."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvox.database.address import Address
from polyvox.errors import MissingExtraError

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

BUSY_MS = 250
"""How long one statement waits for the lock of another process before the writer is told."""
CONNECT_SECONDS = 2
STATEMENT_MS = 2000
"""The longest a PostgreSQL server may work at one statement of the writer."""
LOCK_MS = 1500
"""The longest a statement of the writer waits for a lock: longer than the second after which the server looks for
deadlocks, so that those are told as what they are."""


def writer_engine(address: Address, *, relaxed: bool = False) -> Engine:
    """An engine whose connections write: their transactions take the lock when they begin."""
    if address.kind == "sqlite":
        wanted = "PRAGMA journal_mode=WAL", f"PRAGMA synchronous={'NORMAL' if relaxed else 'FULL'}"
        return _sqlite(address, *wanted, begin="BEGIN IMMEDIATE")
    settings = (
        f"SET statement_timeout={STATEMENT_MS}",
        f"SET lock_timeout={LOCK_MS}",
        f"SET synchronous_commit={'off' if relaxed else 'on'}",
        "SET idle_in_transaction_session_timeout=60000",
    )
    return _postgres(address, settings)


def reader_engine(address: Address) -> Engine:
    """An engine whose connections cannot write."""
    if address.kind == "sqlite":
        return _sqlite(address, "PRAGMA query_only=ON", "PRAGMA cache_size=-65536", begin="BEGIN")
    return _postgres(address, ("SET default_transaction_read_only=on",))


def _sqlite(address: Address, *settings: str, begin: str) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    path = address.path
    assert path is not None
    engine = create_engine(
        "sqlite://",
        creator=lambda: _open_sqlite(path, settings),
        poolclass=NullPool,
    )

    def start(connection: Connection) -> None:
        _driver(connection).execute(begin)

    event.listen(engine, "begin", start)
    return engine


def _open_sqlite(path: Path, settings: Sequence[str]) -> Any:
    import sqlite3

    # Opened only where there is one: whoever makes the file makes it private. Without an isolation level, because the
    # module must not begin transactions of its own: ours take the lock at once.
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        for setting in settings:
            connection.execute(setting).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _postgres(address: Address, settings: Sequence[str]) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    assert address.url is not None
    try:
        import psycopg as psycopg
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs a driver that is not installed", hint="pip install 'polyvox[postgres]'"
        ) from error
    engine = create_engine(
        address.url.reveal(),
        poolclass=NullPool,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": STATEMENT_MS,
            "application_name": "polyvox",
        },
    )

    def settle(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.autocommit = True
        with dbapi_connection.cursor() as cursor:
            cursor.execute("; ".join(settings))
        dbapi_connection.autocommit = False

    event.listen(engine, "connect", settle)
    return engine


def _driver(connection: Connection) -> Any:
    """The driver's own connection."""
    return connection.connection.driver_connection


def be_patient(connection: Connection, milliseconds: int) -> None:
    """How long statements of a SQLite connection wait for the lock; said outside of any transaction."""
    _driver(connection).execute(f"PRAGMA busy_timeout={milliseconds:d}")


def cut(connection: Connection) -> None:
    """End what a connection waits for, from another thread: whoever waits gets an error."""
    driver = _driver(connection)
    if connection.dialect.name == "sqlite":
        driver.interrupt()
        return
    # Only closing the socket also frees one who waits for a server that was stopped.
    with contextlib.suppress(Exception):
        number = os.dup(driver.pgconn.socket)
        with contextlib.closing(socket.socket(fileno=number)) as line:
            line.shutdown(socket.SHUT_RDWR)


@functools.lru_cache(512)
def _spelt(text: str) -> str:
    return text.replace("%", "%%").replace("?", "%s")


def _words(connection: Connection) -> Callable[[str], str]:
    return str if connection.dialect.name == "sqlite" else _spelt


def run(connection: Connection, text: str, values: Sequence[Any] = ()) -> CursorResult[Any]:
    """One statement, its values for the question marks; what a question mark stands for is always a value."""
    return connection.exec_driver_sql(_words(connection)(text), tuple(values))


def run_many(connection: Connection, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """One statement for each of many rows, sent together, in a transaction that has begun."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        # SQLAlchemy's context of a statement costs more than the statement.
        _driver(connection).executemany(text, rows)
    else:
        connection.exec_driver_sql(_spelt(text), rows)
