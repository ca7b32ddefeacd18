"""Budgets: what a call may cost at most is taken before it is sent, and what it did cost is put in its place. It knows
no price and no engine; both hand it what they know."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal

import msgspec
from msgspec import Struct

from polyvox.budgets.amounts import dollars, pico_of
from polyvox.budgets.faults import BudgetExceededError, BudgetsAwayError
from polyvox.budgets.memory import MemoryStore
from polyvox.budgets.owed import Owed
from polyvox.budgets.redis_store import RedisStore
from polyvox.budgets.rules import Budget, Facts, Family, Rule, no_secret
from polyvox.budgets.sql import ReserveUnit, SqlStore
from polyvox.budgets.values import (
    Answer,
    BudgetNotice,
    BudgetsHealth,
    BudgetState,
    Change,
    Claim,
    Order,
    Reservation,
    Settled,
    Settlement,
    Standing,
    Store,
    words,
)
from polyvox.database.money import moment
from polyvox.errors import InputError, PolyvoxError, UsageError

__all__ = [
    "Answer", "Budget", "BudgetExceededError", "BudgetNotice", "BudgetState", "Budgets", "BudgetsAwayError",
    "BudgetsHealth", "Facts", "MemoryStore", "RedisStore", "Reservation", "ReserveUnit", "Settlement", "SqlStore",
    "Store",
]  # fmt: skip

log: logging.Logger = logging.getLogger("polyvox.budgets")

_MOST_FACTS = 10_000
_NOBODY = Order("", 0, True, 0, ())


class _Era(Struct, frozen=True):
    """A time in which no window ends: its bounds, the families that count in it, and the accounts of what was said of
    calls so far."""

    start: int
    end: int
    families: tuple[Family, ...]
    claims: dict[Facts, tuple[Claim, ...]]


class Budgets:
    """Counts what calls cost against budgets; usable from any thread and event loop.

    store: a `MemoryStore` (by default), `SqlStore` or `RedisStore`. on_notice is called with each `BudgetNotice`; one
    that fails harms no call. wall is the clock calendars go by, seconds since the epoch.

    >>> import asyncio
    >>> budgets = Budgets([Budget("2.50", window="day", each="user")])
    >>> async def call():
    ...     reservation = await budgets.reserve("attempt-1", Facts(user="ann"), Decimal("0.02"))
    ...     return await budgets.settle(reservation, Decimal("0.0132"))
    >>> asyncio.run(call()).done
    True
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        store: Store | None = None,
        *,
        on_notice: Callable[[BudgetNotice], None] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rules: tuple[Rule, ...] = tuple(Rule(budget, place) for place, budget in enumerate(budgets))
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two budgets are called {name!r}", hint="give each a name of its own")
        self.store: Store = store if store is not None else MemoryStore()
        self.on_notice: Callable[[BudgetNotice], None] | None = on_notice
        self.wall: Callable[[], float] = wall
        self._owed = Owed(self.store)
        self._era = _Era(0, -1, (), {})
        self._told: dict[tuple[str, int], int] = {}

    # ---- one attempt --------------------------------------------------------------------------

    async def reserve(self, attempt: str, facts: Facts, at_most: Decimal | None) -> Reservation:
        """Take what an attempt may cost at most, USD, in all budgets that are for it or in none; None is not known.
        The same attempt again changes nothing. Its name must be no other attempt's.

        BudgetExceededError where a hard budget has no room, BudgetsAwayError where there is a hard one and the store
        cannot be reached.
        """
        order = self._order(attempt, facts, at_most)
        if not order.claims:
            return Reservation(attempt, at_most, order)
        try:
            if self._owed.waiting:
                self._owed.forget(attempt)
                await self._pay()
            answer = await self.store.reserve(order)
        except BudgetsAwayError as error:
            answer = Answer(away=error)
        return self._taken(order, at_most, answer)

    def reserving(self, attempt: str, facts: Facts, at_most: Decimal | None) -> ReserveUnit | None:
        """The same as a unit of the database the budgets are in, so that it can be written in one transaction with
        others, such as a start in the ledger; give its result to `taken`. None where no budget is for the call."""
        if not isinstance(self.store, SqlStore):
            raise UsageError("these budgets are in no database", hint="count them in a SqlStore, or use reserve()")
        order = self._order(attempt, facts, at_most)
        return ReserveUnit(self.store, order) if order.claims else None

    def taken(self, attempt: str, at_most: Decimal | None, result: tuple[Order, Answer] | None) -> Reservation:
        """The reservation that the result of a unit of `reserving` means; raises as `reserve` does. None is the result
        where there was no unit."""
        if result is None:
            return Reservation(attempt, at_most, _NOBODY)
        return self._taken(result[0], at_most, result[1])

    async def settle(self, reservation: Reservation, actual: Decimal | None) -> Settlement:
        """Put what an attempt did cost, USD, in the place of what was reserved. None: nobody knows, and the reserved
        maximum counts. A second time changes nothing. A store that is away is no error: it is done later."""
        amount = None if actual is None else pico_of(actual, "a cost")
        order = reservation.order
        if not order.claims:
            return Settlement(done=False)
        over = amount is not None and order.known and amount > order.amount
        result = await self._finish(reservation, amount, refund=False)
        if result is not None and not result.done:
            return Settlement(done=False)
        if over:
            self._tell_over(reservation, actual)
        return Settlement(estimated=actual is None, over=over, later=result is None)

    async def refund(self, reservation: Reservation) -> Settlement:
        """Give back what was reserved for an attempt that cost nothing. Otherwise as `settle`."""
        if not reservation.order.claims:
            return Settlement(done=False)
        result = await self._finish(reservation, None, refund=True)
        return Settlement(done=result is None or result.done, later=result is None)

    def owe(self, reservation: Reservation, actual: Decimal | None, *, refund: bool) -> None:
        """Settle or refund with the next step that anybody takes, or with `pay`: for whoever cannot wait. From any
        thread, with or without an event loop."""
        order = reservation.order
        if order.claims and (not refund or reservation.counted or reservation.perhaps):
            amount = None if actual is None else pico_of(actual, "a cost")
            self._owed.add(order, amount, refund=refund, counted=refund or reservation.counted)

    async def pay(self) -> None:
        """Settle what is owed, as far as the store is there."""
        with contextlib.suppress(BudgetsAwayError):
            while before := self._owed.waiting:
                await self._pay()
                if self._owed.waiting >= before:
                    return

    def has_hard(self, facts: Facts) -> bool:
        """Whether a hard budget is for a call: then it must not be made while its row in the ledger would be lost."""
        return any(claim.hard for claim in self._claims_of(facts))

    # ---- how they stand -----------------------------------------------------------------------

    async def state(self, most: int = 1000) -> list[BudgetState]:
        """How each budget stands in its window of now; of one that counts values one by one, each account, up to so
        many. BudgetsAwayError where the store cannot be reached."""
        now = self._now()
        families = self._current(now).families
        claims = [rule.all_of(family) for rule, family in zip(self.rules, families, strict=True)]
        if self._owed.waiting:
            await self._pay()
        found = await self.store.standings(claims, most)
        by_family: dict[str, list[Standing]] = {}
        for standing in found:
            by_family.setdefault(_family_of(standing.account), []).append(standing)
        states = []
        for rule, claim in zip(self.rules, claims, strict=True):
            standings = by_family.get(claim.family, [])
            if not standings and not rule.budget.each:
                standings = [Standing(claim.account)]
            states += [_state(rule, claim, standing, now) for standing in standings]
        return states

    def health(self) -> BudgetsHealth:
        """Whether they are counted, as of the last step or a look at the store that is about a second old. It never
        waits: an old look is made anew in the background, for whoever asks next."""
        owed = self._owed
        if owed.away is not None and self.store.there():
            self._tell_back()
        return BudgetsHealth("ok" if owed.away is None else "away", owed.away, owed.waiting, owed.lost)

    async def close(self) -> None:
        """Settle what waits, as far as the store is there, and let go of the store."""
        await self.pay()
        await self.store.close()

    # ---- inside -------------------------------------------------------------------------------

    def _order(self, attempt: str, facts: Facts, at_most: Decimal | None) -> Order:
        # Neither of these can be kept in every store: a zero byte, and half of a surrogate pair.
        if not isinstance(attempt, str) or not attempt or "\0" in attempt or not attempt.isascii():
            raise InputError("an attempt has a name of its own, as ASCII text", hint="give the name of its call")
        amount = 0 if at_most is None else pico_of(at_most, "what a call may cost at most")
        claims = self._claims_of(facts)
        if at_most is None:
            for claim in claims:
                rule = self.rules[claim.place]
                if claim.hard and rule.budget.unknown == "refuse":
                    raise self._unknown(rule, claim)
        return Order(attempt, amount, at_most is not None, amount if at_most is not None else 1, claims)

    def _claims_of(self, facts: Facts) -> tuple[Claim, ...]:
        era = self._current(self._now())
        found = era.claims.get(facts)
        if found is None:
            if facts.key is not None:
                no_secret(facts.key)
            pairs = zip(self.rules, era.families, strict=True)
            found = tuple(claim for rule, family in pairs for claim in rule.claims(facts, family))
            if len(era.claims) >= _MOST_FACTS:
                era.claims.clear()
            era.claims[facts] = found
        return found

    def _current(self, now: int) -> _Era:
        era = self._era
        if not era.start <= now < era.end:
            families = tuple(rule.family(now) for rule in self.rules)
            start = max((start for _, start, _ in families if start is not None), default=-(2**62))
            end = min((end for _, _, end in families if end is not None), default=2**62)
            era = self._era = _Era(start, end, families, {})
        return era

    def _now(self) -> int:
        return int(self.wall() * 1_000_000)

    def _taken(self, order: Order, at_most: Decimal | None, answer: Answer) -> Reservation:
        if answer.away is not None:
            self._tell_away(answer.away)
            hard = next((claim for claim in order.claims if claim.hard), None)
            if hard is not None:
                name = self.rules[hard.place].name
                if answer.away.perhaps:
                    self._owed.add(order, None, refund=True, counted=True)
                raise BudgetsAwayError(
                    f"budget {name!r} is hard and cannot be counted: {answer.away.message}"
                ) from answer.away
            return Reservation(order.id, at_most, order, counted=False, perhaps=answer.away.perhaps)
        if self._owed.away is not None:
            self._tell_back()
        if answer.changes:
            self._tell(answer.changes)
        if answer.refused is not None:
            raise self._exceeded(answer, at_most)
        return Reservation(order.id, at_most, order)

    async def _finish(self, reservation: Reservation, actual: int | None, *, refund: bool) -> Settled | None:
        """Settle or refund; None where it has to wait for the store."""
        order = reservation.order
        if not reservation.counted:
            if refund:
                if reservation.perhaps:
                    self._owed.add(order, None, refund=True, counted=True)
                return Settled(True)
            self._owed.add(order, actual, refund=False, counted=False)
            return None
        try:
            if self._owed.waiting:
                await self._pay()
            result = await (self.store.refund(order) if refund else self.store.settle(order, actual))
        except BudgetsAwayError as error:
            self._owed.add(order, actual, refund=refund, counted=True)
            self._tell_away(error)
            return None
        if self._owed.away is not None:
            self._tell_back()
        if result.changes:
            self._tell(result.changes)
        return result

    async def _pay(self) -> None:
        self._tell(await self._owed.pay())

    # ---- what is told -------------------------------------------------------------------------

    def _unknown(self, rule: Rule, claim: Claim) -> BudgetExceededError:
        scope = rule.scope(claim.account)
        return BudgetExceededError(
            f"nobody knows what this call may cost, and budget {_called(rule, claim.account)} is hard",
            hint="say max_tokens, give the model a price, or the budget unknown='allow'",
            budget=rule.name,
            scope=scope,
            limit=rule.dollars,
        )

    def _exceeded(self, answer: Answer, at_most: Decimal | None) -> BudgetExceededError:
        claim, standing = answer.refused, answer.standing
        assert claim is not None
        assert standing is not None
        rule, now = self.rules[claim.place], self._now()
        never = at_most is not None and pico_of(at_most, "a cost") > claim.ceiling
        wait = None if never else (claim.until - now if claim.until is not None else answer.wait)
        frees_at = None if wait is None else moment(now + max(0, wait))
        spent, reserved = dollars(standing.spent), dollars(standing.reserved)
        needs = "an amount nobody knows" if at_most is None else f"{at_most:f}"
        hint = None
        if frees_at is not None:
            hint = f"wait until {frees_at.isoformat(timespec='seconds')}, or {BudgetExceededError.advice}"
        return BudgetExceededError(
            f"budget {_called(rule, claim.account)} has no room: limit {rule.dollars:f} USD, spent {spent:f}, "
            f"reserved {reserved:f}, and this call may cost {needs}",
            hint=hint,
            budget=rule.name,
            scope=rule.scope(claim.account),
            limit=rule.dollars,
            spent=spent,
            reserved=reserved,
            needed=at_most,
            frees_at=frees_at,
            retry_after=None if wait is None else max(0, wait) / 1_000_000,
        )

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.after > change.before:
                self._tell_thresholds(change)

    def _tell_thresholds(self, change: Change) -> None:
        rule, claim = self.rules[change.claim.place], change.claim
        crossed = [
            percent for percent in rule.budget.warn_at
            if change.before * 100 < percent * rule.limit <= change.after * 100
        ]  # fmt: skip
        if not crossed or not self._is_news(claim, crossed[-1]):
            return
        spent = dollars(change.after)
        self._notice(BudgetNotice(
            "threshold",
            f"budget {_called(rule, claim.account)}: {spent:f} of {rule.dollars:f} USD are spent, {crossed[-1]} %",
            rule.name, dict(rule.scope(claim.account)), crossed[-1], rule.dollars, spent,
        ))  # fmt: skip

    def _is_news(self, claim: Claim, percent: int) -> bool:
        """In a calendar window a threshold is passed once. In a rolling one that falls and rises it is told once a
        window's length."""
        if claim.span is None:
            return True
        now, before = self._now(), self._told.get((claim.account, percent))
        if before is not None and now - before < claim.span:
            return False
        if len(self._told) >= _MOST_FACTS:
            self._told.clear()
        self._told[claim.account, percent] = now
        return True

    def _tell_over(self, reservation: Reservation, actual: Decimal | None) -> None:
        self._notice(BudgetNotice(
            "over",
            f"attempt {reservation.id} cost {actual or 0:f} USD, more than the {reservation.at_most or 0:f} reserved",
            spent=actual,
        ))  # fmt: skip

    def _tell_away(self, error: PolyvoxError) -> None:
        if self._owed.away is None:
            self._owed.away = error.message
            what = "hard ones refuse, soft ones let calls through"
            self._notice(BudgetNotice("away", f"budgets cannot be counted, {what}: {error.message}"))

    def _tell_back(self) -> None:
        self._owed.away = None
        self._notice(BudgetNotice("back", "budgets are counted again"))

    def _notice(self, notice: BudgetNotice) -> None:
        log.warning("%s", notice.message)
        if self.on_notice is not None:
            try:
                self.on_notice(notice)
            except Exception:
                log.exception("what was to be told of a budget failed")


def _called(rule: Rule, account: str) -> str:
    scope = rule.scope(account)
    return f"{rule.name!r} ({words(scope)})" if scope else repr(rule.name)


def _family_of(account: str) -> str:
    return str(msgspec.json.decode(account)[0])


def _state(rule: Rule, claim: Claim, standing: Standing, now: int) -> BudgetState:
    start, until = claim.start, claim.until
    forecast = None
    # Too early there is no telling.
    if start is not None and until is not None and (now - start) * 100 >= until - start:
        forecast = dollars(max(standing.spent, standing.spent * (until - start) // (now - start)))
    span = rule.window.span
    return BudgetState(
        name=rule.name,
        scope=dict(rule.scope(standing.account)),
        window=f"rolling {timedelta(microseconds=span)}" if span is not None else rule.window.text,
        hard=rule.budget.hard,
        limit=rule.dollars,
        spent=dollars(standing.spent),
        reserved=dollars(standing.reserved),
        left=dollars(max(0, rule.limit - standing.spent - standing.reserved)),
        estimated=dollars(standing.estimated),
        unpriced=standing.unpriced,
        over=standing.spent > rule.limit,
        starts=None if start is None else moment(start),
        ends=None if until is None else moment(until),
        forecast=forecast,
    )
