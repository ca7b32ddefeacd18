"""A test of the test: pools of which one rule is broken on purpose are found out, and by the right invariant."""

import itertools
import pkgutil

import pytest
from msgspec.structs import replace

from polyvox.testing.virtual import HangError
from tests.simulation.invariants import broken
from tests.simulation.pooled import PooledWorld, TornWorld

SEEDS = range(120)


async def nothing(*what):
    return None


def every_second(ask):
    turns = itertools.count()

    def asks(self, place):
        if next(turns) % 2:
            ask(self, place)

    return asks


def turned_round(ask):
    def asks(self, place):
        ask(self, place)
        self._asked.reverse()

    return asks


def always_hedged(begin):
    def begins(self, *made):
        begin(self, *made)
        self.hedge_after = 0.5

    return begins


def paid_by_nobody(attempted):
    async def attempts(self, ticket, attempt, spent, at):
        self._told(attempt, spent)
        if self.inner is not None:
            await self.inner.attempted(ticket, attempt, None, at)

    return attempts


def unmarked(opened):
    def opens(self, leg, error):
        notes = self._notes
        opened(self, leg, error)
        self._notes = notes

    return opens


def unmeasured(resume):
    def resumes(self, partial):
        self._partial = partial

    return resumes


def anywhere(wanted):
    return lambda request, now, local_only: wanted(request, now)


def those_that_are_well(allowed):
    return lambda breakers, now: [place for place, breaker in enumerate(breakers) if breaker.allows(now)]


def without(**limits):
    return lambda take: lambda self, key, of, tokens: take(self, key, replace(of, **limits), tokens)


def kept(settle):
    def settles(self, tokens=None):
        self._gate = None

    return settles


def instead(other):
    return lambda before: other


BROKEN = {
    "a decision that leaves attempts out": ("P1", "polyvox.routing.decision.Deciding.ask", every_second),
    "a decision in another order": ("P1", "polyvox.routing.decision.Deciding.ask", turned_round),
    "a hedge that nobody wished": ("P2", "polyvox.pools.plan.Plan.__init__", always_hedged),
    "a stream that lost and costs nothing": ("P2", "polyvox.engine.stream.StreamRun._lost", instead(nothing)),
    "an answer that lost and costs nothing": ("P2", "polyvox.engine._cost_of_whole", instead(nothing)),
    "attempts that no budget pays": ("P2", "tests.simulation.watching.WatchedAccount.attempted", paid_by_nobody),
    "a seam that is not marked": ("P3", "polyvox.engine.seam.Seam.open", unmarked),
    "breakers that leave nobody in": ("P4", "polyvox.pools.pool.allowed", those_that_are_well),
    "a request that nobody looks at": ("P5", "polyvox.routing.needs.Wanted.why_not", instead(lambda *what: None)),
    "words to go on with that nobody counts": ("P5", "polyvox.pools.plan.Plan.resume", unmeasured),
    "a local call that leaves": ("P5", "polyvox.pools.pool.Wanted", anywhere),
    "too many calls at a time": ("P6", "polyvox.limits.memory.MemoryLeases.take", without(concurrency=None)),
    "too many calls a minute": ("P6", "polyvox.limits.memory.MemoryLeases.take", without(requests_per_minute=None)),
    "a lease that is not given back": ("I7", "polyvox.limits.memory.MemoryLease.settle", kept),
}
"""What invariant finds it out, whose place is taken, and by what, made from what was there."""


def found(number):
    """Whether an invariant is found broken in any world."""
    for seed in SEEDS:
        for kind in (PooledWorld, TornWorld):
            try:
                lines = broken(kind(seed).run())
            except HangError:  # found out, too, and not by an invariant
                continue
            if any(line.startswith(f"{number}: ") for line in lines):
                return True
    return False


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_of_pools_is_found_out(name, monkeypatch):
    number, target, make = BROKEN[name]
    monkeypatch.setattr(target, make(pkgutil.resolve_name(target)))
    assert found(number)
