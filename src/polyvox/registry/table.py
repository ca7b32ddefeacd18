"""The registry in a table of a database, which programs, people and other processes may change while calls go on.
Keys are never in it: a row names the variable or the key-store entry that has one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

import msgspec

from polyvox.config import Settings
from polyvox.database import Database, Unit, run
from polyvox.database.faults import told
from polyvox.errors import ConfigError, InputError, PolyvoxError
from polyvox.keys import redact
from polyvox.limits import Limits
from polyvox.registry.base import Asked
from polyvox.registry.looking import Look
from polyvox.registry.rows import Rows
from polyvox.registry.tables import problems_of, refuse
from polyvox.registry.values import Entry

if TYPE_CHECKING:
    from sqlalchemy import Connection

log: logging.Logger = logging.getLogger("polyvox.registry")

_LIMITS = ("concurrency", "requests_per_minute", "tokens_per_minute")
_COLUMNS = (
    "name", "model", "tier", "weight", "priority", "api_key_env", "api_key_of", "base_url", "dialect", *_LIMITS,
    "price", "active", "is_default", "aliases", "timeout", "max_tokens", "temperature", "description",
)  # fmt: skip
_NAMED = ", ".join(_COLUMNS)
_MARKS = ", ".join("?" * len(_COLUMNS))
_ANEW = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
_SAVE = f"INSERT INTO deployments ({_NAMED}) VALUES ({_MARKS}) ON CONFLICT (name) DO UPDATE SET {_ANEW}"  # noqa: S608 - names of ours
_REMOVE = "DELETE FROM deployments WHERE name = ?"
_LIST = f"SELECT {_NAMED} FROM deployments"  # noqa: S608 - names of ours
# One statement, so that the number belongs to the rows.
_ALL = f"SELECT r.number, {', '.join(f'd.{column}' for column in _COLUMNS)} FROM deployments_revision r LEFT JOIN deployments d ON 1 = 1"  # noqa: E501, S608 - names of ours
_REVISION = "SELECT number FROM deployments_revision"

AGAIN = 1.0
"""Seconds until a database that was away is looked for again, and for which a server's word holds when nobody asks."""
PATIENCE = 0.5
"""The longest that `refresh` waits."""
_HANGS = 2.0


