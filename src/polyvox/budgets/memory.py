"""Budgets counted in this process alone: gone when it ends, and counted by each process for itself. Rolling windows
and leases go by a clock that nobody sets, so that a jump of the wall clock frees nothing."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from polyvox.budgets.values import (
    GRANTED,
    KEPT,
    LEASE,
    NOTHING,
    Answer,
    Change,
    Claim,
    Lapse,
    Order,
    Settled,
    Standing,
    free_after,
)

RESERVED, SETTLED, LAPSED, GONE = range(4)
UNPRICED, ESTIMATED, EXACT = range(3)


def steady() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the machine sleeps where there is such a one."""
    return _steady()


_steady: Callable[[], float] = time.monotonic
if hasattr(time, "CLOCK_BOOTTIME"):
    _steady = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)  # noqa: E731 - a choice, made once


class _Account:
    __slots__ = ("claim", "entries", "estimated", "reserved", "settled", "spent", "touched", "unpriced")

    def __init__(self, claim: Claim, now: int) -> None:
        self.claim = claim
        self.spent = self.reserved = self.estimated = self.unpriced = self.entries = 0
        self.settled: deque[tuple[int, _Entry]] = deque()
        self.touched = now

    def put(self, entry: _Entry, sign: int) -> None:
        """Count an entry, or with -1 take it out."""
        amount = sign * entry.amount
        if entry.state == RESERVED:
            self.reserved += amount
        elif entry.state != GONE:
            self.spent += amount
            if entry.sure == ESTIMATED:
                self.estimated += amount
            elif entry.sure == UNPRICED:
                self.unpriced += sign

    def expire(self, now: int) -> None:
        """Forget what a rolling window has left behind."""
        settled = self.settled
        while settled and settled[0][0] <= now:
            due, entry = settled.popleft()
            if entry.due == due:
                self.put(entry, -1)
                entry.state = GONE

    def forgotten(self) -> Iterator[tuple[int, int]]:
        """When how much will be forgotten, soonest first."""
        return ((due, entry.amount) for due, entry in itertools.islice(self.settled, 1000) if entry.due == due)


class _Entry:
    """What one attempt has in one account. due is when a rolling window forgets it, deadline when nobody is expected
    to settle it any more."""

    __slots__ = ("account", "amount", "deadline", "due", "state", "sure")

    def __init__(self, account: _Account, amount: int, sure: int, deadline: int) -> None:
        self.account, self.amount, self.sure, self.deadline = account, amount, sure, deadline
        self.state, self.due = RESERVED, 0


