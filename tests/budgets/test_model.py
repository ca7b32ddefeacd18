"""Whatever is reserved, settled, given back and left behind, in any order and over any time: every store holds what the
simplest account book holds, and no hard budget ever lets more through than it has."""

import asyncio
import itertools
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from polyvox.budgets import Budget, BudgetExceededError, Budgets, Facts
from tests.budgets.conftest import NOON, Clock

LEASE = 60
AMOUNTS = st.decimals("0", "4", places=2)
FACTS = st.builds(Facts, user=st.sampled_from([None, "ann", "bob"]), model=st.sampled_from(["m1", "x1"]))
games = itertools.count()


class Line:
    """One attempt in the book. at is when it was reserved, spent_at when it was settled or taken for left behind."""

    def __init__(self, reservation, facts, amount, at):
        self.reservation, self.facts, self.at = reservation, facts, at
        self.amount = amount or Decimal(0)
        self.sure = "no" if amount is None else "estimated"
        self.state, self.spent_at = "reserved", None


class Book:
    """Goes through all lines for every question."""

    def __init__(self, budgets, lapsed):
        self.budgets, self.lapsed, self.lines = budgets, lapsed, []

    def applies(self, budget, facts):
        return budget.model is None or facts.model.startswith("m")

    def account(self, place, facts):
        return facts.user if self.budgets[place].each else "all"

    def inside(self, budget, line, now):
        if budget.window == "hour":
            return line.at // 3600 == now // 3600
        if line.state == "spent" and budget.window is not None:
            return line.spent_at + {"100s": 100, "30m": 1800}[budget.window] > now
        return True

    def of(self, place, account, now):
        budget = self.budgets[place]
        lines = [
            line for line in self.lines
            if self.applies(budget, line.facts) and self.account(place, line.facts) == account
            and self.inside(budget, line, now)
        ]  # fmt: skip
        spent = [line for line in lines if line.state == "spent"]
        return (
            sum(line.amount for line in spent),
            sum(line.amount for line in lines if line.state == "reserved"),
            sum(line.amount for line in spent if line.sure == "estimated"),
            sum(line.sure == "no" for line in spent),
        )

    def has_room(self, facts, amount, now):
        for place, budget in enumerate(self.budgets):
            if not budget.hard or not self.applies(budget, facts):
                continue
            if amount is None and budget.unknown == "refuse":
                return False
            spent, reserved, *_ = self.of(place, self.account(place, facts), now)
            need = Decimal("1e-12") if amount is None else amount
            if spent + reserved + need > budget.limit:
                return False
        return True

    def look(self, now):
        """Take up what was left behind."""
        for line in self.lines:
            if line.state == "reserved" and line.at + LEASE <= now:
                line.state, line.spent_at = ("gone" if self.lapsed == "release" else "spent"), now
                line.left = True


class Game(RuleBasedStateMachine):
    open_store = None
    lapsed = "count"

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.clock = Clock(NOON)
        number = next(games)
        self.rules = [
            Budget(10, window="hour", name=f"hour {number}", unknown="allow"),
            Budget(6, window="100s", each="user", name=f"user {number}", unknown="allow"),
            Budget(5, hard=False, name=f"soft {number}"),
            Budget(8, window="30m", model="m*", name=f"model {number}"),
        ]
        self.store = type(self).open_store(self.clock, self.lapsed)
        self.budgets = Budgets(self.rules, self.store, wall=self.clock)
        self.book = Book(self.rules, self.lapsed)
        self.count = itertools.count()

    def run(self, coroutine):
        return self.runner.run(coroutine)

    @rule(facts=FACTS, amount=st.none() | AMOUNTS)
    def reserve(self, facts, amount):
        fits = self.book.has_room(facts, amount, self.clock.now)
        name = f"{self.rules[0].name} {next(self.count)}"
        try:
            reservation = self.run(self.budgets.reserve(name, facts, amount))
        except BudgetExceededError:
            assert not fits
            return
        assert fits
        self.book.lines.append(Line(reservation, facts, amount, self.clock.now))

    @precondition(lambda self: self.book.lines)
    @rule(which=st.integers(0, 1000), actual=st.none() | AMOUNTS)
    def settle(self, which, actual):
        line = self.book.lines[which % len(self.book.lines)]
        outcome = self.run(self.budgets.settle(line.reservation, actual))
        may = line.state == "reserved" or getattr(line, "left", False)
        assert outcome.done == may
        if may:
            line.state, line.spent_at, line.left = "spent", self.clock.now, False
            if actual is not None:
                line.amount, line.sure = actual, "yes"

    @precondition(lambda self: self.book.lines)
    @rule(which=st.integers(0, 1000))
    def refund(self, which):
        line = self.book.lines[which % len(self.book.lines)]
        may = line.state == "reserved" or getattr(line, "left", False)
        assert self.run(self.budgets.refund(line.reservation)).done == may
        if may:
            line.state, line.left = "gone", False

    @rule(seconds=st.sampled_from([1, 39, 40, 60, 99, 100, 1700, 3600]))
    def wait(self, seconds):
        self.clock.pass_by(seconds)
        self.book.look(self.clock.now)

    @invariant()
    def every_account_holds_what_the_book_holds(self):
        now, found = self.clock.now, {}
        for row in self.run(self.budgets.state()):
            place = [budget.name for budget in self.rules].index(row.name)
            found[place, row.scope.get("user", "all")] = (row.spent, row.reserved, row.estimated, row.unpriced)
            used = row.spent + row.reserved
            assert row.left == max(0, row.limit - used)
        nothing = (0, 0, 0, 0)
        accounts = [(0, "all"), (2, "all"), (3, "all"), (1, None), (1, "ann"), (1, "bob")]
        for place, account in accounts:
            assert found.get((place, account), nothing) == self.book.of(place, account, now), (place, account)

    def teardown(self):
        # With everything settled nothing is reserved.
        for line in self.book.lines:
            self.run(self.budgets.settle(line.reservation, Decimal(0)))
        assert all(row.reserved == 0 for row in self.run(self.budgets.state()))
        self.run(self.budgets.close())
        self.runner.close()


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(3, id="a third")])
@pytest.mark.parametrize("lapsed", ["count", "release"])
def test_every_store_holds_what_the_book_holds(open_store, kind, lapsed, share):
    shared = None if kind in ("memory", "redis") else open_store()

    def store(clock, lapsed):
        if shared is None:
            return open_store(clock=clock, lease=LEASE, lapsed=lapsed)
        return type(shared)(shared.database, clock=clock, lease=LEASE, lapsed=lapsed)

    game = type("Game", (Game,), {"open_store": staticmethod(store), "lapsed": lapsed})
    examples = (60 if kind == "memory" else 25) // share
    run_state_machine_as_test(
        game,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