class TableRegistry(Asked):
    """The rows of the table `deployments` of a database, by priority and name. In SQLite a committed change, whoever
    made it, acts on the next call. A PostgreSQL server is asked by `refresh`; who does not await that sees a change
    about a second late. When the database is away, what was read last goes on, and `problem` says so; a row that
    cannot be used leaves its last state that could.

    database is a `Database`, which stays its owner's, or the place of one, which `close` closes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, TableRegistry(f"{folder}/rows.db") as registry:
    ...     registry.save_sync(Entry("fast", "demo", tier="economy"))
    ...     registry.get_by_tier("economy").name
    'fast'
    """

    def __init__(
        self,
        database: Database | str | os.PathLike[str],
        *,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings)
        self._owned = not isinstance(database, Database)
        self.database: Database = database if isinstance(database, Database) else Database(database)
        self.asks: bool = self.database.address.kind == "postgresql"
        self._clock = clock
        self._rows = Rows()
        self._closed = False
        self._inherited: list[Look] = []
        self._fresh()

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._look = Look(self.database, self._clock)
        self._number: int | None = None
        self._not_before = 0.0
        self._away: str | None = None
        self._bad: str | None = None
        self._began = 0.0
        self._now: Future[None] | None = None
        self._next: Future[None] | None = None

    def __repr__(self) -> str:
        """Where it is, without a password."""
        return f"TableRegistry({str(self.database.address)!r})"

    def __enter__(self) -> Self:
        """Open it: SchemaError for tables that are not ours, MissingExtraError without a driver."""
        self.database.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the connection that looks, and of the database if it was opened here."""
        with self._lock:
            self._closed = True
            self._look.close()
        if self._owned:
            self.database.close()

    # ---- reading ------------------------------------------------------------------------------

    @property
    def rows(self) -> Rows:
        """The newest state; of a server the one that was seen last, and so it is after `close`."""
        if self._closed:
            return self._rows
        if self._pid != os.getpid():
            # The connection is the parent's: neither used nor closed here.
            self._inherited.append(self._look)
            self._fresh()
        if self.asks:
            if self._clock() >= self._not_before:
                self._not_before = self._clock() + AGAIN
                self._soon()
        elif self._away is None or self._clock() >= self._not_before:
            with self._lock:
                self._see()
        return self._rows

    @property
    def problem(self) -> str | None:
        """See `Registry.problem`."""
        self.rows  # noqa: B018 - it looks for what is new
        return "; ".join(filter(None, (self._away, self._bad))) or None

    async def refresh(self) -> Rows:
        """See `Registry.refresh`."""
        rows = self.rows
        hangs = self._now is not None and self._clock() - self._began > PATIENCE
        if self.asks and self._away is None and not hangs and not self._closed:
            await asyncio.wait({asyncio.wrap_future(self._soon())}, timeout=PATIENCE)
            rows = self._rows
        return rows

    def _soon(self) -> Future[None]:
        """A look that begins from now on, so that it sees what was committed before."""
        with self._lock:
            if self._now is None:
                mine: Future[None] = Future()
                self._now = mine
                self._began = self._clock()
                threading.Thread(target=self._looks, name="polyvox-deployments", daemon=True).start()
                return mine
            if self._clock() - self._began > _HANGS:
                self._look.cut()
            if self._next is None:
                self._next = Future()
            return self._next

    def _looks(self) -> None:
        now = self._now
        while now is not None:
            self._see()
            with self._lock:
                done, self._now, self._next = now, self._next, None
                self._began, now = self._clock(), self._now
            if done.set_running_or_notify_cancel():
                done.set_result(None)

    def _see(self) -> None:
        """Look whether anything changed, and read it all if so."""
        try:
            if self._look.changed():
                if self._look.is_new or self._look.ask(_REVISION)[0][0] != self._number:
                    self._take(self._look.ask(_ALL))
                self._look.seen()
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, calls go on
            self._look.close()
            self._not_before = self._clock() + AGAIN
            what = error.message if isinstance(error, PolyvoxError) else told(error)
            if self._away is None:
                log.warning("%s cannot be read, so its deployments stay as they were: %s", self.database.address, what)
            self._away = f"{self.database.address} cannot be read: {what}"
            return
        if self._away is not None:
            log.warning("%s can be read again", self.database.address)
            self._away = None

    def _take(self, found: Sequence[Sequence[Any]]) -> None:
        number = found[0][0]
        before = {entry.name: entry for entry in self._rows.entries}
        entries, problems = [], []
        for row in (row[1:] for row in found if row[1] is not None):
            entry, problem = self._entry(row)
            if problem is not None:
                problems.append(problem)
            entry = entry or before.get(row[0])
            if entry is not None:
                entries.append(entry)
        bad = "; ".join(sorted(problems)) or None
        if bad is not None and bad != self._bad:
            log.warning("%s: deployments that cannot be used stay as they were: %s", self.database.address, bad)
        self._rows, self._bad, self._number = self._rows.followed_by(_sorted(entries)), bad, number

    def _entry(self, row: Sequence[Any]) -> tuple[Entry | None, str | None]:
        try:
            entry = _entry_of(row)
            problem = next(iter(problems_of([entry], self.settings())), None)
            return (entry, None) if problem is None else (None, problem)
        except ConfigError as error:
            return None, "; ".join(problem.replace(": ", f": deployments.{row[0]}.", 1) for problem in error.problems)
        except (PolyvoxError, ValueError, TypeError) as error:
            return None, f"row: deployments.{row[0]}: {redact(str(getattr(error, 'message', error)))}"

    # ---- writing ------------------------------------------------------------------------------

    async def save(self, entry: Entry) -> None:
        """Add a row, or put it in the place of the one of its name. ConfigError for what cannot work, InputError for
        an entry with a key in it, DatabaseAwayError where it could not be written."""
        await self.database.write(self._saving(entry))
        await self.refresh()

    def save_sync(self, entry: Entry) -> None:
        """The same, for a thread without an event loop."""
        self.database.write_sync(self._saving(entry))
        self._see_soon()

    async def remove(self, name: str) -> bool:
        """Forget a row; False where there is none of this name."""
        there: bool = await self.database.write(_Remove(name))
        await self.refresh()
        return there

    def remove_sync(self, name: str) -> bool:
        """The same, for a thread without an event loop."""
        there: bool = self.database.write_sync(_Remove(name))
        self._see_soon()
        return there

    async def list(self) -> tuple[Entry, ...]:
        """All rows as they are in the database now. ConfigError for one that cannot be used, DatabaseAwayError where
        they cannot be read."""
        return _sorted([_entry_of(row) for row in await self.database.read(_all)])

    def list_sync(self) -> tuple[Entry, ...]:
        """The same, for a thread without an event loop."""
        return _sorted([_entry_of(row) for row in self.database.read_sync(_all)])

    def _see_soon(self) -> None:
        if self.asks and not self._closed:
            with contextlib.suppress(TimeoutError):
                self._soon().result(PATIENCE)

    def _saving(self, entry: Entry) -> Unit:
        if not isinstance(entry, Entry):
            raise InputError(f"a deployment is an Entry, not {type(entry).__name__}", hint="see polyvox.registry.Entry")
        if entry.api_key is not None:
            raise InputError(
                f"the key of {entry.name!r} is not written to a database",
                hint="name the variable that has it with api_key_env, or its entry in the key store with api_key_of",
            )
        others = [other for other in self.rows.entries if other.name != entry.name]
        refuse([*others, entry], self.settings())
        return _Save(entry)


class _Save(Unit):
    def __init__(self, entry: Entry) -> None:
        self.values = _row_of(entry)

    def apply(self, connection: Connection) -> None:
        run(connection, _SAVE, self.values)


class _Remove(Unit):
    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, connection: Connection) -> bool:
        return run(connection, _REMOVE, (self.name,)).rowcount > 0


def _all(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in run(connection, _LIST)]


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """In an order that no database's idea of letters changes."""
    return tuple(sorted(entries, key=lambda entry: (entry.priority, entry.name)))


def _row_of(entry: Entry) -> tuple[Any, ...]:
    said = {field: getattr(entry, field) for field in entry.__struct_fields__}
    limits = {field: getattr(entry.limits, field) for field in _LIMITS}
    texts = {
        "price": None if entry.price is None else json.dumps(msgspec.to_builtins(entry.price)),
        "aliases": json.dumps(entry.aliases) if entry.aliases else None,
    }
    said |= {**limits, **texts, "active": int(entry.active), "is_default": int(entry.default)}
    return tuple(said[column] for column in _COLUMNS)


def _entry_of(row: Sequence[Any]) -> Entry:
    """An entry from a row, which anybody may have written: an empty text is one that nobody gave."""
    said = {column: value for column, value in zip(_COLUMNS, row, strict=True) if value not in (None, "")}
    limits = Limits(**{field: said.pop(field) for field in _LIMITS if field in said})
    for field in ("price", "aliases"):
        if field in said:
            said[field] = json.loads(said[field])
    said["active"] = bool(said.get("active", True))
    said["default"] = bool(said.pop("is_default", False))
    return Entry(**{"model": "", **said}, limits=limits, origin="row")
