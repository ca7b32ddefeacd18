"""The one thread that writes: what came within a moment is one transaction. It retries what may work in a moment, cuts
itself loose from a database that is away, and never lets one unit harm another."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from polyvox.database.address import Address
from polyvox.database.applying import Item, apply_all
from polyvox.database.faults import DatabaseAwayError, DatabaseError, meaning, told
from polyvox.database.link import Link
from polyvox.database.steps import STEPS, Step
from polyvox.database.units import Rows, Unit
from polyvox.database.waiting import Outcome, Told, Waiter, Waiting, tell
from polyvox.database.watching import Return, Watch, pause
from polyvox.errors import PolyvoxError, UsageError

log: logging.Logger = logging.getLogger("polyvox.database")

MOST = 500
"""Items that go into one transaction: so few that even a busy server is done with them in a fraction of a second."""

GATHERED = 0.02
"""Seconds for which rows that nobody waits for are gathered where durability is relaxed: a transaction, and a turn of
this thread, cost more than many rows."""

Command: TypeAlias = Literal["open", "back", "stop"]


class DatabaseHealth(Struct, frozen=True):
    """How the database is: state "ok" or "away", why and since when (seconds since the epoch); backlog counts what
    waits to be written, retries what was tried again, batches and written what was committed."""

    state: Literal["ok", "away"]
    why: str | None = None
    since: float | None = None
    backlog: int = 0
    batches: int = 0
    written: int = 0
    retries: int = 0


class Writer:
    """Writes units and rows for any number of event loops and threads. See `polyvox.database.Database` for what the
    arguments mean."""

    def __init__(
        self,
        address: Address,
        *,
        relaxed: bool = False,
        window: float = 0.001,
        patience: float = 0.5,
        steps: Sequence[Step] = STEPS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.address = address
        self.window: float = window
        self.patience: float = patience
        self.relaxed: bool = relaxed
        self.steps: Sequence[Step] = steps
        self.clock: Callable[[], float] = clock
        self.wall: Callable[[], float] = wall
        self.sleep: Callable[[float], None] = sleep
        self.chance: Callable[[], float] = chance
        self.on_back: list[Callable[[], None]] = []
        self._inherited: list[Any] = []
        self._fresh()
        _writers.add(self)

    def _fresh(self) -> None:
        self._queue: queue.SimpleQueue[Item | tuple[Command, Any, Waiter]] = queue.SimpleQueue()
        # Set while something is handed over that is not to be gathered for.
        self._urgent = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = self._gone = False
        self._link: Link | None = None
        self._return: Return | None = None
        self._watch = Watch(max(self.patience, 0.1) + 0.2, self.clock) if self.address.kind == "postgresql" else None
        self._away: str | None = None
        self._since: float | None = None
        self._failures = 0
        self._ended, self._crowded, self._full = 0.0, False, False
        self._told: list[Told] = []
        self._undoing: list[Item] | None = None
        # What those who waited for the database hand over when it is back: it goes before all that came meanwhile.
        self._coming: list[Item] | None = None
        self._first: list[Item] = []
        self._batches = self._written = self._retries = 0

    def after_fork(self) -> None:
        """In a child: thread, queue and connection are the parent's. They are neither used nor freed, because freeing
        would close what the parent uses."""
        self._inherited.append((self._queue, self._link, self._return, self._watch, self._thread))
        self._fresh()

    # ---- for callers --------------------------------------------------------------------------

    def put(self, target: Rows | None, payload: Any, waiter: Waiter) -> None:
        """Hand something over: a unit with target None, or a row of a kind. Costs the caller next to nothing."""
        if self._coming is not None and threading.current_thread() is self._thread:
            self._coming.append((target, payload, waiter))
            return
        if self._thread is None or self._closed:
            self._start()
        self._queue.put((target, payload, waiter))
        if self.relaxed and (waiter is not None or target is None):
            self._urgent.set()
        if self._gone:
            self._sweep()

    def open(self, timeout: float = 60) -> None:
        """Connect and migrate now. What is wrong with address, driver or schema is raised; a database that is away is
        not: it is looked for in the background."""
        waiting = Waiting()
        if self._thread is None or self._closed:
            self._start()
        self._command("open", None, waiting)
        if not waiting.wait(timeout):
            raise DatabaseAwayError(f"{self.address} did not open within {timeout:g} s", sent="no", billed=False)
        if waiting.outcome[1] is not None:
            raise waiting.outcome[1]

    def close(self, timeout: float = 10) -> None:
        """Write all that was handed over, then let go of the database; what comes later is refused."""
        with self._lock:
            thread, self._closed = self._thread, True
        if thread is not None and thread.is_alive():
            self._command("stop", None, None)
            if thread is threading.current_thread():
                return  # it ends by itself when it is done here
            thread.join(timeout)
            if thread.is_alive():
                log.warning("%s: the writer did not end within %g s", self.address, timeout)

    def _command(self, command: Command, payload: Any, waiter: Waiter) -> None:
        self._queue.put((command, payload, waiter))
        self._urgent.set()

    @property
    def started(self) -> bool:
        """Whether there is a thread that writes."""
        return self._thread is not None

    def health(self) -> DatabaseHealth:
        """How it is now."""
        state: Literal["ok", "away"] = "ok" if self._away is None else "away"
        return DatabaseHealth(
            state, self._away, self._since, self._queue.qsize(), self._batches, self._written, self._retries
        )

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise UsageError("the database is closed", hint="open another Database", sent="no", billed=False)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="polyvox-database", daemon=True)
                thread.start()
                self._thread = thread

    # ---- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            batch: list[Item] = []
            for target, payload, waiter in self._gather():
                if isinstance(target, str):
                    going = self._obey(target, payload, waiter) and going
                else:
                    batch.append((target, payload, waiter))
            batch = self._unheard([*self._first, *batch])
            self._first = []
            if batch:
                try:
                    self._write(self._prepared(batch))
                except Exception as error:
                    # A defect of ours must not end the thread that everybody waits for.
                    log.exception("the writer failed")
                    failed = DatabaseError(f"writing failed: {type(error).__name__}", sent="no", billed=False)
                    tell([(waiter, (None, failed)) for _, _, waiter in batch], self._orphaned)
        self._end()

    def _gather(self) -> list[Any]:
        """What is to be done, as soon as there is something. While others keep coming, it waits a moment for them; and
        where durability is relaxed it gathers rows that nobody waits for."""
        first = self._queue.get()
        if self.relaxed:
            if not self._full:
                self._urgent.wait(GATHERED)
            self._urgent.clear()
        if self._crowded:
            rest = self.window - (self.clock() - self._ended)
            if rest > 0:
                self.sleep(rest)
        gathered = [first]
        with contextlib.suppress(queue.Empty):
            while len(gathered) < MOST:
                gathered.append(self._queue.get_nowait())
        self._crowded, self._full = len(gathered) > 1, len(gathered) == MOST
        return gathered

    def _obey(self, command: str, payload: Any, waiter: Waiter) -> bool:
        if command == "open":
            tell([(waiter, self._opened())], self._orphaned)
        elif command == "back":
            self._came_back(payload)
        return command != "stop"

    def _end(self) -> None:
        undone = self._unheard([])
        if undone:
            with _harmless():
                self._write(undone)
        if self._return is not None:
            self._return.close()
        self._away = self._away or "the database is closed"
        self._gone = True
        self._sweep()
        if self._watch is not None:
            self._watch.close()
        if self._link is not None:
            self._link.close()
        self._link = None

    def _sweep(self) -> None:
        """What slipped in behind the order to stop is refused in the ordinary way."""
        rest: list[Item] = []
        with contextlib.suppress(queue.Empty):
            while True:
                target, payload, waiter = self._queue.get_nowait()
                if not isinstance(target, str):
                    rest.append((target, payload, waiter))
                elif isinstance(payload, Link):
                    payload.close()
                else:
                    tell([(waiter, (None, self._away_error()))], self._orphaned)
        if rest:
            self._refuse(self._prepared(rest))

    # ---- there and away -----------------------------------------------------------------------

    def _new_link(self) -> Link:
        return Link(self.address, relaxed=self.relaxed, steps=self.steps, wall=self.wall)

    def _opened(self) -> Outcome:
        if self._away is not None or self._link is not None:
            return None, None
        try:
            self._connected()
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            self._drop()
            if isinstance(error, PolyvoxError):
                return None, error
            if meaning(error) == "wrong":
                return None, DatabaseError(f"{self.address}: {told(error)}", sent="no", billed=False)
            self._go_away(error)
        return None, None

    def _connected(self) -> Link:
        link = self._link
        if link is None:
            link = self._link = self._new_link()
        if link.connection is None:
            link.open()
        return link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    def _go_away(self, error: BaseException) -> None:
        self._drop()
        self._away, self._since = told(error), self.wall()
        log.warning("%s is away: %s", self.address, self._away)
        if not self._closed:
            self._return = Return(self._new_link, self._found, self._still_away, self.chance, self._failures)
        self._failures += 1

    def _found(self, link: Link) -> None:
        self._command("back", link, None)

    def _still_away(self, why: str) -> None:
        self._away = why

    def _came_back(self, link: Link) -> None:
        self._link, self._away, self._since, self._return = link, None, None, None
        log.warning("%s is back", self.address)
        self._coming = []
        for listener in self.on_back:
            try:
                listener()
            except Exception:
                log.exception("what waited for the database failed")
        self._first, self._coming = self._coming, None

    # ---- one batch ----------------------------------------------------------------------------

    def _prepared(self, batch: list[Item]) -> list[Item]:
        """The batch with its rows made; whoever handed over what no row can be made of is told."""
        prepared: list[Item] = []
        for target, payload, waiter in batch:
            if target is None:
                prepared.append((target, payload, waiter))
                continue
            try:
                prepared.append((target, target.prepare(payload), waiter))
            except Exception as error:
                log.exception("no row can be made")
                failed = DatabaseError(f"no row can be made: {told(error)}", sent="no", billed=False)
                tell([(waiter, (None, failed))], self._orphaned)
        return prepared

    def _write(self, batch: list[Item]) -> None:
        if not batch:
            return
        if self._away is not None:
            self._refuse(batch)
            return
        until = self.clock() + self.patience
        tries, careful, renewed = 0, False, 0
        while True:
            try:
                link = self._connected()
                outcomes = self._transact(link, batch, careful=careful)
                if link.moved() and renewed < 3:
                    renewed += 1
                    link.leave()
                    continue
                break
            except Exception as error:  # noqa: BLE001 - sorted by what it means
                what = meaning(error)
                if what == "wrong" and not careful:
                    careful = True
                elif what == "corrupt" and renewed < 3 and self._link is not None:
                    renewed += 1
                    self._link.close()
                    self._link.quarantine()
                elif what == "again" and self.clock() < until:
                    self._retries += 1
                    # Whoever pauses long while others do not never gets the lock.
                    self.sleep(min(pause(tries, self.chance()) / 20, 0.1))
                    tries += 1
                else:
                    self._go_away(error)
                    self._refuse(batch)
                    return
        self._deliver(batch, outcomes)

    def _transact(self, link: Link, batch: list[Item], *, careful: bool) -> list[Outcome]:
        connection = link.connection
        assert connection is not None
        if self._watch is not None:
            self._watch.begin(connection)
        try:
            with connection.begin():
                return apply_all(connection, batch, careful=careful)
        finally:
            if self._watch is not None:
                self._watch.end()

    def _deliver(self, batch: list[Item], outcomes: list[Outcome]) -> None:
        self._failures = 0
        self._batches += 1
        self._written += len(batch)
        self._ended = self.clock()
        for (target, unit, _), (result, error) in zip(batch, outcomes, strict=True):
            if target is None and error is None:
                with _harmless():
                    unit.committed(result)
        given = tell([(item[2], outcome) for item, outcome in zip(batch, outcomes, strict=True)], self._orphan(batch))
        if any(target is None and waiter is not None for target, _, waiter in batch):
            self._told += [one for one in given if not one.heard]

    def _refuse(self, batch: list[Item]) -> None:
        outcomes: dict[int, Outcome] = {}
        kinds: dict[int, tuple[Rows, list[Any]]] = {}
        for place, (target, payload, _) in enumerate(batch):
            if target is not None:
                kinds.setdefault(id(target), (target, []))[1].append(payload)
                outcomes[place] = (None, None)
                continue
            try:
                outcomes[place] = (payload.refused(self._away_error()), None)
            except Exception as error:  # noqa: BLE001 - it is the caller's
                outcomes[place] = (None, error)
        for rows, payloads in kinds.values():
            with _harmless():
                rows.refused(payloads, self._away_error())
        tell([(item[2], outcomes[place]) for place, item in enumerate(batch)], self._orphan(batch))

    def _away_error(self) -> DatabaseAwayError:
        return DatabaseAwayError(f"{self.address} is away: {self._away}", sent="no", billed=False)

    # ---- callers who went away ----------------------------------------------------------------

    def _unheard(self, batch: list[Item]) -> list[Item]:
        """The batch, behind what is to be undone because its event loop was closed before it heard."""
        if not self._told:
            return batch
        waiting, self._told = self._told, []
        undone: list[Item] = []
        self._undoing = undone
        try:
            self._told += [one for one in waiting if not one.unheard() and not one.heard]
        finally:
            self._undoing = None
        return undone + batch

    def _orphan(self, batch: list[Item]) -> Callable[[Any, Outcome], None]:
        units = {id(waiter): payload for target, payload, waiter in batch if target is None and waiter is not None}

        def orphaned(waiter: Any, outcome: Outcome) -> None:
            unit: Unit | None = units.get(id(waiter))
            if unit is not None and outcome[1] is None:
                with _harmless():
                    undoing = unit.undo(outcome[0])
                    if undoing is None:
                        return
                    if self._undoing is not None and threading.current_thread() is self._thread:
                        self._undoing.append((None, undoing, None))
                    else:
                        self.put(None, undoing, None)

        return orphaned

    def _orphaned(self, waiter: Any, outcome: Outcome) -> None:
        """Nothing was written for whoever waited."""


@contextlib.contextmanager
def _harmless() -> Any:
    try:
        yield
    except Exception:
        log.exception("what was to be told of a write failed")


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_writers):
        writer.after_fork()


def _at_exit() -> None:
    for writer in list(_writers):
        writer.close(5)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