class MemoryStore:
    """Accounts in memory. lease is how many seconds a reservation may stay unsettled, lapsed what becomes of it then:
    "count", because the request may have been sent and be charged for, or "release"."""

    def __init__(self, *, lease: float = LEASE, lapsed: Lapse = "count", clock: Callable[[], float] = steady) -> None:
        self.lease: int = int(lease * 1_000_000)
        self.lapsed = lapsed
        self.clock: Callable[[], float] = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._held: dict[tuple[str, str], _Entry] = {}
        self._looked = 0
        _stores.add(self)

    def after_fork(self) -> None:
        """In a child: what is in flight is the parent's."""
        self._lock = threading.Lock()
        for entry in self._held.values():
            entry.account.entries -= 1
            if entry.state == RESERVED:
                entry.account.put(entry, -1)
        self._held.clear()

    async def reserve(self, order: Order) -> Answer:
        """See `Store.reserve`."""
        with self._lock:
            now = int(self.clock() * 1_000_000)
            changes = self._look(now) if now - self._looked > min(self.lease, 60_000_000) else ()
            accounts, refused = self._fit(order, now)
            if refused is not None and self.lapsed == "release":
                self._look(now)
                accounts, refused = self._fit(order, now)
            if refused is not None:
                return self._refusal(order, refused, now, changes)
            sure = ESTIMATED if order.known else UNPRICED
            for account in accounts:
                account.reserved += order.amount
                account.entries += 1
                entry = _Entry(account, order.amount, sure, now + self.lease)
                self._held[order.id, account.claim.account] = entry
            return Answer(changes) if changes else GRANTED

    def _fit(self, order: Order, now: int) -> tuple[list[_Account], Claim | None]:
        """The accounts to take the amount in, and the first claim that has no room."""
        accounts: list[_Account] = []
        for claim in order.claims:
            if (order.id, claim.account) in self._held:
                continue
            account = self._accounts.get(claim.account)
            if account is None:
                account = self._accounts[claim.account] = _Account(claim, now)
            account.touched = now
            if account.settled:
                account.expire(now)
            if account.spent + account.reserved + order.need > claim.ceiling:
                return accounts, claim
            accounts.append(account)
        return accounts, None

    def _refusal(self, order: Order, claim: Claim, now: int, changes: tuple[Change, ...]) -> Answer:
        account = self._accounts[claim.account]
        too_much = account.spent + account.reserved + order.need - claim.ceiling
        wait = free_after(account.forgotten(), too_much, now)
        return Answer(changes, refused=claim, standing=self._standing(account), wait=wait)

    async def settle(self, order: Order, actual: int | None) -> Settled:
        """See `Store.settle`."""
        with self._lock:
            now = int(self.clock() * 1_000_000)
            changes = []
            for entry in self._taken(order, now):
                account = entry.account
                account.expire(now)
                before = account.spent
                account.put(entry, -1)
                if actual is not None:
                    entry.amount, entry.sure = actual, EXACT
                self._spend(entry, SETTLED, now)
                changes.append(Change(account.claim, before, account.spent))
            return Settled(True, tuple(changes)) if changes else NOTHING

    def _taken(self, order: Order, now: int) -> list[_Entry]:
        """What an attempt holds, which it does not any more."""
        found = []
        for claim in order.claims:
            entry = self._held.pop((order.id, claim.account), None)
            if entry is not None:
                entry.account.entries -= 1
                entry.account.touched = now
                found.append(entry)
        return found

    def _spend(self, entry: _Entry, state: int, now: int) -> None:
        account = entry.account
        entry.state = state
        account.put(entry, 1)
        if account.claim.span is not None:
            entry.due = now + account.claim.span
            account.settled.append((entry.due, entry))

    async def refund(self, order: Order) -> Settled:
        """See `Store.refund`."""
        with self._lock:
            entries = self._taken(order, int(self.clock() * 1_000_000))
            for entry in entries:
                entry.account.put(entry, -1)
                entry.state, entry.due = GONE, 0
            return Settled(True) if entries else NOTHING

    async def standings(self, claims: Sequence[Claim], most: int) -> list[Standing]:
        """See `Store.standings`."""
        with self._lock:
            now = int(self.clock() * 1_000_000)
            self._look(now)
            found = []
            for claim in claims:
                its = (account for account in self._accounts.values() if account.claim.family == claim.family)
                for account in itertools.islice(its, most):
                    account.expire(now)
                    found.append(self._standing(account))
            return found

    def _standing(self, account: _Account) -> Standing:
        return Standing(account.claim.account, account.spent, account.reserved, account.estimated, account.unpriced)

    def there(self) -> bool:
        """It always is."""
        return True

    async def close(self) -> None:
        """Nothing was opened."""

    # ---- what was left behind -----------------------------------------------------------------

    def _look(self, now: int) -> tuple[Change, ...]:
        """Find reservations that nobody settled, and accounts that nobody needs any more."""
        self._looked = now
        changes = []
        for key, entry in list(self._held.items()):
            if entry.deadline > now:
                continue
            if entry.state != RESERVED:
                # Nobody will come for it any more.
                del self._held[key]
                entry.account.entries -= 1
                continue
            entry.deadline = now + KEPT
            change = self._lapse(entry, now)
            if change is not None:
                changes.append(change)
        for name in [name for name, account in self._accounts.items() if self._is_over(account, now)]:
            del self._accounts[name]
        return tuple(changes)

    def _lapse(self, entry: _Entry, now: int) -> Change | None:
        account = entry.account
        account.expire(now)
        before = account.spent
        account.put(entry, -1)
        if self.lapsed == "release":
            entry.state = GONE
            return None
        self._spend(entry, LAPSED, now)
        return Change(account.claim, before, account.spent)

    def _is_over(self, account: _Account, now: int) -> bool:
        """Whether nobody needs an account: nothing is in it, or its window ended long ago. How long is measured by the
        steady clock, so that a wall clock that was wrong for a while brings no window twice."""
        claim, idle = account.claim, now - account.touched
        if account.entries or idle < KEPT:
            return False
        if claim.start is not None and claim.until is not None:
            return idle > claim.until - claim.start + KEPT
        account.expire(now)
        return not account.spent and not account.unpriced


_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
