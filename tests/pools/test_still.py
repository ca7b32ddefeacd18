"""Whatever deployments do and callers decide: when all calls are over nothing is held, nobody waits, and no limit was
ever passed."""

import asyncio
import gc

from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from polyvox.errors import ConnectionFailedError, PolyvoxError
from polyvox.limits import Full, Limits, MemoryLeases
from polyvox.pools import Routing
from polyvox.routing.pick import STRATEGIES
from polyvox.testing.virtual import Virtual
from tests.pools.world import REQUEST, Later, Place, Slow, World
from tests.scripted import Answer, failed, piece, said, streamed

SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.5, 7.0])
OUTCOMES = {
    "well": lambda stream: streamed("one ", "two") if stream else said("one two"),
    "busy": lambda stream: failed(429, headers={"retry-after": "3"}),
    "ill": lambda stream: failed(503),
    "no key": lambda stream: failed(401),
    "wrong": lambda stream: failed(400),
    "nobody there": lambda stream: ConnectionFailedError("refused", sent="no"),
    "breaks": lambda stream: streamed("one ", end=False) if stream else Answer(b'{"id": '),
    "hangs": lambda stream: Answer(*([piece({"content": "one "})] if stream else []), 500.0),
}


class Counting(Place):
    """Deals out one outcome after the other, and counts how many it answers at a time."""

    def __init__(self, dealt, clock):
        super().__init__()
        self.dealt, self.clock = dealt, clock
        self.at_once = self.most = 0
        self.begun = []

    async def send(self, outgoing, timeouts):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        seconds, outcome = self.dealt.pop() if self.dealt else (1.0, "well")
        if outcome != "nobody there":  # what was never sent counts in no limit
            self.begun.append(self.clock())
        try:
            self.answers = [Slow(seconds, OUTCOMES[outcome](b'"stream":true' in outgoing.body))]
            return await super().send(outgoing, timeouts)
        finally:
            self.at_once -= 1

    def most_in_a_minute(self):
        return max([sum(1 for other in self.begun if start <= other < start + 60) for start in self.begun], default=0)


LIMITS = st.builds(
    lambda concurrency, requests: Limits(concurrency, requests),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, None, 3, 10]),
)
ROUTING = st.builds(
    Routing,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    first_token=st.sampled_from([None, 2.0]),
    hedge_after=st.sampled_from([None, 0.7]),
    hedge_share=st.sampled_from([0.1, 1.0]),
    continue_streams=st.booleans(),
    after_refusal=st.booleans(),
    queue=st.sampled_from([1, 3, 1000]),
)
DEALT = st.lists(st.tuples(SECONDS, st.sampled_from(sorted(OUTCOMES))), max_size=12)
CALLS = st.lists(
    st.tuples(
        SECONDS,  # when it begins, after the one before
        st.sampled_from(["whole", "stream", "close", "drop"]),
        st.sampled_from([None, None, 0.5, 2.0, 7.2]),  # when it is cancelled
        st.sampled_from([5.0, 30.0, 400.0]),  # its deadline
        st.sampled_from(["", "some", "others"]),
    ),
    min_size=1,
    max_size=12,
)


async def called(world, kind, timeout, tenant):
    if kind == "whole":
        await world.ask(timeout=timeout, tenant=tenant)
        return
    run = world.stream(timeout=timeout, tenant=tenant)
    if kind == "stream":
        while await run.batch():
            pass
    else:
        await run.batch()
        if kind == "close":
            await run.close()


@settings(max_examples=150, deadline=None)
@given(st.data(), ROUTING, CALLS, st.integers(1, 3), st.sampled_from([MemoryLeases, Later]))
def test_when_all_calls_are_over_nothing_is_held_and_no_limit_was_passed(data, routing, calls, members, leases):
    names = "abc"[:members]
    limits = {name: data.draw(LIMITS, label=f"limits of {name}") for name in names}
    dealt = {name: data.draw(DEALT, label=f"outcomes of {name}") for name in names}

    async def main(virtual):
        places = {name: Counting(list(dealt[name]), virtual.clock) for name in names}
        rows = {name: {"limits": {k: v for k, v in _said(limits[name]) if v is not None}} for name in names}
        world = World(virtual, routing, entries=rows, leases=leases(clock=virtual.clock), **places)
        ends = []

        async def caller(kind, cancel, timeout, tenant):
            begun = virtual.clock()
            task = asyncio.create_task(called(world, kind, timeout, tenant))
            if cancel is not None:
                asyncio.get_running_loop().call_later(cancel, task.cancel)
            await asyncio.wait([task])
            assert virtual.clock() - begun <= timeout + 0.01
            error = None if task.cancelled() else task.exception()
            assert error is None or isinstance(error, PolyvoxError), repr(error)
            ends.append("cancelled" if task.cancelled() else "well" if error is None else error.kind)

        async with asyncio.TaskGroup() as group:
            for after, *call in calls:
                await asyncio.sleep(after)
                group.create_task(caller(*call))
        for end in set(ends):
            event(end)
        gc.collect()
        await asyncio.sleep(0)
        assert world.held() == {}
        assert len(ends) == len(calls)
        for name, place in places.items():
            assert limits[name].concurrency is None or place.most <= limits[name].concurrency
            most = limits[name].requests_per_minute
            assert most is None or place.most_in_a_minute() <= most
        for member in world.pools.members():
            assert 0 <= member.budget.left <= member.budget.capacity
        assert len(asyncio.all_tasks()) == 1

    virtual = Virtual(1)
    virtual.run(main)


