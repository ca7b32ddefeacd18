"""The cache in one SQLite file, with the table that AI Utilities' document prints, which any program can read. It is
not the core's `SQLiteStore`, whose table holds bytes with a checksum by space and key, in other columns."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from polyvox.compat.ai_utilities.cache.backend import (
    DEFAULT_NAMESPACE,
    CacheStats,
    OwnCache,
    checked_key,
    checked_namespace,
    stats_of,
    value_of,
)
from polyvox.compat.ai_utilities.cache.sqlite_table import PUT, full_key, layout, moment
from polyvox.compat.errors import named, speaking
from polyvox.errors import ConfigError, InputError
from polyvox.keys import config_dir
from polyvox.stores.sqlite_file import DamagedError, NotOursError, StoreFile, meant, why
from polyvox.stores.tally import Tally, watch_forks

T = TypeVar("T")

_GET = "SELECT value FROM cache WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_OVER = "DELETE FROM cache WHERE expires_at <= ?"
_OLDEST = "DELETE FROM cache WHERE key IN (SELECT key FROM cache ORDER BY created_at, rowid LIMIT ?)"


class SQLiteCache(OwnCache):
    """A cache in a file that threads and processes share, and that outlives them: at most max_entries in all; what was
    kept longest ago goes first, whether or not it was read since (`MemoryCache` goes by that): a look into the file
    writes nothing. What is over goes with the next value that is kept.

    The file is made with its folders, for its owner alone; one that is damaged is put aside and begun anew. Where the
    disk is full or locked for long, nothing is kept, and `stats` says why. InputError for a bound that is none,
    ConfigError for a file that belongs to another program.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = SQLiteCache(f"{folder}/answers.db")
    ...     cache.set("greeting", "hello", 60)
    ...     print(cache.get("greeting"))
    ...     cache.close()
    hello
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("db_path", "max_entries", "namespace")

    def __init__(
        self,
        db_path: str,
        max_entries: int = 1000,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 1:
            raise named(InputError("max_entries is a whole number, 1 or more", param="max_entries"))
        self.db_path = db_path
        self.max_entries = max_entries
        self.namespace: str = checked_namespace(namespace)
        self._wall = wall
        path = _checked_path(db_path)
        self._turns = _Turns(StoreFile(path, wall, layout(wall)))
        self._tally = Tally("sqlite", f"the cache {path}")
        watch_forks(self._tally)
        self._init_database()

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """See `CacheBackend`; without a db_path it is a file beside the configuration."""
        return cls(**{"db_path": str(config_dir() / "ai_utilities-cache.db"), **cls.options(settings)})

    def _init_database(self) -> None:
        """Make the table where there is none, and drop what is over in one that there is."""
        self._done(self._clean, None)

    def get(self, key: str) -> Any | None:
        """See `CacheBackend`."""
        name, now = full_key(self.namespace, checked_key(key)), moment(self._wall())
        row = self._done(lambda database: database.execute(_GET, (name, now)).fetchone(), None, writes=False)
        value = None if row is None else value_of(row[0]) if isinstance(row[0], str) else None
        if row is not None and value is None:
            self._tally.count("damaged")
            self._tally.odd("damaged", "an entry was damaged; it is left out")
            self._execute("DELETE FROM cache WHERE key = ? AND value IS ?", name, row[0])
        self._tally.count("misses" if value is None else "hits")
        return value

    def _put(self, key: str, text: str, life: float | None) -> None:
        if life == 0:
            self._drop(key)
            return
        now = self._wall()
        end = None if life is None else moment(now + life)
        row = (full_key(self.namespace, key), text, self.namespace, moment(now), end)
        self._done(lambda database: self._keep(database, row), None)

    def _drop(self, key: str) -> None:
        self._execute("DELETE FROM cache WHERE key = ?", full_key(self.namespace, key))

    def _empty(self, namespace: str | None) -> None:
        if namespace is None:
            self._execute("DELETE FROM cache")
        else:
            self._execute("DELETE FROM cache WHERE namespace = ?", namespace)

    def stats(self) -> CacheStats:
        """Hits, misses, sets, evictions of this process; how many entries the file holds; whether it works."""
        return stats_of(self._tally.stats(self._done(self._clean, None)))

    def close(self) -> None:
        """Let go of the file; from then on there is nothing to get and nothing is kept."""
        self._turns.close()

    def _keep(self, database: sqlite3.Connection, row: tuple[str | None, ...]) -> None:
        database.execute(PUT, row)
        surplus = self._clean(database) - self.max_entries
        if surplus > 0:
            database.execute(_OLDEST, (surplus,))
            self._tally.count("evictions", surplus)
        self._tally.count("stored")

    def _clean(self, database: sqlite3.Connection) -> int:
        """Remove what is over; how many entries there are then."""
        over = database.execute(_OVER, (moment(self._wall()),)).rowcount
        if over > 0:
            self._tally.count("expired", over)
        (entries,) = database.execute("SELECT count(*) FROM cache").fetchone()
        return int(entries)

    def _execute(self, statement: str, *values: object) -> None:
        self._done(lambda database: database.execute(statement, values), None)

    def _done(self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, writes: bool = True) -> T:
        """What is done with the database, or otherwise where it cannot be. A damaged file is put aside once."""
        for _ in range(2):
            try:
                with speaking(), self._turns.turn(writes=writes) as database:
                    result = work(database)
            except NotOursError as error:
                raise named(ConfigError(f"{self._turns.path}: {error}", hint="name another file")) from None
            except (sqlite3.Error, OSError, DamagedError) as error:
                if meant(error) == "corrupt":
                    with speaking():
                        self._turns.quarantine(why(error))
                    continue
                self._tally.trouble(why(error))
                return otherwise
            self._tally.well()
            return result
        return otherwise


class _Turns:
    """The one connection of a process to the file, which its threads use in turns."""

    def __init__(self, file: StoreFile) -> None:
        self.path: Path = file.path
        self._file = file
        self._lock = threading.RLock()
        self._closed = False
        weakref.finalize(self, file.close)
        watch_forks(self)

    @contextmanager
    def turn(self, *, writes: bool) -> Iterator[sqlite3.Connection]:
        """The connection for one thread, in a transaction where it writes. Raises what `StoreFile` raises."""
        with self._lock:
            if self._closed:
                raise OSError("the cache is closed")
            if self._file.connection is not None and self._file.moved():
                self._file.leave()
            connection = self._file.opened()
            if not writes:
                yield connection
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def quarantine(self, reason: str) -> None:
        """Put a damaged file aside; see `StoreFile`."""
        with self._lock:
            self._file.quarantine(reason)

    def close(self) -> None:
        """Let go of the file for good."""
        with self._lock:
            self._closed = True
            self._file.close()

    def after_fork(self) -> None:
        """A child makes a connection of its own, and has a lock that no other thread holds."""
        self._lock = threading.RLock()
        self._file.close()


def _checked_path(path: Any) -> Path:
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or text == ":memory:" or not text.isprintable():
        raise named(ConfigError(f"{path!r} names no file", hint="MemoryCache() keeps in memory"))
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise named(ConfigError(f"{path!r} begins with the name of nobody here", hint="write the whole path")) from None
