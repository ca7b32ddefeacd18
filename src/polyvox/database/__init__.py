"""A database of ours, SQLite by default and PostgreSQL by URL, through the same code: numbered migrations, one thread
that writes what comes together in one transaction, readers beside it. It knows tables only by their migrations."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from polyvox.database.address import Address, address_of
from polyvox.database.connecting import reader_engine, run, run_many
from polyvox.database.faults import DatabaseAwayError, DatabaseError, SchemaError, meaning, told
from polyvox.database.money import dollars, micros, moment, pico
from polyvox.database.steps import STEPS, Step
from polyvox.database.units import Rows, Together, Unit
from polyvox.database.waiting import Waiting
from polyvox.database.writer import DatabaseHealth, Writer
from polyvox.errors import PolyvoxError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from polyvox.database.waiting import Waiter

__all__ = [
    "STEPS",
    "Address",
    "Database",
    "DatabaseAwayError",
    "DatabaseError",
    "DatabaseHealth",
    "Rows",
    "SchemaError",
    "Step",
    "Together",
    "Unit",
    "dollars",
    "micros",
    "moment",
    "pico",
    "run",
    "run_many",
]  # fmt: skip

T = TypeVar("T")


class Database:
    """A database for what must not be lost. Usable from any thread and event loop, and after a fork.

    place is a path, sqlite:///path or postgresql://user@host/name. By default what was committed survives a killed
    process and a power cut alike; relaxed gives up the latter for speed, and gathers rows that nobody waits for during
    20 ms, which a killed process loses. window is how many seconds a write waits for others while others keep coming,
    patience how many it is retried before the database counts as away.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Database(f"{folder}/ledger.db") as database:
    ...     database.read_sync(lambda connection: run(connection, "SELECT count(*) FROM calls").scalar())
    0
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
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
        self.address: Address = address_of(place)
        self.relaxed = relaxed
        self.wall = wall
        self.writer: Writer = Writer(
            self.address, relaxed=relaxed, window=window, patience=patience, steps=steps, clock=clock, wall=wall,
            sleep=sleep, chance=chance,
        )  # fmt: skip
        self.put: Callable[[Rows | None, Any, Waiter], None] = self.writer.put
        # It keeps no connection, so threads and forks may share it.
        self._reader: Engine | None = None

    def __repr__(self) -> str:
        """Where it is, without a password."""
        return f"Database({str(self.address)!r})"

    def __enter__(self) -> Self:
        """Open it."""
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def open(self) -> None:
        """Connect and migrate now rather than with the first use. SchemaError for a schema that is newer, changed, half
        made or somebody else's; MissingExtraError without a driver. A database that is away raises nothing: it is
        looked for in the background, and `health` says so."""
        self.writer.open()

    def close(self) -> None:
        """Write what was handed over, then let go."""
        self.writer.close()

    def health(self) -> DatabaseHealth:
        """How it is now."""
        return self.writer.health()

    def on_back(self, listener: Callable[[], None]) -> None:
        """Call a function, in the writer's thread, whenever the database is back after it was away."""
        self.writer.on_back.append(listener)

    # ---- writing ------------------------------------------------------------------------------

    async def write(self, unit: Unit) -> Any:
        """Write a unit; its result once it is committed. Raises what the unit raises, DatabaseAwayError where the
        database is away and the unit has no other answer to that."""
        future = asyncio.get_running_loop().create_future()
        self.put(None, unit, future)
        try:
            return await future
        except asyncio.CancelledError:
            # Where the result came in the same moment, the writer takes it for told, and nobody has it.
            if future.done() and not future.cancelled() and future.exception() is None:
                undoing = unit.undo(future.result())
                if undoing is not None:
                    self.post(undoing)
            raise

    def write_sync(self, unit: Unit, timeout: float = 60) -> Any:
        """The same, for a thread without an event loop."""
        waiting = Waiting()
        self.put(None, unit, waiting)
        if not waiting.wait(timeout):
            raise DatabaseAwayError(f"{self.address} did not write within {timeout:g} s", billed=False)
        result, error = waiting.outcome
        if error is not None:
            raise error
        return result

    def post(self, unit: Unit) -> None:
        """Write a unit some time soon; nobody waits."""
        self.put(None, unit, None)

    # ---- reading ------------------------------------------------------------------------------

    async def read(self, question: Callable[[Connection], T]) -> T:
        """What a function gives for a connection that only reads, asked in a thread of its own."""
        return await asyncio.to_thread(self.read_sync, question)

    def read_sync(self, question: Callable[[Connection], T]) -> T:
        """The same, in this thread. DatabaseAwayError where the database cannot be read."""
        if not self.writer.started:
            self.open()
        if self._reader is None:
            self._reader = reader_engine(self.address)
        try:
            with self._reader.connect() as connection, connection.begin():
                return question(connection)
        except PolyvoxError:
            raise
        except Exception as error:
            if meaning(error) == "wrong" and not hasattr(error, "orig"):
                raise
            kind = DatabaseError if meaning(error) == "wrong" else DatabaseAwayError
            raise kind(f"{self.address} cannot be read: {told(error)}", sent="no", billed=False) from error