def _said(limits):
    return [("concurrency", limits.concurrency), ("requests_per_minute", limits.requests_per_minute)]


# ---- the plan alone ---------------------------------------------------------------------------


class Steps(RuleBasedStateMachine):
    """Plans of one pool, step by step as an engine goes, and in any order that callers may bring about."""

    def __init__(self):
        super().__init__()
        self.now, self.plans, self.taken = 1000.0, [], {}
        machine = self

        class Clock:
            random_bytes = staticmethod(lambda size: bytes(size))

            def clock(self):
                return machine.now

            def now(self):
                return machine.now

        leases = MemoryLeases(clock=lambda: self.now)
        entries = {"a": {"limits": {"concurrency": 2}}, "b": {"limits": {"requests_per_minute": 4}}, "c": {}}
        self.world = World(
            Clock(),
            Routing(hedge_after=1, hedge_share=1),
            entries=entries,
            leases=leases,
            a=Place(),
            b=Place(),
            c=Place(),
        )
        self.pool = self.world.pools.named("*")

    def run(self, work):
        """A step that must not wait."""
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        work.close()
        raise AssertionError("it waits")

    @rule()
    def begins(self):
        from tests.pools.world import options

        plan = self.pool.plan(REQUEST, options())
        self.plans.append(plan)
        self._take(plan)

    def _take(self, plan):
        got = self.run(plan._free())
        if not isinstance(got, Full):
            self.taken.setdefault(plan, []).append(got)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def is_hedged(self, data):
        plan = data.draw(st.sampled_from(sorted(self.taken, key=self.plans.index)))
        got = self.run(plan.hedge())
        if got is not None:
            self.taken[plan].append(got)

    @precondition(lambda self: self.taken)
    @rule(
        data=st.data(), outcome=st.sampled_from(["ok", "cancelled", "hedged", "server", "rate_limit", "auth", "unsent"])
    )
    def ends(self, data, outcome):
        from polyvox import errors
        from polyvox.types import Attempt, Usage

        plan = data.draw(st.sampled_from(sorted(self.taken, key=self.plans.index)))
        taken = self.taken[plan].pop(data.draw(st.integers(0, len(self.taken[plan]) - 1)))
        error = {
            "server": errors.ServerError("no", sent="yes"),
            "rate_limit": errors.RateLimitError("no", sent="yes", retry_after=5),
            "auth": errors.AuthError("no", sent="yes"),
            "unsent": errors.ConnectionFailedError("no", sent="no"),
        }.get(outcome)
        sent = "no" if outcome == "unsent" else "yes"
        kind = outcome if error is None else error.kind
        attempt = Attempt(taken.member.name, 1.0, kind, None, None, sent, None, 0.0, None)
        plan.done(taken, attempt, Usage(input=1, output=1, total=2) if outcome == "ok" else None, error)
        if error is not None and not self.taken[plan] and plan.after(taken, error, 0.5, None) is not None:
            self._take(plan)
        if not self.taken[plan]:
            del self.taken[plan]

    @rule(seconds=st.sampled_from([0.1, 6.0, 61.0, 400.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(weight=st.floats(1, 5))
    def the_registry_changes(self, weight):
        self.world.registry.update("a", weight=weight)
        self.pool = self.world.pools.named("*")

    @invariant()
    def what_is_held_is_what_was_taken(self):
        held = [one for some in self.taken.values() for one in some]
        for member in self.world.pools.members():
            mine = sum(1 for one in held if one.member.name == member.name)
            assert member.standing.in_flight == mine == self.world.pools.shared.leases.used(member.name).in_flight
            assert 0 <= member.budget.left <= member.budget.capacity
        for some in self.taken.values():
            assert len({one.place for one in some}) == len(some)

    @invariant()
    def a_pool_is_never_left_alone_whole(self):
        self.pool.look()
        assert len(self.pool.out) <= len(self.pool.members) // 2


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
