"""The deployments of a registry, ready to be asked, and the pools that a name, a pattern, a tier or a list of names
means. Changes of the registry act on the next call; what is known of how deployments do outlives them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from polyvox.errors import InputError, PolyvoxError
from polyvox.limits import MemoryLeases, Pause
from polyvox.pools.auto import AutoRoute
from polyvox.pools.plan import Plan
from polyvox.pools.pool import Pool, Shared
from polyvox.pools.values import Member, NoDeploymentError, Routing
from polyvox.registry import Entry, Registry
from polyvox.registry.values import nearly, tier_word
from polyvox.routing import RetryRule
from polyvox.routing.decision import Considered, Decision
from polyvox.routing.needs import Abilities
from polyvox.routing.patterns import is_pattern, matches
from polyvox.routing.pick import Rates
from polyvox.stores.tally import watch_forks

if TYPE_CHECKING:
    from polyvox.engine import AnyDeployment

__all__ = ["AutoRoute", "Made", "Member", "NoDeploymentError", "Plan", "Pool", "Pools", "Routing"]

AUTO = "auto"
_MANY = 1000
"""Pools that are kept: names and lists of names may come from anybody."""


class Made(NamedTuple):
    """A deployment that was made for an entry, what it is able to, and what it costs to compare by."""

    deployment: AnyDeployment
    abilities: Abilities
    rates: Rates | None


class Pools:
    """The pools of one client, for any thread.

    Args:
        registry: which deployments there are.
        make: makes the deployment of an entry; it raises what stands in the way, such as a missing key.
        routing: how calls choose.
        rule: the rule of retries that holds now.
        leases: where limits are counted, by default in this process.
        clock, chance: monotonic seconds, and random numbers in [0, 1).
    """

    def __init__(
        self,
        registry: Registry,
        make: Callable[[Entry], Made],
        routing: Routing | None = None,
        *,
        rule: Callable[[], RetryRule] = RetryRule,
        leases: Any = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.registry = registry
        self.routing: Routing = routing or Routing()
        self._make = make
        self.shared: Shared = Shared(leases if leases is not None else MemoryLeases(clock=clock), clock, chance, rule)
        self._lock = threading.RLock()
        self._members: dict[str, Member] = {}
        self._before: dict[str, Member] = {}  # as they were; what was learned of them holds for who comes after them
        self._pauses: dict[tuple[Any, ...], Pause] = {}  # of the members, by what their calls count in
        self._unlisted: dict[str, Entry] = {}  # models that were named in a list, and are in no registry
        self._pools: dict[tuple[str, ...], Pool | AutoRoute] = {}
        self._version: object = None
        watch_forks(self)

    def members(self) -> tuple[Member, ...]:
        """Every deployment that was asked for so far, and how it does."""
        with self._lock:
            self._follow()
            return tuple({**self._before, **self._members}.values())

    def forget(self, routing: Routing | None = None) -> None:
        """What deployments are made from has changed: make them anew. How they do is kept. routing is how calls choose
        from now on, None where that is as it was."""
        with self._lock:
            self._version = None
            self.routing = routing or self.routing

    def after_fork(self) -> None:
        """In a child: what is in flight is the parent's."""
        self._lock = threading.RLock()
        self._members, self._before, self._pauses, self._pools, self._version = {}, {}, {}, {}, None

    # ---- which pool ---------------------------------------------------------------------------

    def named(self, name: str) -> Pool | AutoRoute | None:
        """The pool of a name, an alias or a pattern; None where no entry goes by it."""
        with self._lock:
            self._follow()
            found = self._pools.get(("name", name))
            if found is None:
                entries = self._meant(name)
                if not entries:
                    return None
                found = self._pools["name", name] = self._pool(name, entries)
            return found

    def _meant(self, name: str) -> tuple[Entry, ...]:
        entry = self.registry.get_by_name(name)
        if entry is not None:
            return (entry,)
        active = self.registry.list_active()
        same = tuple([entry for entry in active if entry.model == name])
        if same or not is_pattern(name):
            return same
        return tuple([entry for entry in active if matches(name, (*entry.names, entry.model))])

    def of_tier(self, tier: str) -> Pool | AutoRoute:
        """The pool of a tier; "auto" chooses the tier for each request. NoDeploymentError for a tier without any."""
        with self._lock:
            self._follow()
            word = tier_word(tier)
            found = self._pools.get(("tier", word))
            if found is None and word == AUTO:
                found = self._pools["tier", word] = AutoRoute(self._tier_or_none)
            return found or self._tier_or_none(word) or self._no_tier(word)

    def _no_tier(self, tier: str) -> NoReturn:
        known = sorted({entry.tier for entry in self.registry.list_active() if entry.tier})
        raise NoDeploymentError(
            f"no deployment is of the tier {tier!r}",
            hint=f"{nearly(tier, known)}tiers that have any: {', '.join(known)}" if known else
            "name some in [deployments.NAME] of the configuration, or in a registry; "
            "registry=DictRegistry.from_env() has some at each provider that has a key",
        )  # fmt: skip

    def _tier_or_none(self, tier: str) -> Pool | None:
        with self._lock:
            found = self._pools.get(("tier", tier))
            if isinstance(found, Pool):
                return found
            if self.registry.get_by_tier(tier) is None:
                return None
            entries = [entry for entry in self.registry.list_active() if entry.tier == tier]
            pool = self._pools["tier", tier] = self._pool(f"tier {tier}", entries, tier=tier)
            return pool

    def default(self) -> Pool | AutoRoute | None:
        """The pool of the entry that answers where nobody says; None where there is none."""
        entry = self.registry.get_default()
        return None if entry is None else self.named(entry.name)

    def listed(self, names: Sequence[str], meant: Callable[[str], str] = str) -> Pool:
        """The pool of several names, each asked when those before it fail. meant is what a name stands for, where no
        entry goes by it."""
        with self._lock:
            self._follow()
            key = ("list", *names)
            found = self._pools.get(key)
            if not isinstance(found, Pool):
                entries: dict[str, tuple[Entry, int]] = {}
                for place, name in enumerate(names):
                    for entry in self._meant(name) or self._meant(meant(name)) or (self._of_none(meant(name)),):
                        entries.setdefault(entry.name, (entry, place))
                if not entries:
                    raise InputError("a list of models is empty", hint='name at least one, as ["PROVIDER/MODEL"]')
                rows = list(entries.values())
                found = self._pool(", ".join(names), [row[0] for row in rows], priorities=[row[1] for row in rows])
                self._pools[key] = found
            return found

    def _of_none(self, model: str) -> Entry:
        """An entry for a model that is in no registry."""
        return self._unlisted.setdefault(model, Entry(model, model))

    # ---- following the registry ---------------------------------------------------------------

    def _follow(self) -> None:
        version = self.registry.version
        if version is self._version:
            if len(self._pools) > _MANY:
                self._pools = {}
            return
        made_anew = self._version is None
        held = self._unlisted | {entry.name: entry for entry in self.registry.list_active()}
        self._pools, self._version = {}, version
        self._before = {name: member for name, member in {**self._before, **self._members}.items() if name in held}
        self._members = {
            name: member for name, member in self._members.items() if not made_anew and held.get(name) == member.entry
        }
        self._pauses = {_quota(one.entry): one.learned.pause for one in reversed(self._members.values())}

    def _pool(
        self,
        name: str,
        entries: Sequence[Entry],
        *,
        tier: str | None = None,
        priorities: Sequence[int] | None = None,
    ) -> Pool:
        members: list[Member] = []
        problem: PolyvoxError | None = None
        kept: list[int] = []
        unusable: list[Considered] = []
        for place, entry in enumerate(entries):
            try:
                member = self._member(entry)
            except PolyvoxError as error:  # such as a missing key: the others may be asked
                problem = problem or error
                rank = entry.priority if priorities is None else priorities[place]
                unusable.append(Considered(entry.name, rank, entry.weight, skipped=error.message))
                continue
            members.append(member)
            kept.append(place)
        if not members and problem is not None:
            problem.decision = Decision(name, self.routing.strategy, tier, unusable=tuple(unusable))
            raise problem
        ranks = None if priorities is None else [priorities[place] for place in kept]
        return Pool(name, members, self.shared, self.routing, tier=tier, priorities=ranks, unusable=unusable)

    def _member(self, entry: Entry) -> Member:
        found = self._members.get(entry.name)
        if found is None or found.entry != entry:
            made, before = self._make(entry), self._before.get(entry.name)
            same = before is not None and _place(before.entry) == _place(entry)
            # Who has the same model with the same key shares a pause: their calls count in one quota. Of other models
            # of a key nobody knows that: at many providers each has its own.
            quota = _quota(entry)
            found = self._members[entry.name] = Member(
                entry,
                made.deployment,
                abilities=made.abilities,
                rates=made.rates,
                before=before if same else None,
                budget=self.shared.rule().budget,
                pause=self._pauses.get(quota),
            )
            self._pauses.setdefault(quota, found.learned.pause)
            found.listen(self.shared.clock)
        return found


def _quota(entry: Entry) -> tuple[Any, ...]:
    """What calls count in together: model and address, and where the key is from."""
    return (*_place(entry), entry.api_key, entry.api_key_env, entry.api_key_of)


def _place(entry: Entry) -> tuple[str, str | None]:
    """Who answers: what was learned holds for nobody else."""
    return entry.model, entry.base_url
