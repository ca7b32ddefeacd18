"""One call's way among the deployments of a pool: who is asked, with room taken for it, who after a failure, and what
each attempt teaches. The engine makes the attempts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from polyvox.errors import PolyvoxError, RateLimitError
from polyvox.limits import NO_LIMITS, Full
from polyvox.limits.breaker import FAILURES
from polyvox.pools.values import Member, NoDeploymentError
from polyvox.routing.after import Next, after, cannot_help
from polyvox.routing.decision import Deciding, Decision
from polyvox.routing.needs import Wanted, lacking, tokens_of
from polyvox.types import Attempt, Message, Request, Response, Text, Usage

if TYPE_CHECKING:
    from polyvox.pools.pool import Pool
    from polyvox.routing.pick import Order

_GO_ON = (
    "Your last message broke off. Continue it exactly where it stopped: begin with the very next word, repeat nothing "
    "of it, and say nothing about the interruption."
)
_NONE = Full("pause", 0, None)
_TURN = Full("turn", 0, None)
_ALONE = "is left alone after failures"
_A_MOMENT = 0.01
_BESIDE = Next(0.0, False)


class Chosen:
    """A deployment that is asked now; see `engine.contract.Taken`. began is by the pool's clock; taken is what it took
    of the retry budget to ask it again, 0 where it is asked for the first time."""

    __slots__ = ("began", "deployment", "first", "lease", "member", "place", "request", "taken", "turn")

    def __init__(
        self, place: int, member: Member, request: Request, lease: Any, turn: int, began: float, taken: int
    ) -> None:
        self.place: int = place
        self.member: Member = member
        self.deployment: Any = member.deployment
        self.request: Request = request
        self.lease: Any = lease
        self.turn: int = turn
        self.began: float = began
        self.taken: int = taken
        self.first: float | None = None


_KNOWN = (Chosen, Full)


class Plan:
    """See `engine.contract.Plan`."""

    __slots__ = (
        "_alone", "_deadline", "_deciding", "_errors", "_full", "_here", "_order", "_partial", "_pool", "_queued",
        "_request", "_taken", "_time", "_tries", "_under_way", "_usual", "_wanted", "continues", "first_token",
        "hedge_after", "tenant",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        request: Request,
        wanted: Wanted,
        order: Order,
        deciding: Deciding,
        tenant: str,
        usual: Mapping[str, Any] = {},
    ) -> None:
        routing = pool.routing
        self._pool = pool
        self._request = request
        self._wanted = wanted
        self._order: Iterator[int] = order
        self._deciding = deciding
        self.tenant: str = tenant
        self._usual = usual
        self.first_token: float | None = routing.first_token
        self.hedge_after: float | None = routing.hedge_after if len(pool.members) > 1 else None
        self.continues: bool = routing.continue_streams
        self._full: list[int] = []  # places that had no room when their turn came
        self._alone: list[int] = []  # places that could serve it, and are left alone
        self._queued = False
        self._time: float | None = None  # seconds that the call had at first
        self._deadline = math.inf
        self._here: int | None = None  # who is tried again
        self._taken = 0  # what that took of its retry budget
        self._errors: dict[int, PolyvoxError] = {}
        self._tries: dict[int, int] = {}
        self._under_way: set[int] = set()
        self._partial: Response | None = None

    @property
    def decision(self) -> Decision:
        """How the call chose so far."""
        return self._deciding.decision

    def looked(self) -> Decision:
        """How the call would choose if it were made now, each candidate looked at and nobody asked."""
        first = False
        for place in self._order:
            why = self._why_not(place)
            if why is None:
                pause = self._pool.members[place].learned.full(self._pool.clock())
                why = None if pause is None else pause.why
            if why is not None:
                self._deciding.skip(place, why)
            elif not first:
                first = True
                self._deciding.ask(place)
        return self._deciding.decision

    # ---- who is asked -------------------------------------------------------------------------

    async def take(self, left: float | None) -> Chosen:
        """See `engine.contract.Plan`."""
        pool = self._pool
        if self._time is None:
            self._time = left
        got = await self._free()
        if not isinstance(got, Full):
            if left is not None and self._deadline == math.inf:
                self._deadline = got.began + left
            return got
        if got is _NONE:
            raise self._nobody()
        if left is not None and left <= 0:
            raise RateLimitError(got.why, retry_after=got.wait, sent="no", billed=False)
        self._queued, self._deadline = True, math.inf if left is None else pool.clock() + left
        try:
            found: Chosen = await pool.queue.wait(frozenset(self._full), self._free, self.tenant, self._deadline)
        finally:
            self._queued = False
        return found

    async def hedge(self) -> Chosen | None:
        """See `engine.contract.Plan`."""
        hedging = self._pool.hedging
        if not hedging.take():
            return None
        try:
            got = await self._free()
        except PolyvoxError:
            got = _NONE  # such as a server that counts limits and is away: the attempt under way is none the worse
        if isinstance(got, Full):
            hedging.give_back()
            return None
        return got

    async def _free(self) -> Chosen | Full:
        """The next one that is able and has room, its room taken; else when the first of them could have some."""
        pool, soonest = self._pool, _NONE
        if self._full or self._here is not None:
            got = await self._free_now()
            if not isinstance(got, Full):
                return got
            soonest = got
        for place in self._order:
            # Mostly nothing speaks against anybody.
            if self._tries or pool.choosy or pool.out:
                why = self._why_not(place)
                if why is not None:
                    self._deciding.skip(place, why)
                    if why is _ALONE:
                        self._alone.append(place)
                    continue
            room = self._room(place)
            got = room if isinstance(room, _KNOWN) else await room
            if not isinstance(got, Full):
                return got
            soonest = self._no_room(place, got, soonest)
        if soonest is _NONE and not self._tries:
            # Nobody else is able: one that may be ill is better than no answer.
            while self._alone:
                place = self._alone.pop(0)
                room = self._room(place)
                got = room if isinstance(room, _KNOWN) else await room
                if not isinstance(got, Full):
                    return got
                soonest = self._no_room(place, got, soonest)
        return soonest

    async def _free_now(self) -> Chosen | Full:
        """Who is tried again, or one of those that had no room, where there is some by now."""
        waiting, self._full = self._full, []
        if self._here is not None and self._here not in waiting:
            waiting.insert(0, self._here)  # another one is better than to wait for it
        pool, soonest = self._pool, _NONE
        if self._queued:
            pool.look()
        ill = [place for place in waiting if place in pool.out and place != self._here]
        for number, place in enumerate(waiting):
            if place in ill and len(ill) < len(waiting):
                self._full.append(place)  # it failed others meanwhile, and is not the only one to wait for
                continue
            room = self._room(place)
            got = room if isinstance(room, _KNOWN) else await room
            if not isinstance(got, Full):
                self._full += waiting[number + 1 :]
                return got
            soonest = self._no_room(place, got, soonest)
        return soonest

    def _no_room(self, place: int, full: Full, soonest: Full) -> Full:
        self._full.append(place)
        self._deciding.skip(place, full.why)
        return self._sooner(soonest, full)

    def _sooner(self, one: Full, other: Full) -> Full:
        """The one where there could be room first. Nobody knows that of one where a call must end first: it counts as
        later than what is in time, and sooner than what is not."""
        if one is _NONE:
            return other
        if one.wait is None or other.wait is None:
            known, unknown = (other, one) if one.wait is None else (one, other)
            return known if self._in_time(known.wait) else unknown
        return other if other.wait < one.wait else one

    def _in_time(self, wait: float | None) -> bool:
        return wait is not None and wait < math.inf and self._pool.clock() + wait <= self._deadline

    def _why_not(self, place: int) -> str | None:
        """Why a candidate is not asked, in words about it; None where it may be."""
        pool = self._pool
        member = pool.members[place]
        if place in self._under_way:
            return "is being asked already"
        # Whoever has no choice hears from the provider itself what cannot be done.
        why = self._wanted.why_not(member.abilities) if pool.choosy else None
        if why is None and place in pool.out:
            why = _ALONE
        if why is None and self._errors:
            failed, error = next(reversed(self._errors.items()))
            why = cannot_help(error, pool.members[failed].abilities, member.abilities, pool.routing.after_refusal)
        return why

    def _room(self, place: int) -> Chosen | Full | Coroutine[Any, Any, Chosen | Full]:
        """Room at one deployment, or when there could be some; to be awaited where leases are."""
        pool = self._pool
        if not self._queued and pool.is_awaited(place):
            return _TURN
        member = pool.members[place]
        now = pool.clock()
        learned = member.learned
        if now < learned.pause.until:
            pause = learned.full(now)
            if pause is not None:
                return pause
        limits, tokens = learned.limits, 0
        if limits.tokens_per_minute is not None:
            needs = self._wanted.needs
            tokens = needs.input_tokens + needs.output_tokens
        lease = pool.leases.take(member.name, limits, tokens)
        if pool.leases.waits:
            return self._leased(place, lease)
        return lease if type(lease) is Full else self._chosen(place, lease, now)

    async def _leased(self, place: int, lease: Awaitable[Any]) -> Chosen | Full:
        got = await lease
        return got if type(got) is Full else self._chosen(place, got, self._pool.clock())

    def _chosen(self, place: int, lease: Any, now: float) -> Chosen:
        member = self._pool.members[place]
        turn = member.breaker.begin(now)
        member.standing.begun()
        self._under_way.add(place)
        self._tries[place] = self._tries.get(place, 0) + 1
        self._deciding.ask(place)
        here, taken = self._here, self._taken
        self._here, self._taken = None, 0
        if here is not None and here != place:
            self._pool.members[here].budget.succeeded(taken)  # it was not asked again after all
            taken = 0
        return Chosen(place, member, self._asked(member), lease, turn, now, taken)

    def _asked(self, member: Member) -> Request:
        """The request as it is for one deployment: its model; where the call says nothing, what its entry says, else
        what is configured for all; and what has come of the answer."""
        request, model, usual = self._request, member.deployment.model, member.usual
        if model == request.model and not usual and not self._usual and self._partial is None:
            return request
        changed: dict[str, Any] = {"model": model, **lacking(request, usual, self._usual)}
        if self._partial is not None:
            said = Message("assistant", (Text(self._partial.message.text),))
            turns: tuple[Message, ...] = (said,)
            if not member.abilities.prefill:
                turns = (said, Message("user", (Text(_GO_ON),)))
            changed["messages"] = (*request.messages, *turns)
            limit = changed.get("max_tokens", request.max_tokens)
            if isinstance(limit, int):
                # What came counts in the limit that was set to the whole.
                changed["max_tokens"] = max(1, limit - tokens_of(self._partial.message.text))
        return replace(request, **changed)

    def _nobody(self) -> PolyvoxError:
        """What to say where nobody is left."""
        if self._errors:
            return next(reversed(self._errors.values()))
        skipped = self._deciding.decision.skipped
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        return NoDeploymentError(f"none of {self._pool.name} can serve this call: {why or 'it has no deployment'}")

    # ---- what comes after ---------------------------------------------------------------------

    def after(self, taken: Any, error: PolyvoxError, chance: float, left: float | None) -> Next | None:
        """See `engine.contract.Plan`."""
        pool, place = self._pool, taken.place
        self._errors.pop(place, None)
        self._errors[place] = error
        others = self._others(error, taken.member)
        tries, rule = sum(self._tries.values()), pool.rule()
        here = self._tries[place]
        # Words that were shown cannot begin anew, only another goes on with them; and who is left alone now is so here.
        if taken.first is not None or (others and not taken.member.breaker.allows(pool.clock())):
            here = rule.retries + 1
        then = after(error, here, tries, taken.member.budget, rule, others, chance, left)
        self._deciding.then(error.kind, then, place)
        if then is not None and then.here:
            self._here, self._taken = place, then.taken
        return then

    def failed_beside(self, taken: Any, error: PolyvoxError) -> None:
        """See `engine.contract.Plan`."""
        self._deciding.then(error.kind, _BESIDE, taken.place)

    def _others(self, error: PolyvoxError, failed: Member) -> bool:
        """Whether there is another one that may help, and may be asked now."""
        rest = [*self._full, *self._order]
        self._full, self._order = [], iter(rest)
        pool, now = self._pool, self._pool.clock()
        for place in rest:
            why = self._why_not(place) or pool.members[place].learned.full(now) or self._seems_full(place)
            if why is None:
                return True
            self._deciding.skip(place, why if isinstance(why, str) else why.why)
        return False

    def _seems_full(self, place: int) -> Full | None:
        """Whether there is no room at one, as far as this process can tell without taking any."""
        member = self._pool.members[place]
        limits = member.learned.limits
        if limits is NO_LIMITS:
            return None
        used = self._pool.leases.used(member.name)
        if limits.concurrency is not None and used.in_flight >= limits.concurrency:
            return Full("concurrency", limits.concurrency, None)
        most = limits.requests_per_minute
        return None if most is None or used.requests < most else Full("requests", most, None)

    def resume(self, partial: Response) -> None:
        """See `engine.contract.Plan`."""
        self._partial = partial
        # Whoever goes on must read what came, too; the words at its end are for those who take no prefill.
        turns = (Message("assistant", (Text(partial.message.text),)), Message("user", (Text(_GO_ON),)))
        configured = lacking(self._request, self._usual)
        asked = replace(self._request, messages=(*self._request.messages, *turns), **configured)
        self._wanted = Wanted(asked, self._wanted.now, local_only=self._wanted.local_only)

    # ---- what attempts teach ------------------------------------------------------------------

    def heard(self, taken: Any, seconds: float) -> None:
        """See `engine.contract.Plan`."""
        taken.first = seconds
        taken.member.standing.first(seconds, self._pool.clock())

    def done(
        self, taken: Any, attempt: Attempt, usage: Usage | None, error: PolyvoxError | None, answer: Any = None
    ) -> None:
        """See `engine.contract.Plan`."""
        member, now = taken.member, self._pool.clock()
        outcome = attempt.outcome
        self._under_way.discard(taken.place)
        used = usage.total if usage is not None else None
        if error is not None and error.kind == "rate_limit" and attempt.sent != "no":
            member.learned.refused(
                self._pool.leases.used(member.name), began=taken.began, now=now, wish=error.retry_after
            )
        if attempt.sent == "no":
            taken.lease.refund()
        else:
            taken.lease.settle(used if used is not None else 0 if usage is None else None)
        well = outcome == "ok"
        if outcome == "timeout" and (taken.first is not None or self._had_little_time(attempt, now)):
            outcome = "cancelled"  # it was answering when the time of the call was over, or had no chance to
        # Whoever was refused on this side, or went away, says nothing of it.
        refused_here = attempt.sent == "no" and outcome not in FAILURES
        member.standing.ended(error is None or outcome == "cancelled" or refused_here)
        member.breaker.ended(taken.turn, None if well else outcome, now)
        if not well:
            return
        member.learned.well(now)
        budget = member.budget
        if budget.left < budget.capacity:
            budget.succeeded(taken.taken)
        tokens = (usage.output or 0) if usage is not None else 0
        if taken.first is None:
            member.standing.whole(tokens, attempt.seconds, now)
        else:
            member.standing.wrote(tokens, attempt.seconds - taken.first, now)
        if answer is not None and answer.id:
            self._pool.minted.add(answer.id, member.name)

    def _had_little_time(self, attempt: Attempt, now: float) -> bool:
        """Whether an attempt ended with the time of its call, most of which had gone by before it began."""
        return self._time is not None and now >= self._deadline - _A_MOMENT and attempt.seconds < self._time / 2
