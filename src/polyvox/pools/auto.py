"""A tier that is chosen for each request, by what the request says: its length, its subject, what goes with it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from polyvox.errors import PolyvoxError
from polyvox.pools.plan import Plan
from polyvox.pools.pool import Pool, longest
from polyvox.pools.values import Member, NoDeploymentError
from polyvox.routing.needs import filled
from polyvox.routing.tiers import TIERS, Scored, score
from polyvox.types import Loss, Request

if TYPE_CHECKING:
    from polyvox.engine import AnyDeployment, CallOptions

log: logging.Logger = logging.getLogger("polyvox.pools")

_CHOSEN = tuple([tier for tier in TIERS if tier != "local"])


class AutoRoute:
    """Makes plans of the pool whose tier fits the request; of the next better one where that tier has no deployment,
    then of the next lesser. "local" is never chosen."""

    operation = "chat"
    money = None
    provider = ""
    speaks = ""
    name = "tier auto"
    model = "auto"

    def __init__(self, pool: Callable[[str], Pool | None]) -> None:
        self._pool = pool
        self.notes: tuple[Loss, ...] = ()

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Those it may choose."""
        return tuple([pool for tier in _CHOSEN if (pool := self._usable(tier)) is not None])

    @property
    def members(self) -> tuple[Member, ...]:
        """Everybody who may be asked."""
        return tuple([member for pool in self.pools for member in pool.members])

    @property
    def timeout(self) -> float | None:
        """The longest of them."""
        return longest([pool.timeout for pool in self.pools])

    @property
    def usual(self) -> tuple[Mapping[str, Any], ...]:
        """See `Pool.usual`."""
        return tuple([usual for pool in self.pools for usual in pool.usual])

    @property
    def asked(self) -> tuple[AnyDeployment, ...]:
        """The same, as deployments."""
        return tuple([member.deployment for member in self.members])

    @property
    def kinds(self) -> tuple[AnyDeployment, ...]:
        """One of them for each protocol."""
        return tuple([kind for pool in self.pools for kind in pool.kinds])

    def noted(self, notes: tuple[Loss, ...]) -> AutoRoute:
        """See `Pool.noted`."""
        of = copy.copy(self)
        of.notes = notes
        return of

    def must_stream(self, request: Request) -> bool:
        """See `Pool.must_stream`."""
        return any(pool.must_stream(request) for pool in self.pools)

    def plan(self, request: Request, options: CallOptions) -> Plan:
        """See `engine.contract.Route`."""
        scored = score(filled(request, options.usual) if options.usual else request)
        pool = self.chosen(scored)
        log.debug("%s: %s, %d points (%s)", pool.name, scored.tier, scored.points, ", ".join(scored.reasons))
        return pool.plan(request, options, scored)

    def chosen(self, scored: Scored) -> Pool:
        """The pool for a tier that was found. Where nobody of any tier can be asked, it raises why not of the first."""
        place = _CHOSEN.index(scored.tier)
        problems: list[PolyvoxError] = []
        for tier in (*_CHOSEN[place:], *reversed(_CHOSEN[:place])):
            pool = self._usable(tier, problems)
            if pool is not None:
                return pool
        if problems:
            raise problems[0]
        raise NoDeploymentError(
            "no deployment has a tier that could be chosen",
            hint=f"give some a tier: {', '.join(_CHOSEN)}; the tier local is never chosen, but can be named",
        )

    def _usable(self, tier: str, problems: list[PolyvoxError] | None = None) -> Pool | None:
        """The pool of a tier; None for one without deployments, or of whose deployments none can be asked."""
        try:
            return self._pool(tier)
        except PolyvoxError as error:  # such as a missing key: another tier may have one
            if problems is not None:
                problems.append(error)
            return None
