"""Worlds in which a pool stands before the deployments: it chooses, moves on, waits for room, asks two at once, and
goes on with what broke off."""

from msgspec.structs import replace

from polyvox.limits import Limits, MemoryLeases
from polyvox.pools import Member, Routing
from polyvox.pools.pool import Shared
from polyvox.registry import Entry
from polyvox.routing.needs import Abilities
from polyvox.routing.pick import STRATEGIES, Rates
from polyvox.testing import weather as w
from tests.simulation import routed
from tests.simulation.watching import NotingDeployment, WatchedPool
from tests.simulation.world import World


class PooledWorld(World):
    """See the module."""

    deployment_type = NotingDeployment
    rules, rules_of_all = routed.OF_A_CALL, routed.OF_A_WORLD

    def __init__(self, seed, *, keep=False):
        super().__init__(seed, keep=keep)
        draw, virtual = self.virtual.draw("pool"), self.virtual
        self.where = self.virtual.draw("where")
        self.tier = "local" if self.where.random() < 0.1 else None
        routing = self._routing(draw)
        self.continues, self.hedges = routing.continue_streams, routing.hedge_after is not None
        shared = Shared(MemoryLeases(clock=virtual.clock), virtual.clock, virtual.chance, lambda: self.rule)
        members = [self._member(draw, at) for at in self.deployments]
        self.pool = WatchedPool("all", members, shared, routing, tier=self.tier)

    def _how_many(self, draw):
        return draw.choice((1, 2, 2, 3, 3, 4, 4, 8, 50))

    def _routing(self, draw):
        return Routing(
            strategy=draw.choice(sorted(STRATEGIES)),
            first_token=draw.choice((None, 2.0, 5.0)),
            hedge_after=draw.choice((None, None, 0.5, 3.0)),
            hedge_share=draw.choice((0.1, 1.0)),
            continue_streams=draw.random() < 0.3,
            after_refusal=draw.random() < 0.5,
            queue=draw.choice((3, 1000)),
        )

    def _member(self, draw, at):
        limits = Limits(
            concurrency=draw.choice((None, None, 1, 3)),
            requests_per_minute=draw.choice((None, None, 10)),
            tokens_per_minute=draw.choice((None, None, 2_000)),
        )
        entry = Entry(at.model, at.name, weight=draw.choice((1.0, 5.0)), priority=draw.choice((0, 0, 1)), limits=limits)
        manner = at.manner
        rates = Rates(*(float(price) * 1e6 for price in manner.prices)) if manner.prices is not None else None
        known = draw.random() < 0.5
        abilities = Abilities(local=self.where.random() < 0.7)
        if known:
            abilities = replace(abilities, context=manner.context, prefill=manner.takes_prefill)
        return Member(entry, at, abilities=abilities, rates=rates)

    def asked(self, wanted):
        return self.pool

    def turn(self, served):
        (at,) = [at for at in self.deployments if at.model == served.name]
        return at.noted[served.number - 1][1]

    def still(self):
        held = []
        for member in self.pool.members:
            used = self.pool.leases.used(member.name)
            if used.in_flight or member.standing.in_flight:
                held.append(f"{used.in_flight} leases of {member.name}, {member.standing.in_flight} in flight")
        if len(self.pool.queue):
            held.append(f"{len(self.pool.queue)} wait for room")
        return held


class TornWorld(PooledWorld):
    """One in which nearly every stream breaks off, is gone on with, and is asked for twice."""

    def _how_many(self, draw):
        return draw.randrange(2, 6)

    def _manner(self, draw):
        torn = tuple((trouble, 0.13) for trouble in w.TROUBLES)
        manner = replace(super()._manner(draw), weather=w.Weather(w.Conditions(troubles=torn)))
        return replace(manner, answer=(1, 30)) if manner.context is not None else manner

    def _routing(self, draw):
        hedged = draw.choice((None, 0.5))
        return replace(super()._routing(draw), continue_streams=True, hedge_after=hedged, hedge_share=1.0)
