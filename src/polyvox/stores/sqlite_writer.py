"""The one thread that writes to a store in SQLite: what came within a moment is one transaction. What cannot be
written is given up and counted; nobody is told by an error."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from polyvox.database.waiting import Waiter, tell
from polyvox.stores.sqlite_file import StoreFile, meant, why
from polyvox.stores.sqlite_rows import Rows
from polyvox.stores.tally import Tally

MOST = 500
"""Operations that go into one transaction."""
WAITING = 10_000
"""Operations that may wait; what comes beyond is given up at once."""
PATIENCE = 1.0
"""Seconds for which a locked file is tried again."""
PAUSE = 0.02

Work: TypeAlias = "Callable[[Rows], Any]"


class Item(NamedTuple):
    """Something to do with the rows, what it gives where that cannot be done, and who waits. No work is the end."""

    work: Work | None
    otherwise: Any
    waiter: Waiter


class Writer:
    """The thread, started with the first work. changed is called in it when readers must look at the file anew."""

    def __init__(
        self,
        path: Path,
        tally: Tally,
        *,
        max_entries: int,
        max_bytes: int,
        wall: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._path = path
        self._tally = tally
        self._bounds = max_entries, max_bytes
        self._wall = wall
        self._changed = changed
        self._begin()

    def _begin(self) -> None:
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._file = StoreFile(self._path, self._wall)
        self._rows = Rows(*self._bounds, wall=self._wall, tally=self._tally)
        self.closed: bool = False

    def put(self, item: Item) -> bool:
        """Hand something over; False where it is closed or has too much to do."""
        with self._lock:
            if self.closed or self._queue.qsize() >= WAITING:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="polyvox-store", daemon=True)
                self._thread.start()
            # Under the lock, so that nothing comes after the order to end.
            self._queue.put(item)
        return True

    def stop(self, waiter: Waiter = None) -> threading.Thread | None:
        """Write what was handed over, then end; the thread that does so, if there is one."""
        with self._lock:
            if self.closed:
                return None
            self.closed = True
            if self._thread is not None:
                self._queue.put(Item(None, None, waiter))
            return self._thread

    def after_fork(self) -> None:
        """A child does not have the thread, and makes a connection of its own."""
        self._file.close()
        closed = self.closed
        self._begin()
        self.closed = closed

    # ---- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < MOST:
                    batch.append(self._queue.get_nowait())
            last = batch[-1] if batch[-1].work is None else None
            try:
                self._write([item for item in batch if item.work is not None])
            except Exception as error:  # noqa: BLE001 - nothing may end the thread, or those who wait would wait for ever
                self._give_up(batch, error)
            if last is not None:
                self._file.close()
                tell([(last.waiter, (None, None))], _nobody)
                return

    def _write(self, batch: list[Item]) -> None:
        # Once it was given up, those who come later do not wait as long.
        until, renewed = time.monotonic() + (PATIENCE if self._tally.why is None else 0), 0
        while batch:
            try:
                outcomes = self._transact(batch)
                if self._file.moved() and renewed < 3:
                    renewed += 1
                    self._file.leave()
                    self._changed()
                    continue
            except Exception as error:  # noqa: BLE001 - sorted by what it means
                what = meant(error)
                if what == "corrupt" and renewed < 3:
                    renewed += 1
                    self._file.quarantine(why(error))
                    self._changed()
                elif what == "again" and time.monotonic() < until:
                    time.sleep(PAUSE)
                else:
                    self._file.close()
                    self._give_up(batch, error)
                    return
            else:
                tell([(item.waiter, (result, None)) for item, result in zip(batch, outcomes, strict=True)], _nobody)
                return

    def _transact(self, batch: list[Item]) -> list[Any]:
        fresh = self._file.connection is None
        connection = self._file.opened()
        if fresh:
            self._changed()
        rows, before = self._rows, connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        try:
            rows.begin(connection, fresh=fresh)
            outcomes = [item.work(rows) for item in batch if item.work is not None]
            rows.end()
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            rows.undo()
            raise
        rows.committed()
        # A transaction that changed nothing also succeeds on a disk that is full.
        if connection.total_changes > before:
            self._tally.well()
        return outcomes

    def _give_up(self, batch: list[Item], error: BaseException) -> None:
        self._tally.trouble(f"{self._path}: {why(error)}")
        self._changed()
        tell([(item.waiter, (item.otherwise, None)) for item in batch if item.work is not None], _nobody)


def _nobody(waiter: Any, outcome: Any) -> None:
    """Who waited went away; what was done stays done."""
