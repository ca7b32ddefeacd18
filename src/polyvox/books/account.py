"""The account of one call: what was reserved for each attempt, what each cost, and how the call ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Coroutine
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from polyvox.budgets import BudgetExceededError, Budgets, BudgetsAwayError, Facts, Reservation, Settlement
from polyvox.engine.contract import CallFacts, Spent
from polyvox.engine.spending import NOTHING, summed
from polyvox.errors import PolyvoxError, UsageError
from polyvox.ledger import AttemptEnd, CallEnd, CallStart, Ledger
from polyvox.prices import Bill
from polyvox.types import Answered, Attempt, Response

if TYPE_CHECKING:
    from polyvox.books import Books

log: logging.Logger = logging.getLogger("polyvox.books")


def starting(ledger: Ledger, of: CallFacts, user: str | None) -> CallStart:
    """The start of a call, as the ledger writes it down."""
    who = of.who
    return ledger.start(
        operation=of.operation,
        deployment=of.deployment,
        provider=of.provider,
        model=of.model,
        stream=of.stream,
        tenant=who.tenant,
        user=user,
        project=who.project,
        session=who.session,
        key=who.key,
        tags=who.tags,
        prompt=of.request,
    )


def user_of(of: CallFacts) -> str | None:
    """On whose behalf a call is made: as it says, or as it tells its provider."""
    said = of.who.user if of.who.user is not None else getattr(of.request, "user", None)
    return said if isinstance(said, str) else None


class Account:
    """See `engine.contract.Account`."""

    __slots__ = ("_begun", "_closed", "_ends", "_facts", "_number", "_of", "_spents", "_start", "books")

    def __init__(self, books: Books, of: CallFacts) -> None:
        self.books: Books = books
        self._of = of
        who, user = of.who, user_of(of)
        self._start: CallStart | None = starting(books.ledger, of, user) if books.ledger is not None else None
        self._facts = Facts(who.key, user, who.project, of.deployment, who.tags)
        self._ends: list[AttemptEnd] = []
        self._spents: list[Spent | None] = []
        self._number = 0
        self._begun = False
        self._closed = False

    @property
    def counts(self) -> bool:
        """Whether any budget is there, so that a bound of an attempt's cost is wanted."""
        return self.books.budgets is not None

    async def admit(self, at_most: Decimal | None, at: Any) -> Reservation | None:
        """See `engine.contract.Account`; the ticket is what is reserved."""
        ledger, budgets = self.books.ledger, self.books.budgets
        self._number += 1
        if not self.books.ready:
            await self.books.make_ready()
        if self.books.undone:
            self.books.catch_up()
        reservation = None
        if budgets is not None:
            facts = self._facts_at(at)
            if ledger is not None and not ledger.may_admit(budgets.has_hard(facts)):
                raise BudgetsAwayError(
                    "no call under a hard budget is made while nothing can be written down",
                    hint="see to the ledger's database and to the disk: `polyvox logs status`",
                )
            name = f"{self._of.id}-{self._number}"
            try:
                reservation = await budgets.reserve(name, facts, at_most)
            except GeneratorExit:
                self.books.later(partial(self._take_back, budgets, name, facts, at_most))
                raise
        if ledger is not None and self._start is not None and not self._begun:
            self._begun = True
            try:
                await ledger.begin(self._start)
            except PolyvoxError:
                self._begun = False  # nothing of it was written
                if reservation is not None:
                    await self._settled(reservation, None)
                raise
            except BaseException:
                if reservation is not None:
                    self.books.drop(reservation, None)
                raise
        return reservation

    def _facts_at(self, at: Any) -> Facts:
        """Whose budgets an attempt counts in: those of its deployment."""
        facts = self._facts
        return facts if at.name == facts.model else Facts(facts.key, facts.user, facts.project, at.name, facts.tags)

    async def attempted(self, ticket: Reservation | None, attempt: Attempt, spent: Spent | None, at: Any) -> None:
        """See `engine.contract.Account`."""
        self._note(attempt, spent, at)
        if ticket is not None:
            await self._settled(ticket, spent)

    def dropped(self, ticket: Reservation | None, attempt: Attempt, spent: Spent | None, at: Any) -> None:
        """See `engine.contract.Account`."""
        self._note(attempt, spent, at)
        if ticket is not None:
            self.books.drop(ticket, spent)

    async def _take_back(self, budgets: Budgets, name: str, facts: Facts, at_most: Decimal | None) -> None:
        """Give back what nobody saw whether it was granted: the same reservation again changes nothing."""
        with contextlib.suppress(BudgetExceededError, BudgetsAwayError):
            await budgets.refund(await budgets.reserve(name, facts, at_most))

    async def _settled(self, reservation: Reservation, spent: Spent | None) -> None:
        """Settle what is reserved, whatever becomes of whoever waits for it: twice does no harm."""
        try:
            await self._settle(reservation, spent)
        except BaseException:
            self.books.drop(reservation, spent)
            raise

    def _note(self, attempt: Attempt, spent: Spent | None, at: Any) -> None:
        self._spents.append(spent)
        usage, cost = spent or NOTHING
        # A bill is told in words by whoever writes it down, in a thread of its own.
        how = cost if isinstance(cost, Bill) else None
        self._ends.append(
            AttemptEnd(
                attempt=attempt,
                provider=at.provider,
                model=at.model,
                usage=usage,
                cost=cost.amount,
                cost_source=cost.source,
                cost_how=how,
            )
        )

    def _settle(self, reservation: Reservation, spent: Spent | None) -> Coroutine[Any, Any, Settlement]:
        assert self.books.budgets is not None
        if spent is None:
            return self.books.budgets.refund(reservation)
        return self.books.budgets.settle(reservation, spent.cost.amount)

    async def close(
        self,
        state: Any,
        seconds: float,
        answer: Response | Answered | None = None,
        error: PolyvoxError | None = None,
        first_token: float | None = None,
    ) -> None:
        """See `engine.contract.Account`."""
        end = self._end(state, seconds, answer, error, first_token)
        if end is not None and self.books.ledger is not None:
            await self.books.ledger.finish(end)

    def left(self, seconds: float, first_token: float | None) -> None:
        """See `engine.contract.Account`."""
        end = self._end("cancelled", seconds, None, None, first_token)
        if end is not None and self.books.ledger is not None:
            try:
                self.books.ledger.note(end)
            except UsageError:
                log.warning("a call was left after its ledger was closed; its end is lost")

    def _end(
        self,
        state: Any,
        seconds: float,
        answer: Response | Answered | None,
        error: PolyvoxError | None,
        first_token: float | None,
    ) -> CallEnd | None:
        """The call's final row, once; None where it was never admitted."""
        if self._closed or not self._begun or self._start is None:
            return None
        self._closed = True
        usage, cost = summed(self._spents)
        return CallEnd(
            start=self._start,
            state=state,
            duration=round(seconds * 1_000_000),
            first_token=None if first_token is None else round(first_token * 1_000_000),
            deployment=answer.deployment if answer is not None else None,
            provider=answer.provider if answer is not None else None,
            model=answer.model if answer is not None else None,
            finish_reason=answer.finish_reason if isinstance(answer, Response) else None,
            error_kind=None if error is None else error.kind,
            error_message=None if error is None else error.message,
            usage=usage,
            cost=cost.amount,
            cost_source=cost.source,
            cost_how=cost if isinstance(cost, Bill) else None,
            losses=len(answer.losses) if answer is not None else 0,
            request_id=answer.request_id if answer is not None else None if error is None else error.request_id,
            attempts=tuple(self._ends),
            answer=answer,
        )
