"""The cache in one SQLite file, with the table that AI Utilities' document prints, which any program can read. It is
not the core's `SQLiteStore`, whose table holds bytes with a checksum by space and key, in other columns."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from polyvox.compat.ai_utilities.cache.backend import (
    DEFAULT_NAMESPACE,
    TTL_SECONDS,
    CacheBackend,
    CacheStats,
    checked_key,
    checked_namespace,
    stats_of,
    text_of,
    value_of,
)
from polyvox.compat.ai_utilities.cache.sqlite_file import PUT, CacheFile, full_key, is_corrupt, moment
from polyvox.compat.ai_utilities.cache.stored import options
from polyvox.compat.errors import named, speaking
from polyvox.database.faults import told
from polyvox.errors import InputError
from polyvox.keys import config_dir
from polyvox.stores.frame import seconds
from polyvox.stores.tally import Tally, watch_forks

T = TypeVar("T")

_GET = "SELECT value FROM cache WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_OVER = "DELETE FROM cache WHERE expires_at <= ?"
_OLDEST = "DELETE FROM cache WHERE key IN (SELECT key FROM cache ORDER BY created_at, rowid LIMIT ?)"


class SQLiteCache(CacheBackend):
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
        with speaking():
            self._file = CacheFile(db_path, wall)
        self._tally = Tally("sqlite", f"the cache {self._file.path}")
        watch_forks(self._tally)
        self._init_database()

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """See `CacheBackend`; cache_db_path, cache_max_entries and cache_namespace are read too."""
        said = options(settings, "db_path", "max_entries", "namespace")
        return cls(**{"db_path": str(_default_path()), **said})

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
            self._done(
                lambda database: database.execute("DELETE FROM cache WHERE key = ? AND value IS ?", (name, row[0])),
                None,
            )
        self._tally.count("misses" if value is None else "hits")
        return value

    def set(self, key: str, value: Any, ttl: float | None = TTL_SECONDS) -> None:
        """Keep what JSON can say. ttl is seconds: None keeps it until it is evicted, 0 keeps nothing and forgets what
        was there. InputError for None, for what JSON cannot say, and for a ttl that is no time."""
        name, text = full_key(self.namespace, checked_key(key)), text_of(value)
        with speaking():
            life = seconds(ttl)
        if life == 0:
            self.delete(key)
            return
        now = self._wall()
        end = None if life is None else moment(now + life)
        row = (name, text, self.namespace, moment(now), end)
        self._done(lambda database: self._keep(database, row), None)

    def delete(self, key: str) -> None:
        """See `CacheBackend`."""
        name = full_key(self.namespace, checked_key(key))
        self._done(lambda database: database.execute("DELETE FROM cache WHERE key = ?", (name,)), None)

    def clear(self) -> None:
        """See `CacheBackend`."""
        self._done(lambda database: database.execute("DELETE FROM cache"), None)

    def clear_namespace(self, namespace: str) -> None:
        """See `CacheBackend`."""
        name = checked_namespace(namespace)
        self._done(lambda database: database.execute("DELETE FROM cache WHERE namespace = ?", (name,)), None)

    def stats(self) -> CacheStats:
        """Hits, misses, sets, evictions of this process; how many entries the file holds; whether it works."""
        size = self._done(self._clean, None)
        return stats_of(self._tally.stats(size))

    def close(self) -> None:
        """Let go of the file; from then on there is nothing to get and nothing is kept."""
        self._file.close()

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

    def _done(self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, writes: bool = True) -> T:
        """What is done with the database, or otherwise where it cannot be. A damaged file is put aside once."""
        for _ in range(2):
            try:
                with speaking(), self._file.turn() if writes else self._file.look() as database:
                    result = work(database)
            except (sqlite3.Error, OSError) as error:
                if is_corrupt(error):
                    with speaking():
                        self._file.quarantine(error)
                    continue
                self._tally.trouble(told(error))
                return otherwise
            self._tally.well()
            return result
        return otherwise


def _default_path() -> Path:
    return config_dir() / "ai_utilities-cache.db"
