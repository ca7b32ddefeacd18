"""How calls find their way among several deployments: what a user may set, and one deployment with all that is known of
it just now. Nothing is decided here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict, force_setattr

from polyvox.dialects.rate_limits import spent
from polyvox.errors import InputError, InvalidRequestError
from polyvox.limits import Breaker, Learned, Pause
from polyvox.routing import RetryBudget
from polyvox.routing.needs import NOTHING_KNOWN, Abilities
from polyvox.routing.pick import STRATEGIES, Candidate, Rates, Standing

if TYPE_CHECKING:
    from polyvox.engine import AnyDeployment
    from polyvox.registry import Entry


class NoDeploymentError(InvalidRequestError):
    """None of the deployments that a call names can serve it; its decision says why of each."""

    kind = "no_deployment"
    advice = "see why each was left out: polyvox explain --route"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})


class Routing(Struct, frozen=True, kw_only=True):
    """How a call chooses among deployments, and when it moves on.

    Attributes:
        strategy: "weighted", "least_busy", "fastest" or "cheapest", among those of one priority.
        first_token: seconds that a streamed attempt may take until something of its answer comes; then another
            deployment is asked. None: as long as the call has.
        hedge_after: seconds without anything of an answer, after which a second deployment is asked at the same time;
            both are billed. None: never.
        hedge_share: the share of calls for which that may be done.
        continue_streams: a stream that broke off in the middle of its text is gone on with by another deployment, which
            the answer's losses say. Otherwise that is an error with the partial answer.
        after_refusal: another deployment is asked where one refuses what the prompt says.
        queue: how many calls may wait for room at a time.

    >>> Routing(strategy="fastest", first_token=5).first_token
    5.0
    """

    strategy: str = "weighted"
    first_token: float | None = None
    hedge_after: float | None = None
    hedge_share: float = 0.1
    continue_streams: bool = False
    after_refusal: bool = False
    queue: int = 1000

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not isinstance(self.strategy, str) or self.strategy not in STRATEGIES:
            raise InputError(f"there is no strategy {self.strategy!r}", hint=f"choose one of {', '.join(STRATEGIES)}")
        for name in ("first_token", "hedge_after"):
            value = getattr(self, name)
            if value is not None:
                if not _is_number(value) or value <= 0:
                    raise InputError(f"{name} is a number of seconds above 0, or None, not {value!r}")
                force_setattr(self, name, float(value))
        if not _is_number(self.hedge_share) or not 0 <= self.hedge_share <= 1:
            raise InputError(f"hedge_share is from 0 to 1, not {self.hedge_share!r}")
        for name in ("continue_streams", "after_refusal"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is True or False, not {getattr(self, name)!r}")
        if type(self.queue) is not int or self.queue < 0:
            raise InputError(f"queue is a whole number from 0, not {self.queue!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Member:
    """A deployment by the name of its entry, with how it does just now. Shared by all pools that it is in, so that each
    knows what came of the others' calls."""

    __slots__ = (
        "abilities", "breaker", "budget", "deployment", "entry", "learned", "name", "rates", "standing", "usual",
    )  # fmt: skip

    def __init__(
        self,
        entry: Entry,
        deployment: AnyDeployment,
        *,
        abilities: Abilities = NOTHING_KNOWN,
        rates: Rates | None = None,
        before: Member | None = None,
        budget: int = 500,
        pause: Pause | None = None,
    ) -> None:
        self.entry: Entry = entry
        self.name: str = entry.name
        self.usual: Mapping[str, Any] = entry.usual
        self.deployment: AnyDeployment = deployment
        self.abilities: Abilities = abilities
        self.rates: Rates | None = rates
        if before is None:
            self.standing: Standing = Standing()
            self.breaker: Breaker = Breaker()
            self.budget: RetryBudget = RetryBudget(budget)
            self.learned: Learned = Learned(entry.limits, pause)
        else:
            # The same one under other settings: what was learned of it holds.
            self.standing, self.breaker, self.budget = before.standing, before.breaker, before.budget
            self.learned = before.learned
            self.learned.configure(entry.limits)

    def listen(self, clock: Callable[[], float]) -> None:
        """Learn from the heads of answers what is left of its limits."""
        learned = self.learned  # and not itself: a ring of objects would be let go of late

        def heard(headers: Mapping[str, str]) -> None:
            found = spent(headers)
            if found:
                learned.heard(found, clock())

        if hasattr(self.deployment, "on_head"):
            self.deployment.on_head = heard

    def __repr__(self) -> str:
        return f"<Member {self.name}>"

    def describe(self, now: float) -> dict[str, Any]:
        """How it does, as plain JSON values; now is by the clock of its pools."""
        standing, limits, pause = self.standing, self.learned.limits, self.learned.full(now)
        return {
            "name": self.name,
            "model": self.entry.model,
            "tier": self.entry.tier,
            "in_flight": standing.in_flight,
            "calls": standing.calls,
            "errors": standing.errors,
            "first_token": standing.first_token,
            "tokens_per_second": standing.tokens_per_second,
            "breaker": self.breaker.state(now),
            "retry_budget": self.budget.left,
            "limits": {name: value for name, value in asdict(limits).items() if value is not None},
            "pause": None if pause is None else pause.wait,
        }

    @property
    def timeout(self) -> float | None:
        """Seconds that a whole call to it may take: its entry's, else what its deployment says."""
        return self.deployment.timeout if self.entry.timeout is None else self.entry.timeout

    def candidate(self, priority: int | None = None) -> Candidate:
        """As it is chosen among others."""
        entry = self.entry
        return Candidate(
            self.name,
            entry.weight,
            entry.priority if priority is None else priority,
            self.standing,
            self.rates,
            self.abilities,
        )


class Hedging:
    """How many calls may still be asked twice: a share of them, and no more than a few at a time."""

    __slots__ = ("_left", "_most", "share")

    def __init__(self, share: float, most: float = 10.0) -> None:
        self.share: float = share
        self._left = min(1.0, share * most)
        self._most = most

    def earned(self) -> None:
        """A call began."""
        self._left = min(self._most, self._left + self.share)

    def take(self) -> bool:
        """Whether one more may be asked twice."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """One was taken, and nobody was asked twice."""
        self._left = min(self._most, self._left + 1.0)


def named(members: Iterable[Member]) -> str:
    """The names of some, for an error."""
    return ", ".join(member.name for member in members)
