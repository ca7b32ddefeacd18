"""Settlements that wait for a store that is away. It decides nothing; what it cannot hold it counts as lost."""

from __future__ import annotations

import logging
import threading
from collections import deque

from msgspec import Struct
from msgspec.structs import replace

from polyvox.budgets.values import Change, Order, Store
from polyvox.database.money import LARGEST

log: logging.Logger = logging.getLogger("polyvox.budgets")

MOST = 10_000
AT_ONCE = 100


class Debt(Struct, frozen=True):
    """One settlement or refund; counted says whether the store knows of the reservation."""

    order: Order
    actual: int | None
    refund: bool
    counted: bool


class Owed:
    """What is owed to a store, oldest first. away says why the store cannot be reached, None when it can."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away: str | None = None
        self.lost: int = 0
        self._lock = threading.Lock()
        self._debts: deque[Debt] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._debts)

    def add(self, order: Order, actual: int | None, *, refund: bool, counted: bool) -> None:
        """Keep one for later. The oldest is lost where too many wait: what it had reserved then counts in full."""
        with self._lock:
            full = len(self._debts) >= MOST
            if full:
                self._debts.popleft()
                self.lost += 1
            self._debts.append(Debt(order, actual, refund, counted))
        if full and self.lost & (self.lost - 1) == 0:
            log.error("%d settlements of budgets are lost: the store is away for too long", self.lost)

    def forget(self, attempt: str) -> None:
        """An attempt is made after all: what it was to be given back must not be."""
        with self._lock:
            self._debts = deque(debt for debt in self._debts if not (debt.refund and debt.order.id == attempt))

    async def pay(self) -> list[Change]:
        """Settle some of what waits; what changed by it. BudgetsAwayError where the store is still away: nothing is
        lost by that."""
        changes: list[Change] = []
        for _ in range(min(AT_ONCE, len(self._debts))):
            with self._lock:
                if not self._debts:  # another thread was quicker
                    break
                debt = self._debts.popleft()
            try:
                changes += await self._paid(debt)
            except BaseException:
                # Twice is no harm: a store knows for a while what was settled.
                with self._lock:
                    self._debts.appendleft(debt)
                raise
        return changes

    async def _paid(self, debt: Debt) -> tuple[Change, ...]:
        order = debt.order
        if not debt.counted:
            # The money is spent, whether there is room for it or not.
            free = tuple(replace(claim, ceiling=LARGEST) for claim in order.claims)
            await self.store.reserve(replace(order, claims=free))
        settled = await (self.store.refund(order) if debt.refund else self.store.settle(order, debt.actual))
        return settled.changes
