"""Budgets counted in a database, for all processes that use it. Each step is a unit of the database's one writer, so
that it can share a transaction with a row of the ledger. Rolling windows and leases go by the clock of the machine
that has the database: of the PostgreSQL server, or of this one for SQLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from polyvox.budgets.book import Book, book_of
from polyvox.budgets.faults import BudgetsAwayError
from polyvox.budgets.memory import ESTIMATED, EXACT, RESERVED, SETTLED, UNPRICED
from polyvox.budgets.values import (
    GRANTED,
    LEASE,
    NOTHING,
    REMEMBERED,
    Answer,
    Claim,
    Lapse,
    Order,
    Settled,
    Standing,
    free_after,
)
from polyvox.database import Database, DatabaseAwayError, DatabaseError, Unit, run

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MILLION = 1_000_000
_NOW = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
_FORGOTTEN = (
    "SELECT due, amount FROM budget_entries WHERE account = ? AND state IN (1, 2) AND due > ? ORDER BY due LIMIT 1000"
)
_OF_FAMILY = "SELECT id FROM budget_accounts WHERE family = ? ORDER BY id LIMIT ?"


class SqlStore:
    """Accounts in a `Database`, which stays the caller's. lease is how many seconds a reservation may stay unsettled,
    lapsed what becomes of it then: "count", because the request may have been sent and be charged for, or "release".
    clock takes the place of the machine's, for tests."""

    def __init__(
        self,
        database: Database,
        *,
        lease: float = LEASE,
        lapsed: Lapse = "count",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.database = database
        self.lease: int = int(lease * _MILLION)
        self.lapsed = lapsed
        self.clock: Callable[[], float] | None = clock
        self.tidied: int | None = None

    async def reserve(self, order: Order) -> Answer:
        """See `Store.reserve`."""
        result: tuple[Order, Answer] = await self._write(ReserveUnit(self, order))
        answer = result[1]
        if answer.away is not None:
            raise answer.away
        return answer

    async def settle(self, order: Order, actual: int | None) -> Settled:
        """See `Store.settle`."""
        settled: Settled = await self._write(SettleUnit(self, order, actual))
        return settled

    async def refund(self, order: Order) -> Settled:
        """See `Store.refund`."""
        settled: Settled = await self._write(RefundUnit(self, order))
        return settled

    async def standings(self, claims: Sequence[Claim], most: int) -> list[Standing]:
        """See `Store.standings`."""
        found: list[Standing] = await self._write(_Look(self, claims, most))
        return found

    def there(self) -> bool:
        """Whether the database is, which is looked for in the background while it is away."""
        return self.database.health().state == "ok"

    async def close(self) -> None:
        """The database stays open: it is the caller's."""

    async def _write(self, unit: Unit) -> Any:
        try:
            return await self.database.write(unit)
        except DatabaseAwayError as error:
            raise BudgetsAwayError(error.message) from error

    def now(self, connection: Connection) -> int:
        """The time, after the lock was taken."""
        if self.clock is not None:
            return int(self.clock() * _MILLION)
        if connection.dialect.name == "postgresql":
            return int(run(connection, _NOW).scalar_one())
        return int(self.database.wall() * _MILLION)


# ---- units ------------------------------------------------------------------------------------


class ReserveUnit(Unit):
    """Reserves. A refusal is a result, not an error, so that what is written together with it is written all the
    same; `Budgets.taken` reads the result."""

    def __init__(self, store: SqlStore, order: Order) -> None:
        self.store: SqlStore = store
        self.order: Order = order
        self.applied: bool = False

    def apply(self, connection: Connection) -> tuple[Order, Answer]:
        """Take the amount in all accounts or in none."""
        order, store = self.order, self.store
        self.applied = True
        book = book_of(connection, store)
        known = book.entries(order)
        claims = [claim for claim in order.claims if claim.account not in known]
        if not claims:
            return order, GRANTED
        book.open(claims)
        for claim in claims:
            account = book.accounts[claim.account]
            too_much = account.spent + account.reserved + order.need - claim.ceiling
            if too_much > 0:
                wait = _free_after(book, claim, too_much)
                return order, Answer(book.changes(), refused=claim, standing=account.standing(), wait=wait)
        due = book.now + store.lease
        sure = ESTIMATED if order.known else UNPRICED
        for claim in claims:
            book.accounts[claim.account].put(RESERVED, order.amount, sure, 1, due)
            book.put(order.id, claim.account, (RESERVED, order.amount, sure, due))
        return order, Answer(book.changes())

    def refused(self, error: DatabaseError) -> tuple[Order, Answer]:
        """The database is away: what no hard budget is for goes on."""
        # Lost in the middle, it may be in the database all the same.
        away = BudgetsAwayError(error.message, perhaps=self.applied)
        away.__cause__ = error
        if any(claim.hard for claim in self.order.claims):
            raise away
        return self.order, Answer(away=away)

    def undo(self, result: tuple[Order, Answer]) -> Unit | None:
        """Give it back."""
        return None if result[1].refused or result[1].away else RefundUnit(self.store, self.order)


class SettleUnit(Unit):
    """Settles one attempt; None lets the reserved amount count."""

    def __init__(self, store: SqlStore, order: Order, actual: int | None) -> None:
        self.store: SqlStore = store
        self.order: Order = order
        self.actual: int | None = actual

    def apply(self, connection: Connection) -> Settled:
        """Put what was spent in the place of what was reserved."""
        book = book_of(connection, self.store)
        book.open(self.order.claims)
        done = False
        for account, (state, amount, sure, _) in book.entries(self.order).items():
            if state == SETTLED:
                continue
            claim, sums = book.claims[account], book.accounts[account]
            sums.put(state, amount, sure, -1)
            if self.actual is not None:
                amount, sure = self.actual, EXACT
            due = book.now + (claim.span if claim.span is not None else REMEMBERED)
            sums.put(SETTLED, amount, sure, 1, due)
            book.put(self.order.id, account, (SETTLED, amount, sure, due))
            done = True
        changes = book.changes()
        return Settled(True, changes) if done else NOTHING


class RefundUnit(Unit):
    """Gives back what one attempt reserved."""

    def __init__(self, store: SqlStore, order: Order) -> None:
        self.store: SqlStore = store
        self.order: Order = order

    def apply(self, connection: Connection) -> Settled:
        """Take out what was not settled."""
        book = book_of(connection, self.store)
        book.open(self.order.claims)
        done = False
        for account, (state, amount, sure, _) in book.entries(self.order).items():
            if state != SETTLED:
                book.accounts[account].put(state, amount, sure, -1)
                book.put(self.order.id, account, None)
                done = True
        changes = book.changes()
        return Settled(True, changes) if done else NOTHING


class _Look(Unit):
    """Reads how accounts stand, once what is due was done."""

    def __init__(self, store: SqlStore, claims: Sequence[Claim], most: int) -> None:
        self.store, self.claims, self.most = store, claims, most

    def apply(self, connection: Connection) -> list[Standing]:
        book = book_of(connection, self.store)
        book.flush()
        found = []
        for claim in self.claims:
            names = [row[0] for row in run(connection, _OF_FAMILY, (claim.family, self.most))]
            book.read([name for name in names if name not in book.accounts])
            found += [book.accounts[name].standing() for name in names]
        book.changes()
        return found


def _free_after(book: Book, claim: Claim, too_much: int) -> int | None:
    """After how many microseconds a rolling window has forgotten enough."""
    if claim.span is None:
        return None
    book.flush()
    rows = run(book.connection, _FORGOTTEN, (claim.account, book.now)).all()
    return free_after([(row[0], row[1]) for row in map(tuple, rows)], too_much, book.now)
