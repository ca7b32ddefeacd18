"""Deployments that may answer the same calls, chosen anew for each: where a call's needs, their order and their room
meet. It makes plans; it sends nothing."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from polyvox.limits import FairQueue, allowed
from polyvox.pools.plan import Plan
from polyvox.pools.values import Hedging, Member, Routing
from polyvox.routing import RetryRule
from polyvox.routing.affinity import FREE, Minted, Pins, key_of, pins_of
from polyvox.routing.decision import Considered, Deciding
from polyvox.routing.needs import Wanted, filled
from polyvox.routing.pick import Candidates, Order, strategy_of
from polyvox.routing.tiers import Scored
from polyvox.types import Loss, Request

if TYPE_CHECKING:
    from polyvox.engine import AnyDeployment, CallOptions


_NOBODY: frozenset[int] = frozenset()


class Shared:
    """What all pools of a client have in common: leases, a clock and chance, the rule of retries, and who minted which
    id."""

    def __init__(
        self, leases: Any, clock: Callable[[], float], chance: Callable[[], float], rule: Callable[[], RetryRule]
    ) -> None:
        self.leases = leases
        self.clock = clock
        self.chance = chance
        self.rule = rule
        self.minted: Minted = Minted()


class Queues:
    """Those who wait for room at deployments of one pool, in one event loop. Whoever waits for the same deployments
    waits in one queue, so that nobody waits behind a call that others' room is of no use to. most is how many may wait
    in all."""

    def __init__(self, most: int, leases: Any, clock: Callable[[], float]) -> None:
        self._most = most
        self._leases = leases
        self._clock = clock
        self._queues: dict[frozenset[int], FairQueue] = {}

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    def awaits(self, place: int) -> bool:
        """Whether anybody waits for room at this place."""
        return any(place in places for places in self._queues)

    async def wait(self, places: frozenset[int], take: Callable[[], Any], tenant: str, deadline: float) -> Any:
        """What take gives once there is room at one of these places; see `FairQueue.wait`."""
        queue, waiting = self._queues.get(places), len(self)
        if waiting >= self._most:
            full = queue or FairQueue(clock=self._clock)
            raise full.refusal(f"{waiting} calls wait for room already, which is as many as may")
        if queue is None:
            queue = self._queues[places] = FairQueue(self._most, clock=self._clock)
            self._leases.watch(queue.wake_soon)
        try:
            return await queue.wait(take, tenant=tenant, deadline=deadline)
        finally:
            if not len(queue):
                # Leases outlive pools: nothing of a queue is left there when nobody is in it.
                self._leases.unwatch(queue.wake_soon)
                if self._queues.get(places) is queue:
                    del self._queues[places]


class Pool:
    """Stands where a deployment does; see `engine.contract.Route`. name says what it is of, for people.

    kinds has one deployment for each protocol. priorities overrides those of the entries, in the order of the members.
    unusable are entries that cannot be asked at all, with what stands in their way.
    """

    operation = "chat"
    money = None
    provider = ""
    speaks = ""

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        shared: Shared,
        routing: Routing,
        *,
        tier: str | None = None,
        priorities: Sequence[int] | None = None,
        unusable: Sequence[Considered] = (),
    ) -> None:
        self.name = name
        self.members: tuple[Member, ...] = tuple(members)
        self.shared = shared
        self.routing = routing
        self.tier = tier
        self.timeout: float | None = longest([member.timeout for member in self.members])
        self.unusable: tuple[Considered, ...] = tuple(unusable)
        self.model: str = self.members[0].deployment.model if self.members else name
        self.candidates: Candidates = Candidates(
            [
                member.candidate(None if priorities is None else priorities[place])
                for place, member in enumerate(self.members)
            ]
        )
        self.hedging: Hedging = Hedging(routing.hedge_share)
        self.leases: Any = shared.leases
        self.clock: Callable[[], float] = shared.clock
        self.rule: Callable[[], RetryRule] = shared.rule
        self.minted: Minted = shared.minted
        self.notes: tuple[Loss, ...] = ()
        self._strategy = strategy_of(routing.strategy)
        self._breakers = [member.breaker for member in self.members]
        # One for each protocol and its habits: what they must do is the same for all of these.
        kinds = {_kind(member.deployment): member.deployment for member in self.members}
        self.kinds: tuple[AnyDeployment, ...] = tuple(kinds.values())
        self.choosy: bool = len(self.members) > 1 or tier == "local"
        # Who may have minted what is named so: by the name of the entry, and of the model where several keys serve it.
        self._minters: dict[str, set[int]] = {}
        for place, member in enumerate(self.members):
            for minter in (member.name, getattr(getattr(member.deployment, "endpoint", None), "origin", None)):
                if minter is not None:
                    self._minters.setdefault(minter, set()).add(place)
        limits = [member.entry.max_tokens for member in self.members if member.entry.max_tokens is not None]
        self._longest: Mapping[str, Any] = {"max_tokens": max(limits)} if limits else {}
        self._queues: dict[asyncio.AbstractEventLoop, Queues] = {}
        self.out: frozenset[int] = _NOBODY
        """The places of those who are left alone just now."""

    def __repr__(self) -> str:
        return f"<Pool {self.name}: {len(self.members)} deployments>"

    # ---- as a route ---------------------------------------------------------------------------

    def plan(self, request: Request, options: CallOptions, scored: Scored | None = None) -> Plan:
        """See `engine.contract.Route`; scored is how the call's tier was found, where it was."""
        shared = self.shared
        self.look()
        likely = filled(request, options.usual) if options.usual else request
        wanted = Wanted(likely, shared.clock(), local_only=self.tier == "local")
        if len(self.members) > 1:
            if self.routing.hedge_after is not None:
                self.hedging.earned()
            pins, key = pins_of(request, shared.minted), key_of(request)
            first, only = self._bound(pins)
        else:  # whoever has no choice is bound anyway
            pins, key, first, only = FREE, None, (), None
        order = Order(self.candidates, self._strategy, wanted, shared.chance(), first=first, only=only, key=key)
        deciding = Deciding(order, named=self.name, tier=self.tier, scored=scored, pins=pins, unusable=self.unusable)
        return Plan(self, request, wanted, order, deciding, options.who.tenant or "", options.usual)

    @property
    def usual(self) -> tuple[Mapping[str, Any], ...]:
        """See `engine.contract.Route`."""
        return tuple([member.entry.usual for member in self.members])

    @property
    def asked(self) -> tuple[AnyDeployment, ...]:
        """Everybody who may be asked."""
        return tuple([member.deployment for member in self.members])

    def must_stream(self, request: Request) -> bool:
        """Whether any of them gives a whole answer to this request only as a stream: then it is streamed by all."""
        if self._longest:
            request = filled(request, self._longest)
        kinds = self.kinds
        return kinds[0].must_stream(request) if len(kinds) == 1 else any(one.must_stream(request) for one in kinds)

    def _bound(self, pins: Pins) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """The places that go first, and the only ones that may be asked."""
        if pins is FREE:
            return (), None
        minters = self._minters
        first = tuple([place for name in pins.rather for place in sorted(minters.get(name, ()))])
        # What nobody here minted is nobody's here: its dialect says what is lost of it.
        only = [minters[name] for name in pins.only if name in minters]
        return first, tuple(sorted(set.intersection(*only))) if only else None

    # ---- who is left alone --------------------------------------------------------------------

    def look(self) -> None:
        """Find out who is left alone after failures, never all of them."""
        breakers = self._breakers
        for breaker in breakers:
            if breaker.until is not None:
                fit = allowed(breakers, self.clock())
                self.out = frozenset(range(len(breakers))).difference(fit)
                return
        self.out = _NOBODY

    def is_awaited(self, place: int) -> bool:
        """Whether calls of this event loop wait for room at a place: it is theirs first."""
        return bool(self._queues) and self.queue.awaits(place)

    @property
    def queue(self) -> Queues:
        """Those who wait for room in this event loop."""
        loop = asyncio.get_running_loop()
        found = self._queues.get(loop)
        if found is None:
            for other in [loop for loop in list(self._queues) if loop.is_closed()]:
                self._queues.pop(other, None)
            found = self._queues[loop] = Queues(self.routing.queue, self.leases, self.clock)
        return found

    def noted(self, notes: tuple[Loss, ...]) -> Self:
        """The pool for one call, with notes on what was done to its request before."""
        of = copy.copy(self)
        of.notes = notes
        return of


def _kind(deployment: Any) -> Any:
    endpoint = getattr(deployment, "endpoint", None)
    return deployment if endpoint is None else (type(deployment), deployment.speaks, frozenset(endpoint.quirks))


def longest(timeouts: Sequence[float | None]) -> float | None:
    """The longest of some limits; None where one has none."""
    known = [timeout for timeout in timeouts if timeout is not None]
    return max(known) if known and len(known) == len(timeouts) else None
