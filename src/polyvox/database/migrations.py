"""Brings a database to the schema of this version, one numbered step after another, each in a transaction of its own.
What it does not know, or finds half done, it refuses in one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from polyvox.database.connecting import be_patient, run
from polyvox.database.faults import SchemaError
from polyvox.database.files import MARK
from polyvox.database.steps import STEPS, Step

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

VERSIONS = "polyvox_schema"
_WORDS = {
    "sqlite": {"bytes": "BLOB", "by_key": " WITHOUT ROWID", "sqlite": "", "postgresql": "--"},
    "postgresql": {"bytes": "BYTEA", "by_key": "", "sqlite": "--", "postgresql": ""},
}
PATIENT_MS = 10_000
_LOCK = 0x706F6C79  # "poly": the first of the two numbers of our advisory locks
_OURS = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_TAKEN = f"SELECT number, name, checksum FROM {VERSIONS} ORDER BY number"  # noqa: S608 - a name of ours
_TAKE = f"INSERT INTO {VERSIONS} VALUES (?, ?, ?, ?)"  # noqa: S608 - a name of ours
_THEIRS = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


def pending(reader: Engine, steps: Sequence[Step] = STEPS) -> bool:
    """Whether a step is missing; asked without a lock. SchemaError as in `migrate`."""
    with reader.connect() as connection, connection.begin():
        return _next(connection, steps) is not None


def migrate(engine: Engine, steps: Sequence[Step] = STEPS, wall: Callable[[], float] = time.time) -> int:
    """Take the steps that are missing; how many were taken. Several processes may do so at once: one of them takes
    each step, the others wait.

    SchemaError for a newer, changed or half-made schema, and for a database that is somebody else's.
    """
    taken = 0
    while True:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                be_patient(connection, PATIENT_MS)
            with connection.begin():
                _lock(connection)
                step = _next(connection, steps)
                if step is None:
                    return taken
                _take(connection, step, int(wall() * 1_000_000))
                taken += 1


def _lock(connection: Connection) -> None:
    # SQLite has the lock since BEGIN IMMEDIATE.
    if connection.dialect.name == "postgresql":
        run(connection, "SET LOCAL lock_timeout = '60s'")
        run(connection, "SET LOCAL statement_timeout = '10min'")
        run(connection, "SELECT pg_advisory_xact_lock(?, hashtext(current_schema()))", (_LOCK,))


def _next(connection: Connection, steps: Sequence[Step]) -> Step | None:
    """The step to take; None when all are."""
    sqlite = connection.dialect.name == "sqlite"
    tables = {row[0] for row in run(connection, _OURS if sqlite else _THEIRS)}
    known = {table for step in steps for table in step.tables}
    if VERSIONS not in tables:
        _refuse_strangers(tables, known, private=sqlite)
        return steps[0]
    rows = run(connection, _TAKEN).all()
    for place, row in enumerate(rows, 1):
        number, name, checksum = tuple(row)
        if number > len(steps):
            raise SchemaError(
                f"the database has schema {rows[-1][0]}, and this version of polyvox knows up to {len(steps)}",
                hint="upgrade polyvox, or name another database",
            )
        if number != place or name != steps[number - 1].name or checksum != steps[number - 1].checksum:
            raise SchemaError(f"step {number} of the schema ({name}) is not the one this version knows")
    missing = [table for step in steps[: len(rows)] for table in step.tables if table not in tables]
    early = [table for step in steps[len(rows) :] for table in step.tables if table in tables]
    if missing or early:
        what = f"{', '.join(missing)} missing" if missing else f"{', '.join(early)} there before their step"
        raise SchemaError(
            f"the schema is half made: {what}", hint="restore the database from a backup, or name another one"
        )
    return steps[len(rows)] if len(rows) < len(steps) else None


def _refuse_strangers(tables: set[str], known: set[str], *, private: bool) -> None:
    if tables & known:
        raise SchemaError(
            f"the schema is half made: {', '.join(sorted(tables & known))} without a record of its steps",
            hint="restore the database from a backup, or name another one",
        )
    # A schema of PostgreSQL may be shared with other programs, a file of SQLite is one program's.
    if private and tables:
        raise SchemaError(
            f"the file is a database of another program: it has the table {min(tables)}", hint="name another file"
        )


def _take(connection: Connection, step: Step, now: int) -> None:
    if step.number == 1:
        run(
            connection,
            f"CREATE TABLE {VERSIONS} (number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, "
            "checksum TEXT NOT NULL, applied BIGINT NOT NULL)",
        )
        if connection.dialect.name == "sqlite":
            run(connection, f"PRAGMA application_id={MARK}")
    for statement in step.statements:
        text = statement.format_map(_WORDS[connection.dialect.name])
        if not text.startswith("--"):
            run(connection, text)
    run(connection, _TAKE, (step.number, step.name, step.checksum, now))
