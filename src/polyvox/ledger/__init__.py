"""What happened and what it cost: a row for each call before its first byte leaves, and its end, once, whatever becomes
of the process, the database or the disk. It knows no engine and no price; both hand it what they know."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, Unpack

from polyvox.chance import random_bytes
from polyvox.database import Database, DatabaseError, Unit
from polyvox.database.files import make_folder
from polyvox.errors import InputError, UsageError
from polyvox.keys import config_dir, locked, write_atomically
from polyvox.ledger.columns import Manner, Written, written_end, written_start
from polyvox.ledger.history import History
from polyvox.ledger.ids import new_id
from polyvox.ledger.instances import Bury, Claim, Instance
from polyvox.ledger.keeping import Keeper
from polyvox.ledger.places import default_place, spool_folder
from polyvox.ledger.rows import CallRows, Opening
from polyvox.ledger.upkeep import NewPrice, Repriced, Upkeep
from polyvox.ledger.usage import UsageRow
from polyvox.ledger.values import (
    AttemptEnd,
    AttemptRecord,
    CallEnd,
    CallRecord,
    CallStart,
    Durability,
    LedgerHealth,
    Privacy,
    StartFacts,
)

__all__ = [
    "AttemptEnd", "AttemptRecord", "CallEnd", "CallRecord", "CallStart", "History", "Ledger", "LedgerHealth",
    "NewPrice", "Repriced", "UsageRow", "default_place",
]  # fmt: skip

log: logging.Logger = logging.getLogger("polyvox.ledger")

_DAY = 86400.0
_OPENING = 30.0
"""Seconds that opening waits for rows of dead processes; the rest of them comes home in the background."""


class Ledger:
    """Writes calls down and reads them back.

    Attributes:
        database: a `Database`, or a path or URL, which then is opened here and closed with the ledger.
        durability: "commit": `begin` and `finish` come back when the row would survive a killed process and a power
            cut; "relaxed": at once, and what came within the last 20 ms may be lost with the process.
        privacy: "none" keeps neither texts nor messages of errors; "hashed" a keyed hash of the prompt; "full" also
            prompt and answer. Messages and texts are kept without secrets.
        spool: the folder for rows while the database is away; by default beside the file, or in the user's folder for
            state; False for none. spool_bytes bounds a process's file there.
        memory_rows: how many rows stay in memory where that file cannot be written either.
        hash_key: the key of the hashes; by default one made once, in the configuration folder.
        retention: how long calls are kept; None for ever. What is older is removed once a day.

    >>> import asyncio, tempfile
    >>> async def one_call(ledger):
    ...     start = ledger.start(model="parrot", provider="demo", user="ann")
    ...     await ledger.begin(start)
    ...     await ledger.finish(CallEnd(start=start, state="ok", duration=1_500_000))
    >>> with tempfile.TemporaryDirectory() as folder, Ledger(f"{folder}/ledger.db") as ledger:
    ...     asyncio.run(one_call(ledger))
    ...     [(row.key["user"], row.calls, row.unknown_cost) for row in ledger.history.usage("user")]
    [('ann', 1, 1)]
    """

    def __init__(
        self,
        database: Database | str | os.PathLike[str],
        *,
        durability: Durability = "commit",
        privacy: Privacy = "none",
        spool: Path | str | bool | None = None,
        spool_bytes: int = 256 * 1024 * 1024,
        memory_rows: int = 10_000,
        hash_key: bytes | None = None,
        retention: timedelta | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = random_bytes,
    ) -> None:
        _one_of("durability", durability, ("commit", "relaxed"))
        _one_of("privacy", privacy, ("none", "hashed", "full"))
        self.relaxed: bool = durability == "relaxed"
        self._owned = not isinstance(database, Database)
        if isinstance(database, Database):
            self.database: Database = database
        else:
            self.database = Database(database, relaxed=self.relaxed, wall=wall)
        self.privacy = privacy
        self.retention: timedelta | None = retention
        self.clock: Callable[[], float] = clock
        self.wall: Callable[[], float] = wall
        self.random_bytes: Callable[[int], bytes] = random_bytes
        given = Path(spool) if isinstance(spool, str | Path) else None
        self._folder = None if spool is False else spool_folder(self.database.address, given)
        self._bounds = {"spool_bytes": spool_bytes, "memory_rows": memory_rows}
        self._hash_key = hash_key
        self.history: History = History(self.database)
        self.upkeep: Upkeep = Upkeep(self.database, wall)
        self._rows = CallRows(self._written, self._keep)
        self._put = self.database.put
        self.database.on_back(self._back)
        self._fresh()
        _ledgers.add(self)

    def _fresh(self) -> None:
        self.instance: Instance = Instance(self._folder, self.random_bytes, self._now())
        self.keeper: Keeper = Keeper(
            self.database, self.instance, sync=not self.relaxed, wall=self.wall, clock=self.clock, **self._bounds
        )
        self._opened = False
        self._opening = threading.Lock()
        self._pruned: float | None = None

    def after_fork(self) -> None:
        """In a child: a process of its own, with nothing of the parent's."""
        self.instance.after_fork()
        self._fresh()

    # ---- its life -----------------------------------------------------------------------------

    def open(self) -> None:
        """Open the database, mark what dead processes left open, bring home what they could not write. Without it, all
        that happens with the first call. Raises as `Database.open` does."""
        self.database.open()
        self._settle()
        # What was handed over before such a unit is done when it is.
        end = self.clock() + _OPENING
        with contextlib.suppress(DatabaseError):
            self.database.write_sync(_Nothing())
            while self.keeper.busy and self.clock() < end:
                self.database.write_sync(_Nothing())

    def close(self) -> None:
        """Write what was handed over; say that this process is no more."""
        if self._opened:
            # A process that ends soon may not be known yet; what makes it known also opens its files.
            with contextlib.suppress(Exception):
                self.database.write_sync(_Nothing(), timeout=10)
            claim = Claim(self.instance.number, self.instance.lock, self._folder)
            self.instance.lock = None
            self.keeper.drain()
            with contextlib.suppress(Exception):
                self.database.write_sync(_Leave(claim, self._now(), self.keeper), timeout=10)
            self._opened = False
        _ledgers.discard(self)
        if self._owned:
            self.database.close()

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

    def _settle(self) -> None:
        with self._opening:
            if not self._opened:
                self.keeper.settle()
                self._tidy()
                self._opened = True

    def _back(self) -> None:
        if self._opened:
            self.keeper.settle()

    # ---- one call -----------------------------------------------------------------------------

    def start(self, **facts: Unpack[StartFacts]) -> CallStart:
        """The start of a call that is about to be made: with an id and the time, and what is said of it."""
        now = self._now()
        return CallStart(id=new_id(now, self.random_bytes), started=now, **facts)

    async def begin(self, start: CallStart) -> None:
        """Write down that a call begins; where it must be durable, it is when this comes back. Never raises because
        of the database: `health` and `may_admit` say how that is."""
        if not self._opened:
            self._settle()
        if self.relaxed:
            self._put(self._rows, start, None)
            return
        future = asyncio.get_running_loop().create_future()
        self._put(self._rows, start, future)
        await future

    async def finish(self, end: CallEnd) -> None:
        """Write down how a call ended, once for each; waits as `begin` does. After `close` it is counted as lost: an
        answer that is there is not taken back for that."""
        future = None if self.relaxed else asyncio.get_running_loop().create_future()
        try:
            if not self._opened:
                self._settle()
            self._put(self._rows, end, future)
        except UsageError:
            self.keeper.lost += 1
            log.warning("a call ended after its ledger was closed; the end is lost")
            return
        if future is not None:
            await future

    def note(self, what: CallStart | CallEnd) -> None:
        """Write a start or an end down some time soon, from any thread; nobody waits."""
        if not self._opened:
            self._settle()
        self._put(self._rows, what, None)

    def opening(self, start: CallStart) -> Unit:
        """The start of a call as a unit, to be written in one transaction with others: `Together(reserve, opening)`."""
        if not self._opened:
            self._settle()
        return Opening(self._rows, start)

    def may_admit(self, hard_budget: bool = False) -> bool:
        """Whether a call may be made: one under a hard budget must not be while its row would be lost."""
        return not (hard_budget and self.keeper.full)

    def health(self) -> LedgerHealth:
        """Whether all is written down; see `LedgerHealth`."""
        return self.keeper.health()

    # ---- upkeep -------------------------------------------------------------------------------

    def prune(self, before: datetime) -> int:
        """Remove calls that started before a time, with all that hangs on them; how many. Open ones stay."""
        return self.upkeep.prune(before)

    def reprice(self, since: datetime, price: Callable[[CallRecord], NewPrice | None]) -> Repriced:
        """Price calls from a time on anew; see `polyvox.ledger.upkeep.Upkeep.reprice`."""
        return self.upkeep.reprice(since, price)

    def _tidy(self) -> None:
        """Once a day, from the writer's thread or the first caller's: what is too old goes."""
        if self.retention is None or (self._pruned is not None and self.clock() - self._pruned < _DAY):
            return
        self._pruned = self.clock()
        self.upkeep.prune_soon(self._now() - int(self.retention.total_seconds() * 1_000_000))

    # ---- in the writer's thread ---------------------------------------------------------------

    def _written(self, what: CallStart | CallEnd) -> Written:
        manner = Manner(self.instance.number, self.privacy, self._hash if self.privacy != "none" else None)
        if isinstance(what, CallStart):
            return written_start(what, manner)
        if self.retention is not None:
            self._tidy()
        return written_end(what, manner)

    def _keep(self, rows: Any, error: Any) -> None:
        self.keeper.keep(rows, error)

    def _hash(self, text: bytes) -> bytes:
        if self._hash_key is None:
            self._hash_key = _own_key(self.random_bytes)
        return hmac.new(self._hash_key, text, hashlib.sha256).digest()[:16]

    def _now(self) -> int:
        return max(0, int(self.wall() * 1_000_000))


