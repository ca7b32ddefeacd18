"""Where rows go while the database is away: into a file, then into memory, up to bounds; and how they come from there
into the database. Everything here runs in the writer's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvox.database import Database, DatabaseAwayError, DatabaseError, Unit
from polyvox.database.faults import meaning, told
from polyvox.ledger.columns import Written, joined
from polyvox.ledger.instances import SPOOL, Bury, Claim, FindDead, Instance, Register
from polyvox.ledger.rows import write
from polyvox.ledger.spool import Page, Spool, SpoolFullError
from polyvox.ledger.values import LedgerHealth

if TYPE_CHECKING:
    from sqlalchemy import Connection

log: logging.Logger = logging.getLogger("polyvox.ledger")

PAUSE = 1.0
"""Seconds before a file that could not be written is tried again: all that is in memory is tried with it."""
PAGE = 500
"""Rows of a file that go into the database at once, so that nobody waits long behind them."""


class Keeper:
    """What one process does for its rows beside writing them."""

    def __init__(
        self,
        database: Database,
        instance: Instance,
        *,
        spool_bytes: int,
        memory_rows: int,
        sync: bool,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database: Database = database
        self.instance: Instance = instance
        self.wall: Callable[[], float] = wall
        self.clock: Callable[[], float] = clock
        self.memory_rows: int = memory_rows
        self.sync: bool = sync
        self.spool_bytes: int = spool_bytes
        self.spool: Spool | None = self._spool_of(instance.number)
        self.memory: dict[bytes, Written] = {}
        self.lost: int = 0
        self.interrupted: int = 0
        self.spooled: int = 0
        self.why: str | None = None
        self.since: float | None = None
        self._registered = False
        self._draining = False
        self._heir_to = 0
        self._failure, self._again = "", 0.0

    def _spool_of(self, number: int) -> Spool | None:
        folder = self.instance.folder
        return None if folder is None else self._spool(folder / f"{number:016x}{SPOOL}")

    def _spool(self, path: Path) -> Spool:
        return Spool(path, most=self.spool_bytes, sync=self.sync)

    # ---- rows the database does not take ------------------------------------------------------

    def keep(self, rows: Sequence[Written], error: DatabaseError) -> None:
        """Keep rows in the file, else in memory, else count them as lost."""
        self.since = self.since or self.wall()
        if not isinstance(error, DatabaseAwayError):
            # The database is there and refuses just these: they would be refused for ever.
            self.lost += len(rows)
            self.why = error.message
            log.error("%d rows cannot be written and are lost: %s", len(rows), error.message)
            return
        self.why = error.message
        if self.clock() < self._again:
            self.why = f"{error.message}; and the file for the meantime: {self._failure}"
            self._remember(rows)
            return
        kept = [*self.memory.values(), *rows]
        written = 0
        try:
            if self.spool is None:
                raise OSError("no file was named for them")
            self.instance.hold()
            written = self.spool.append(kept)
            if written < len(kept):
                raise SpoolFullError(f"{self.spool.path.name} has reached its bound")
        except OSError as failure:
            self._failure, self._again = str(failure), self.clock() + PAUSE
            self.why = f"{error.message}; and the file for the meantime: {failure}"
        if self.spool is not None:
            self.spooled = self.spool.rows
        self.memory.clear()
        self._remember(kept[written:])

    def _remember(self, rows: Sequence[Written]) -> None:
        lost = 0
        for row in rows:
            call = row.call[0]
            if call not in self.memory and len(self.memory) >= self.memory_rows:
                lost += 1
                continue
            # The end of a call says all that its start said, but for the text.
            before = self.memory.get(call)
            if before is None or row.ended or not before.ended:
                content = row.content
                if before is not None and before.content is not None:
                    content = before.content if content is None else joined(before.content, content)
                self.memory[call] = row._replace(content=content)
        if lost:
            if not self.lost:
                log.error("there is no room left for rows of the ledger: %s", self.why)
            self.lost += lost

    @property
    def full(self) -> bool:
        """Whether the next row would be lost."""
        return len(self.memory) >= self.memory_rows

    def health(self) -> LedgerHealth:
        """How it is now."""
        database = self.database.health()
        waiting = bool(self.memory) or bool(self.spool and not self.spool.empty)
        state: Any = "losing" if self.full else "degraded" if waiting or database.state == "away" else "ok"
        return LedgerHealth(
            state,
            backlog=database.backlog,
            spooled=self.spooled,
            in_memory=len(self.memory),
            lost=self.lost,
            interrupted=self.interrupted,
            why=None if state == "ok" and not self.lost else self.why or database.why,
            since=None if state == "ok" else self.since or database.since,
        )

    # ---- the way back -------------------------------------------------------------------------

    def settle(self) -> None:
        """Make this process known, bring its own rows home, and see to the dead. Posts what does so."""
        self.database.post(Register(self.instance, again=self._registered))
        self._registered = True
        self.drain()
        self.database.post(FindDead(self.instance, self._inherit))

    def drain(self) -> None:
        """Bring the rows of this process home."""
        if self._draining:
            return
        if self.memory:
            self.database.post(FromMemory(self))
        if self.spool is not None and not self.spool.empty:
            self._draining = True
            self.database.post(Drain(self, self.spool, self._drained, self._not_drained))

    def _drained(self) -> None:
        self._draining = False
        self.spooled = 0
        self.home()

    def _not_drained(self) -> None:
        self._draining = False

    def home(self) -> None:
        """Some rows are in the database now; where it was all of them, all is well again."""
        if not self.memory and (self.spool is None or self.spool.empty):
            self.why = self.since = None

    @property
    def busy(self) -> bool:
        """Whether rows are on their way home, its own or those of the dead."""
        return self._draining or self._heir_to > 0

    def _inherit(self, claims: list[Claim]) -> None:
        self._heir_to += len(claims)
        for claim in claims:
            bury = Bury(claim, int(self.wall() * 1_000_000), self.noted, self.left)
            if claim.spool is None or not claim.spool.exists():
                self.database.post(bury)
                continue
            self.database.post(Drain(self, self._spool(claim.spool), _Post(self.database, bury), _Give(self, claim)))

    def left(self, claim: Claim) -> None:
        """Nothing can be done for a dead process now: whoever looks next finds it again."""
        self._heir_to -= 1
        if claim.lock is not None:
            claim.lock.close()

    def noted(self, count: int) -> None:
        """A dead process is dealt with; so many calls were marked as interrupted."""
        self._heir_to -= 1
        self.interrupted += count
        if count:
            log.warning("%d calls of a process that ended are marked as interrupted", count)


class _Post:
    def __init__(self, database: Database, unit: Unit) -> None:
        self.database, self.unit = database, unit

    def __call__(self) -> None:
        self.database.post(self.unit)


class _Give:
    def __init__(self, keeper: Keeper, claim: Claim) -> None:
        self.keeper, self.claim = keeper, claim

    def __call__(self) -> None:
        self.keeper.left(self.claim)


def _bring_home(connection: Connection, rows: Sequence[Written]) -> int:
    """Write rows; how many of them the database refuses for what they are. Those are lost, and keep no other away."""
    try:
        with connection.begin_nested():
            write(connection, rows)
        return 0
    except Exception as error:
        if meaning(error) != "wrong":
            raise
    refused = 0
    for row in rows:
        try:
            with connection.begin_nested():
                write(connection, [row])
        except Exception as error:
            if meaning(error) != "wrong":
                raise
            log.error("a row cannot be written and is lost: %s", told(error))  # noqa: TRY400 - no defect of ours
            refused += 1
    return refused


class Drain(Unit):
    """Brings a file's rows into the database, a page at a time, and then empties it."""

    def __init__(
        self, keeper: Keeper, spool: Spool, then: Callable[[], None], gave_up: Callable[[], None], start: int = 0
    ) -> None:
        self.keeper: Keeper = keeper
        self.spool: Spool = spool
        self.then: Callable[[], None] = then
        self.gave_up: Callable[[], None] = gave_up
        self.start: int = start

    def apply(self, connection: Connection) -> tuple[Page, int]:
        """Write one page."""
        page = self.spool.page(self.start, PAGE)
        return page, _bring_home(connection, page.rows)

    def committed(self, result: tuple[Page, int]) -> None:
        """Go on behind it, or empty the file."""
        keeper, spool = self.keeper, self.spool
        page, refused = result
        keeper.lost += page.damaged + refused
        if page.damaged:
            log.error("%d lines of %s are damaged and lost", page.damaged, spool.path.name)
        if spool is keeper.spool:
            keeper.spooled = max(0, keeper.spooled - len(page.rows))
        if len(page.rows) < PAGE and spool.clear(page.end):
            self.then()
        else:
            keeper.database.post(Drain(keeper, spool, self.then, self.gave_up, page.end))

    def refused(self, error: DatabaseError) -> None:
        """It stays in the file; what was brought home already is brought again without harm."""
        self.gave_up()


class FromMemory(Unit):
    """Brings rows from memory into the database, some at a time."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def apply(self, connection: Connection) -> tuple[dict[bytes, Written], int]:
        """Write the first of them."""
        rows = dict(islice(self.keeper.memory.items(), PAGE))
        return rows, _bring_home(connection, list(rows.values()))

    def committed(self, result: tuple[dict[bytes, Written], int]) -> None:
        """Forget those that are there, and go on with the next."""
        rows, refused = result
        memory = self.keeper.memory
        for call, row in rows.items():
            if memory.get(call) is row:
                del memory[call]
        self.keeper.lost += refused
        if memory and rows:
            self.keeper.database.post(FromMemory(self.keeper))
        self.keeper.home()

    def refused(self, error: DatabaseError) -> None:
        """They stay where they are."""
