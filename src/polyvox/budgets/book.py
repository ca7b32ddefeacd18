"""The accounts that one transaction works with. What its units change is kept here and written once, when the
transaction commits; what a savepoint changed is forgotten with it. It decides nothing about who may spend what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from polyvox.budgets.memory import ESTIMATED, GONE, LAPSED, RESERVED, SETTLED, UNPRICED
from polyvox.budgets.values import KEPT, Change, Claim, Order, Standing
from polyvox.database import run, run_many
from polyvox.database.money import LARGEST

if TYPE_CHECKING:
    from sqlalchemy import Connection, RootTransaction

    from polyvox.budgets.sql import SqlStore

Entry: TypeAlias = tuple[int, int, int, int]
"""State, amount, how sure, when something is due."""

_MILLION = 1_000_000
_LOCK = 0x62756467  # "budg": the first of the two numbers of our advisory lock
_SHARED = "polyvox.budgets"
_AT_ONCE = 500
_SIZES = (64, 8, 1)

_ENTRIES = "SELECT account, state, amount, sure, due FROM budget_entries WHERE attempt = ?"
_PUT = "INSERT INTO budget_entries (attempt, account, state, amount, sure, due) VALUES "
_PUT_OVER = (
    " ON CONFLICT (attempt, account) DO UPDATE SET state = excluded.state, amount = excluded.amount, "
    "sure = excluded.sure, due = excluded.due"
)
_REMOVE = "DELETE FROM budget_entries WHERE attempt = ? AND account = ?"
# In two parts, because the sum of whole pico-dollars may be more than a column holds.
_DUE = (
    "SELECT state, sure, COUNT(*), SUM(amount / 1000000), SUM(amount % 1000000) FROM budget_entries "
    "WHERE account = ? AND due <= ? GROUP BY state, sure"
)
_DROP_DUE = "DELETE FROM budget_entries WHERE account = ? AND due <= ? AND state = ?"
_MOVE_DUE = "UPDATE budget_entries SET state = ?, due = ? WHERE account = ? AND due <= ? AND state = ?"
_NEXT_DUE = "SELECT MIN(due) FROM budget_entries WHERE account = ?"
_COLUMNS = "id, spent, reserved, estimated, unpriced, due, span"
_ACCOUNTS = f"SELECT {_COLUMNS} FROM budget_accounts WHERE id IN "  # noqa: S608 - names of ours
_STALE = f"SELECT {_COLUMNS} FROM budget_accounts WHERE due < ? LIMIT 100"  # noqa: S608 - the same
_SAVE = "INSERT INTO budget_accounts (id, family, spent, reserved, estimated, unpriced, due, span, until) VALUES "
_SAVE_OVER = (
    " ON CONFLICT (id) DO UPDATE SET spent = excluded.spent, reserved = excluded.reserved, "
    "estimated = excluded.estimated, unpriced = excluded.unpriced, due = excluded.due"
)
_UPDATE = "UPDATE budget_accounts SET spent = ?, reserved = ?, estimated = ?, unpriced = ?, due = ? WHERE id = ?"
_EMPTY = "DELETE FROM budget_accounts WHERE id = ?"
_OLD = "SELECT id FROM budget_accounts WHERE until < ? ORDER BY until LIMIT 100"
_OLD_ENTRIES = "DELETE FROM budget_entries WHERE account = ?"
_HOUR = 3_600_000_000
_LONG_OVER = 400 * 24 * _HOUR
"""After how long an account of a calendar window is removed: more than a year, so that not even a clock that is far
ahead for a while brings a window twice."""


class Sums(Struct):
    """An account as it is now; before is what it had spent before something was added."""

    id: str
    spent: int = 0
    reserved: int = 0
    estimated: int = 0
    unpriced: int = 0
    due: int | None = None
    span: int | None = None
    before: int = 0
    changed: bool = False

    def put(self, state: int, amount: int, sure: int, sign: int, due: int | None = None, count: int = 1) -> None:
        """Count an entry, or with -1 take it out."""
        amount *= sign
        if state == RESERVED:
            self.reserved += amount
        elif state in (SETTLED, LAPSED):
            self.spent += amount
            if sure == ESTIMATED:
                self.estimated += amount
            elif sure == UNPRICED:
                self.unpriced += sign * count
        if due is not None:
            self.due = due if self.due is None else min(self.due, due)
        self.changed = True

    def standing(self) -> Standing:
        """How it stands, for callers."""
        return Standing(self.id, self.spent, self.reserved, self.estimated, self.unpriced)

    @property
    def sums(self) -> tuple[int, ...]:
        """What the columns keep; more than fits stays at the most."""
        return tuple(
            max(0, min(value, LARGEST)) for value in (self.spent, self.reserved, self.estimated, self.unpriced)
        )  # fmt: skip


def _rows(connection: Connection, head: str, rows: Sequence[tuple[Any, ...]], tail: str) -> None:
    """Many rows with few statements, of few sizes, so that the server knows them from the last time."""
    first = 0
    for size in _SIZES:
        while len(rows) - first >= size:
            some = rows[first : first + size]
            marks = "(" + ", ".join("?" * len(some[0])) + ")"
            run(connection, head + ", ".join([marks] * size) + tail, [value for row in some for value in row])
            first += size


def book_of(connection: Connection, store: SqlStore) -> Book:
    """The book of this transaction: its units share the lock, the time, what was read and what is to be written."""
    transaction = connection.get_transaction()
    book: Book | None = connection.info.get(_SHARED)
    fresh = book is None or book.transaction is not transaction
    if book is None or fresh:
        _listen(connection)
        book = connection.info[_SHARED] = Book(connection, store)
    savepoint = connection.get_nested_transaction()
    if savepoint is not None:
        book.enter(savepoint, fresh=fresh)
    return book


def _listen(connection: Connection) -> None:
    from sqlalchemy import event

    if not event.contains(connection, "commit", _committing):
        event.listen(connection, "commit", _committing)
        event.listen(connection, "rollback_savepoint", _rolled_back)
        event.listen(connection, "release_savepoint", _released)


def _committing(connection: Connection) -> None:
    book: Book | None = connection.info.pop(_SHARED, None)
    if book is not None and book.transaction is connection.get_transaction():
        book.flush()


def _rolled_back(connection: Connection, _name: str, _context: None) -> None:
    book: Book | None = connection.info.get(_SHARED)
    if book is not None and book.transaction is connection.get_transaction():
        if book.born is connection.get_nested_transaction():
            # The lock that was taken in a savepoint goes with it.
            connection.info.pop(_SHARED)
        else:
            book.go_back(connection.get_nested_transaction())


def _released(connection: Connection, _name: str, _context: None) -> None:
    book: Book | None = connection.info.get(_SHARED)
    if book is not None and book.transaction is connection.get_transaction():
        book.leave(connection.get_nested_transaction())


class Book:
    """The accounts one transaction works with. While it works no other process changes any: SQLite has the lock since
    the transaction began, and in PostgreSQL all take one lock, because locks on rows taken by many units in one
    transaction would meet in every order."""

    def __init__(self, connection: Connection, store: SqlStore) -> None:
        self.connection: Connection = connection
        self.store: SqlStore = store
        self.transaction: RootTransaction | None = connection.get_transaction()
        if connection.dialect.name == "postgresql":
            run(connection, "SELECT pg_advisory_xact_lock(?, hashtext(current_schema()))", (_LOCK,))
        self.now: int = store.now(connection)
        self.accounts: dict[str, Sums] = {}
        self.claims: dict[str, Claim] = {}
        self._recent: dict[str, Sums] = {}
        self._unwritten: dict[str, Sums] = {}
        self._entries: dict[str, dict[str, Entry | None]] = {}
        self.born: Any = self
        self._savepoints: list[tuple[Any, Any]] = []

    # ---- for units ----------------------------------------------------------------------------

    def open(self, claims: Sequence[Claim]) -> None:
        """Read the accounts of claims, and do what is due in them."""
        store = self.store
        if store.tidied is None or not 0 <= self.now - store.tidied < _HOUR:
            store.tidied = self.now
            self._tidy()
        self.read([claim.account for claim in claims if claim.account not in self.accounts])
        for claim in claims:
            self.claims[claim.account] = claim
            if claim.account not in self.accounts:
                self.accounts[claim.account] = Sums(claim.account, span=claim.span)
            self._recent[claim.account] = self.accounts[claim.account]

    def read(self, names: Sequence[str]) -> None:
        """Read accounts that were not read yet."""
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            self._take_in(run(self.connection, f"{_ACCOUNTS}({marks})", some).all())

    def entries(self, order: Order) -> dict[str, Entry]:
        """What an attempt has in the accounts of its order."""
        names = {claim.account for claim in order.claims}
        found: dict[str, Entry | None] = {
            row[0]: (row[1], row[2], row[3], row[4]) for row in map(tuple, run(self.connection, _ENTRIES, (order.id,)))
        }
        found.update(self._entries.get(order.id, {}))
        return {name: entry for name, entry in found.items() if name in names and entry is not None}

    def put(self, attempt: str, account: str, entry: Entry | None) -> None:
        """Keep an entry, in the place of one that is there; None removes it."""
        self._entries.setdefault(attempt, {})[account] = entry

    def changes(self) -> tuple[Change, ...]:
        """What was spent since this was asked for the last time."""
        changes = []
        for name, account in self._recent.items():
            if account.changed:
                self._unwritten[name] = account
            claim = self.claims.get(name)
            if claim is not None and account.before != account.spent:
                changes.append(Change(claim, account.before, account.spent))
            account.before, account.changed = account.spent, False
        self._recent.clear()
        return tuple(changes)

    def flush(self) -> None:
        """Write what was not written yet."""
        self.changes()
        known, others = [], []
        for name, account in self._unwritten.items():
            claim = self.claims.get(name)
            if claim is not None:
                known.append((name, claim.family, *account.sums, account.due, claim.span, claim.until))
            else:
                others.append((*account.sums, account.due, name))
        run_many(self.connection, _UPDATE, others)
        _rows(self.connection, _SAVE, known, _SAVE_OVER)
        kept, removed = [], []
        for attempt, entries in self._entries.items():
            for account_name, entry in entries.items():
                if entry is None:
                    removed.append((attempt, account_name))
                else:
                    kept.append((attempt, account_name, *entry))
        _rows(self.connection, _PUT, kept, _PUT_OVER)
        run_many(self.connection, _REMOVE, removed)
        self._unwritten.clear()
        self._entries.clear()

    # ---- savepoints ---------------------------------------------------------------------------

    def enter(self, savepoint: Any, *, fresh: bool) -> None:
        """What is done from here on may be taken back; fresh says that this is all there is."""
        if fresh:
            self.born = savepoint
        if self._savepoints and self._savepoints[-1][0] is savepoint:
            return
        self.changes()
        before = (
            {name: replace(account) for name, account in self.accounts.items()},
            list(self._unwritten),
            {attempt: dict(entries) for attempt, entries in self._entries.items()},
        )
        self._savepoints.append((savepoint, before))

    def leave(self, savepoint: Any) -> None:
        """It is not taken back any more, but with a savepoint around this one."""
        if self._savepoints and self._savepoints[-1][0] is savepoint:
            self._savepoints.pop()

    def go_back(self, savepoint: Any) -> None:
        """Be as before a savepoint."""
        if not self._savepoints or self._savepoints[-1][0] is not savepoint:
            return
        self.accounts, unwritten, self._entries = self._savepoints.pop()[1]
        self._unwritten = {name: self.accounts[name] for name in unwritten}
        self._recent = {}

    def _take_in(self, rows: Iterable[Any]) -> list[Sums]:
        """Accounts from their rows, with what is due done."""
        found = [Sums(*row) for row in rows]
        for account in found:
            account.before = account.spent
            self.accounts[account.id] = self._recent[account.id] = account
            if account.due is not None and account.due <= self.now:
                self._do_due(account)
        return found

    # ---- what is due --------------------------------------------------------------------------

    def _do_due(self, account: Sums) -> None:
        """Forget what a rolling window left behind, and what is long settled; then take up what nobody settled."""
        name, now = account.id, self.now
        due: dict[int, list[tuple[int, int, int]]] = {}
        for row in run(self.connection, _DUE, (name, now)):
            state, sure, count, millions, rest = tuple(row)
            due.setdefault(state, []).append((sure, count, int(millions) * _MILLION + int(rest)))
        rolling = account.span is not None
        for state in (SETTLED, LAPSED):
            for sure, count, amount in due.get(state, ()) if rolling else ():
                account.put(state, amount, sure, -1, count=count)
        self._drop(account, due, SETTLED)
        self._drop(account, due, GONE)
        if LAPSED in due:
            if rolling:
                run(self.connection, _MOVE_DUE, (GONE, now + KEPT, name, now, LAPSED))
            else:
                self._drop(account, due, LAPSED)
        account.before = account.spent
        if RESERVED in due:
            self._lapse(account, due[RESERVED])
        account.due = run(self.connection, _NEXT_DUE, (name,)).scalar()
        account.changed = True

    def _lapse(self, account: Sums, left: list[tuple[int, int, int]]) -> None:
        release = self.store.lapsed == "release"
        for sure, count, amount in left:
            account.put(RESERVED, amount, sure, -1)
            if not release:
                account.put(LAPSED, amount, sure, 1, count=count)
        state = GONE if release else LAPSED
        due = self.now + (KEPT if release or account.span is None else account.span)
        run(self.connection, _MOVE_DUE, (state, due, account.id, self.now, RESERVED))

    def _drop(self, account: Sums, due: dict[int, Any], state: int) -> None:
        if state in due:
            run(self.connection, _DROP_DUE, (account.id, self.now, state))

    def _tidy(self) -> None:
        """Once an hour: do what is due in accounts that nobody asks for, and remove those that nobody needs."""
        self.flush()
        for account in self._take_in(run(self.connection, _STALE, (self.now - _HOUR,)).all()):
            if account.span is not None and account.due is None and not any(account.sums):
                run(self.connection, _EMPTY, (account.id,))
                del self.accounts[account.id], self._recent[account.id]
        old = [(row[0],) for row in run(self.connection, _OLD, (self.now - _LONG_OVER,))]
        run_many(self.connection, _OLD_ENTRIES, old)
        run_many(self.connection, _EMPTY, old)
        for (name,) in old:
            self.accounts.pop(name, None)
            self._recent.pop(name, None)