class _Nothing(Unit):
    def apply(self, connection: Any) -> None:
        """Nothing: it only takes its turn."""


class _Leave(Bury):
    """What a process does for itself when it ends in order. Its files stay where they still hold rows."""

    def __init__(self, claim: Claim, now: int, keeper: Keeper) -> None:
        super().__init__(claim, now, self._noted, self._left)
        self.keeper = keeper

    def _noted(self, count: int) -> None:
        if count:
            log.warning("%d calls had not ended when their ledger was closed", count)

    def _left(self, claim: Claim) -> None:
        if claim.lock is not None:
            claim.lock.close()

    def committed(self, result: int) -> None:
        """Take the files away, unless rows are in them."""
        if self.keeper.spool is None or self.keeper.spool.empty:
            super().committed(result)
        elif self.claim.lock is not None:
            self.claim.lock.close()


def _own_key(random_bytes: Callable[[int], bytes]) -> bytes:
    """The key of this user's hashes, made with its first use."""
    path = config_dir() / "ledger.key"
    with contextlib.suppress(OSError):
        make_folder(path.parent)
        with locked(path.parent):
            if not path.exists():
                write_atomically(path, random_bytes(32), 0o600)
        return path.read_bytes()
    log.warning("%s cannot be kept: hashes of this process match no others", path)
    return random_bytes(32)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {' or '.join(allowed)}, not {value!r}")


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _after_fork() -> None:
    for ledger in list(_ledgers):
        ledger.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
