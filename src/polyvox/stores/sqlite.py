"""A store in one file of SQLite, which processes share and which outlives them. Reads are made where they are asked
for, because a row of a warm file is there sooner than another thread; writes go through one thread."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from polyvox.database.files import Identity, identity
from polyvox.errors import ConfigError
from polyvox.stores.clocks import steady_wall
from polyvox.stores.contract import StoreStats
from polyvox.stores.frame import seconds, unframed
from polyvox.stores.memory import bounds
from polyvox.stores.sqlite_file import DamagedError, carried, connect, meant, refuse_text, why
from polyvox.stores.sqlite_rows import GET, Rows, live
from polyvox.stores.sqlite_writer import Item, Writer
from polyvox.stores.tally import Tally, watch_forks

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""How often a reader looks whether its file is still the one of that name."""
TOUCHES = 64
TOUCH_SECONDS = 10.0
"""Reads are noted together: after so many keys or so many seconds, and when the store is closed."""


class SQLiteStore:
    """See `Store`. The least recently used goes first, as far as reads were noted: some lag behind.

    path is a file that is made with its folders, for its owner alone; ConfigError where it is a folder. It takes so
    many entries and bytes of values and keys, whichever process they come from.

    >>> import asyncio, tempfile
    >>> async def kept(folder):
    ...     store = SQLiteStore(f"{folder}/answers.db")
    ...     await store.put("greetings", "first", b"hello")
    ...     await store.close()
    ...     store = SQLiteStore(f"{folder}/answers.db")
    ...     try:
    ...         return await store.get("greetings", "first")
    ...     finally:
    ...         await store.close()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(kept(folder))
    b'hello'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_entries: int = 100_000,
        max_bytes: int = 1024 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] | None = None,
    ) -> None:
        bounds(max_entries, max_bytes)
        self.path: Path = Path(path).expanduser().absolute()
        if self.path.is_dir():
            raise ConfigError(f"{self.path} is a folder, not a store", hint="name a file in it")
        refuse_text(self.path)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._clock = clock
        self._wall = wall or steady_wall()
        self._tally = Tally("sqlite", f"the store {self.path}")
        self._writer = Writer(
            self.path, self._tally, max_entries=max_entries, max_bytes=max_bytes, wall=self._wall,
            changed=self._look_anew,
        )  # fmt: skip
        self._connection: sqlite3.Connection | None = None
        self._file: Identity | None = None
        self._look_at = 0.0
        self._touched: dict[tuple[str, str], float] = {}
        self._touch_at = clock() + TOUCH_SECONDS
        self._lock = threading.Lock()
        watch_forks(self)
        _stores.add(self)

    def __repr__(self) -> str:
        """Where it is."""
        return f"SQLiteStore({str(self.path)!r}, max_entries={self.max_entries}, max_bytes={self.max_bytes})"

    # ---- reading ------------------------------------------------------------------------------

    async def get(self, space: str, key: str) -> bytes | None:
        """See `Store`."""
        kept = self._read(GET, (space, key))
        row = kept[0] if kept else None
        value = None
        if row is not None and live(row, self._wall()):
            value = unframed(space, key, row[0])
            if value is None:
                self._tally.odd("damaged", "an entry was damaged; it is left out")
                # Counted where it is removed, which another process may have done.
                self._post(lambda rows: rows.drop(space, key, row[0]))
        self._tally.count("misses" if value is None else "hits")
        if value is not None:
            self._note(space, key)
        return value

    async def spaces(self) -> tuple[str, ...]:
        """See `Store`."""
        await self.clean()
        rows = await asyncio.to_thread(self._read_apart, "SELECT DISTINCT space FROM cache ORDER BY space")
        return tuple([space for (space,) in rows])

    async def stats(self) -> StoreStats:
        """See `Store`."""
        await self._ask(_nothing, None)  # what is damaged or locked is known afterwards
        rows = await asyncio.to_thread(self._read_apart, "SELECT count(*), coalesce(sum(size), 0) FROM cache")
        entries, size = rows[0] if rows else (None, None)
        return self._tally.stats(entries, size)

    def _read(self, question: str, values: tuple[Any, ...]) -> list[Any] | None:
        """Rows; None where the file cannot be read."""
        with self._lock:
            try:
                connection = self._reader()
                return None if connection is None else connection.execute(question, values).fetchall()
            except Exception as error:  # noqa: BLE001 - a store that cannot be read has nothing
                failure, file = error, self._file
                if meant(error) != "again":
                    self._drop_reader()
        self._tally.count("errors")
        if meant(failure) != "again":
            self._post(functools.partial(self._examine, failure, file))
        return None

    def _read_apart(self, question: str) -> list[Any]:
        """Rows of what takes longer, over a connection of its own, so that no look-up waits for it."""
        if self._writer.closed:
            return []
        try:
            with contextlib.closing(connect(self.path, reads=True)) as connection:
                return connection.execute(question).fetchall()
        except (sqlite3.Error, OSError):
            self._tally.count("errors")
            return []

    def _examine(self, failure: Exception, file: Identity | None, _: Rows) -> None:
        """In the writer's thread, which mends what it cannot write: also what only a reader stumbled over."""
        if meant(failure) == "corrupt" and file is not None and identity(self.path) == file:
            raise DamagedError(why(failure))

    def _reader(self) -> sqlite3.Connection | None:
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            found = identity(self.path)
            if found != self._file or self._connection is None:
                self._drop_reader()
                if found is not None and not self._writer.closed:
                    self._connection, self._file = connect(self.path, reads=True), found
        return self._connection

    def _drop_reader(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _look_anew(self) -> None:
        self._look_at = 0.0

    def _note(self, space: str, key: str) -> None:
        self._touched[space, key] = self._wall()
        if len(self._touched) >= TOUCHES or self._clock() >= self._touch_at:
            self._post_touches()

    def _post_touches(self) -> None:
        touched, self._touched = self._touched, {}
        self._touch_at = self._clock() + TOUCH_SECONDS
        if touched:
            self._post(lambda rows: rows.touch(touched))

    # ---- writing ------------------------------------------------------------------------------

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        return await self._ask(lambda rows: rows.put(space, key, value, life), False)

    async def add(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        return await self._ask(lambda rows: rows.add(space, key, value, life), False)

    async def swap(self, space: str, key: str, old: bytes, new: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = seconds(ttl)
        return await self._ask(lambda rows: rows.swap(space, key, old, new, life), False)

    async def delete(self, space: str, key: str) -> bool:
        """See `Store`."""
        return await self._ask(lambda rows: rows.delete(space, key), False)

    async def clear(self, space: str | None = None) -> int:
        """See `Store`."""
        return await self._ask(lambda rows: rows.clear(space), 0)

    async def clean(self) -> int:
        """See `Store`."""
        return await self._ask(lambda rows: rows.clean(), 0)

    async def _ask(self, work: Callable[[Rows], T], otherwise: T) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._writer.put(Item(work, otherwise, future)):
            self._tally.count("errors")
            return otherwise
        return await future

    def _post(self, work: Callable[[Rows], Any]) -> None:
        self._writer.put(Item(work, None, None))

    # ---- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """See `Store`. What was put is written first."""
        self._post_touches()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        thread = self._writer.stop(future)
        if thread is not None:
            await future
            thread.join()
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._look_at = float("inf")
            self._drop_reader()

    def end_of_process(self) -> None:
        """Write what was put, where nobody closed the store; for a few seconds at most."""
        self._post_touches()
        thread = self._writer.stop()
        if thread is not None:
            thread.join(3)
        self._end()

    def after_fork(self) -> None:
        """A child makes connections and a thread of its own."""
        self._lock = threading.Lock()
        if self._connection is not None:
            carried.append(self._connection)
        self._connection = self._file = None
        self._look_at = 0.0
        self._touched = {}
        self._tally.after_fork()
        self._writer.after_fork()


def _nothing(_: Rows) -> None:
    """Only look whether the file is well."""


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()


def _at_exit() -> None:
    for store in list(_stores):
        store.end_of_process()


atexit.register(_at_exit)
