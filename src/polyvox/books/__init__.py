"""Keeps account of calls: a row before the first byte leaves and one when it ended, money taken before each attempt and
settled after it. It knows the ledger and the budgets, and neither a protocol nor a price table."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from polyvox.books.account import Account, starting, user_of
from polyvox.budgets import Budgets, Reservation
from polyvox.engine.contract import CallFacts, Spent
from polyvox.errors import UsageError
from polyvox.ledger import CallEnd, Ledger
from polyvox.types import Response

__all__ = ["Account", "Books"]

log: logging.Logger = logging.getLogger("polyvox.books")


class Books:
    """The ledger and the budgets of a client; either may be None. They are closed by whoever made them."""

    def __init__(self, ledger: Ledger | None = None, budgets: Budgets | None = None) -> None:
        if ledger is None and budgets is None:
            raise UsageError("books without a ledger and without budgets keep nothing")
        self.ledger = ledger
        self.budgets = budgets
        self.ready: bool = ledger is None
        self._later: dict[asyncio.Task[Any], Callable[[], Coroutine[Any, Any, Any]]] = {}
        self.undone: deque[Callable[[], Coroutine[Any, Any, Any]]] = deque()

    async def make_ready(self) -> None:
        """Look at the ledger's database before the first call. What is wrong with its address, its driver or its schema
        is raised; one that is away is waited for, and calls go on."""
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.database.open)
        self.ready = True

    def account(self, facts: CallFacts) -> Account:
        """The account of a call that begins."""
        return Account(self, facts)

    def given_again(self, facts: CallFacts, response: Response, seconds: float) -> None:
        """Write down a call that was answered from our own cache: it cost nothing, and saved what it cost before."""
        if self.ledger is None:
            return
        start = starting(self.ledger, facts, user_of(facts))
        if self.ledger.privacy == "full":
            self.ledger.note(start)  # for what was asked: all else of it the end says too
        self.ledger.note(
            CallEnd(
                start=start,
                duration=round(seconds * 1_000_000),
                model=response.model,
                finish_reason=response.finish_reason,
                usage=response.usage,
                cost=Decimal(0),
                cost_source="catalog",
                own_cache=True,
                saved=response.cost.amount,
                losses=len(response.losses),
                answer=response,
            )
        )

    def later(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Do something of a call that nobody waits for any more; `settled` waits for it. Where no event loop runs, it
        is done with the next call."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.undone.append(work)
            return
        task = loop.create_task(work())
        self._later[task] = work
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        work = self._later.pop(task)
        if task.cancelled():
            self.undone.append(work)  # its event loop ended first
        elif (error := task.exception()) is not None:
            log.warning("the account of a call that was left could not be closed: %s", type(error).__name__)

    def drop(self, reservation: Reservation, spent: Spent | None) -> None:
        """Settle for an attempt of which nobody waits any more, None where nobody bills it: soon where an event loop
        runs, and in any case with the next step of any call."""
        assert self.budgets is not None
        self.budgets.owe(reservation, None if spent is None else spent.cost.amount, refund=spent is None)
        self.later(self.budgets.pay)

    def catch_up(self) -> None:
        """Begin what was left to do where no event loop ran."""
        while self.undone:
            self.later(self.undone.popleft())

    async def settled(self) -> None:
        """Wait for what was left to do in this event loop."""
        self.catch_up()
        loop = asyncio.get_running_loop()
        waiting = [task for task in self._later if task.get_loop() is loop]
        if waiting:
            await asyncio.wait(waiting)  # whoever stops waiting here does not stop them
