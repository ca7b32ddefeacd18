"""Which deployments a client chooses among, and how each is made: from what a caller says, a registry and the
configuration to pools. It decides nothing about a call."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import replace

from polyvox import profiles
from polyvox.catalog import follow
from polyvox.client.check import count, shown
from polyvox.config.fields import ROUTING_FIELDS
from polyvox.engine import Deployment
from polyvox.errors import InputError, MissingKeyError, NotFoundError
from polyvox.keys import redact
from polyvox.routing import RetryRule
from polyvox.routing.needs import Abilities, abilities_of
from polyvox.routing.patterns import is_pattern
from polyvox.routing.pick import rates_of

if TYPE_CHECKING:
    from polyvox.client.deployments import Deployments
    from polyvox.client.operations import AnsweredT, AskedT, Kind
    from polyvox.config import Settings
    from polyvox.engine import AnyDeployment, CallOptions, Engine, OperationDeployment
    from polyvox.models import Model
    from polyvox.pools import AutoRoute, Made, Pool, Pools, Routing
    from polyvox.pools import Made as MadeOf
    from polyvox.registry import Entry, Registry
    from polyvox.routing.decision import Decision
    from polyvox.types import Request

RegistryChoice: TypeAlias = "Registry | Mapping[str, Any] | Iterable[Entry] | str | os.PathLike[str] | None"
RoutingChoice: TypeAlias = "Routing | Mapping[str, Any] | str | None"
LimitsChoice: TypeAlias = "str | object | None"


def registry_of(choice: RegistryChoice, settings: Settings | None) -> Registry:
    """The registry that a client was given, before those of the configuration: a registry, entries, or a file."""
    from polyvox.registry import DictRegistry, FileRegistry, Registries, SettingsRegistry
    from polyvox.registry import Registry as AnyRegistry

    configured = SettingsRegistry(settings)
    if choice is None:
        return configured
    if isinstance(choice, AnyRegistry):
        return Registries(choice, configured, settings=settings)
    if isinstance(choice, str | os.PathLike):
        return Registries(FileRegistry(choice), configured, settings=settings)
    if isinstance(choice, Mapping | Iterable):
        return Registries(DictRegistry(choice), configured, settings=settings)
    raise InputError(f"registry must be a registry, entries or the path of a file, not {shown(choice)}")


def routing_of(choice: RoutingChoice, configured: Mapping[str, Any]) -> Routing:
    """How calls choose: as the client says, where it says nothing as is configured. A word is a strategy."""
    from polyvox.pools import Routing as Made

    if isinstance(choice, Made):
        return choice
    if isinstance(choice, str):
        choice = {"strategy": choice}
    if choice is not None and not isinstance(choice, Mapping):
        raise InputError(f"routing must be Routing, a strategy's name or a table, not {shown(choice)}")
    said = {**configured, **(choice or {})}
    unknown = sorted(set(said).difference(Made.__struct_fields__))
    if unknown:
        raise InputError(f"routing has no {unknown[0]!r}", hint=f"it has {', '.join(Made.__struct_fields__)}")
    return Made(**said)


def rule_of(choice: int | RetryRule) -> RetryRule:
    """How often to try again: a rule, or a number of further tries. InputError for anything else."""
    return choice if isinstance(choice, RetryRule) else RetryRule(count("retries", choice, 0))


def limits_of(choice: LimitsChoice) -> LimitsChoice:
    """What was said of where limits are counted: a place, leases that somebody made, or None. InputError for anything
    else."""
    if choice is None or callable(getattr(choice, "take", None)):
        return choice
    if isinstance(choice, str):
        try:
            return str(ROUTING_FIELDS["limits"].parse(choice))
        except ValueError as error:
            raise InputError(f"limits {redact(str(error))}", hint='for example "redis://HOST:6379/0"') from None
    raise InputError(f"limits must be the URL of a Redis server or leases, not {shown(choice)}")


class Pooling:
    """The pools of one client; made with the first call that needs any."""

    def __init__(
        self,
        deployments: Deployments,
        engine: Engine,
        *,
        registry: RegistryChoice = None,
        routing: RoutingChoice = None,
        limits: LimitsChoice = None,
    ) -> None:
        self._deployments = deployments
        self._engine = engine
        self._routing = routing
        if routing is not None:
            routing_of(routing, {})  # what makes no sense is said at once
        self._limits = limits_of(limits)
        self._leases: Any = None  # those that were made here
        self._given = registry
        self._registry: Registry | None = None
        self._made_for: Any = None
        self._own: dict[str, Deployments] = {}
        self._operating: dict[tuple[Any, str, bool], tuple[Entry, Settings, Any]] = {}
        self._pools: Pools | None = None

    @property
    def registry(self) -> Registry:
        """Which deployments there are."""
        if self._registry is None:
            self._registry = registry_of(self._given, self._deployments.fixed)
        return self._registry

    @property
    def pools(self) -> Pools:
        """The pools under the settings that hold now."""
        from polyvox.pools import Pools as Made

        settings = self._deployments.settled()
        if self._pools is None:
            engine, own = self._engine, weakref.ref(self)  # a ring of objects would be let go of late

            def make(entry: Entry) -> MadeOf:
                pooling = own()
                assert pooling is not None  # whoever asks its pools holds the client
                return pooling._make(entry)

            self._pools = Made(
                self.registry,
                make,
                self._routed(settings),
                rule=lambda: engine.rule,
                leases=self._counted(settings),
                chance=self._engine.chance,
            )
        elif settings is not self._made_for:
            self._pools.forget(self._routed(settings))
        self._made_for = settings
        return self._pools

    def _routed(self, settings: Settings) -> Routing:
        """How calls choose under these settings."""
        return routing_of(self._routing, {name: value for name, value in settings.routing.items() if name != "limits"})

    def _counted(self, settings: Settings) -> Any:
        """Where limits are counted: as the client says, else as is configured; None for this process."""
        place = settings.routing.get("limits") if self._limits is None else self._limits
        if not isinstance(place, str):
            return place
        if place == "memory":
            return None
        from polyvox.limits import RedisLeases

        self._leases = RedisLeases(place)
        return self._leases

    def find(self, model: str | Sequence[str] | None, tier: str | None) -> Pool | AutoRoute | None:
        """The pool that a call means; None where it means a single deployment that no registry names."""
        if tier is not None:
            if not isinstance(tier, str) or not tier.strip():
                raise InputError(f"tier must be a word, not {shown(tier)}", param="tier")
            return self.pools.of_tier(tier)
        if model is not None and not isinstance(model, str):
            names = tuple(model) if isinstance(model, Sequence) else ()
            if not names or not all(isinstance(name, str) and name for name in names):
                raise InputError("a list of models must be names, at least one", hint='for example ["a/b", "c/d"]')
            return self.pools.listed(names, self._unaliased)
        if self._deployments.is_one_place:
            return None
        registers = self._registers()
        name = model or self._deployments.settings.model
        found = None
        if registers:
            found = self.pools.named(name) if name is not None else self.pools.default()
        if found is None and name is not None and is_pattern(name):
            from polyvox.pools import NoDeploymentError

            there = [entry.name for entry in self.registry.list_active()] if registers else []
            raise NoDeploymentError(
                f"no deployment matches {name!r}",
                hint=f"there are: {', '.join(there[:20])}" if there else
                "patterns are of the names of deployments; name some in [deployments.NAME] of the configuration",
            )  # fmt: skip
        return found

    def _unaliased(self, name: str) -> str:
        """What an alias of the configuration stands for; any other name as it is. UnknownModelError for "@" before what
        is no alias."""
        return follow(name.strip(), self._deployments.settled().aliases)

    def suggest(self, name: str | None, unknown: NotFoundError) -> None:
        """Say in the error of a model that nobody is known to serve which deployment may be meant."""
        if name is None or not self._registers():
            return
        from polyvox.registry.values import nearly

        near = nearly(name, [word for entry in self.registry.list_active() for word in entry.names])
        if near and not (unknown.hint or "").startswith(near):
            unknown.hint = f"{near}{unknown.hint or ''}".strip()

    # ---- beside chats -------------------------------------------------------------------------

    def operating(
        self, kind: Kind[AskedT, AnsweredT], name: str | None, own: str | None
    ) -> OperationDeployment[AskedT, AnsweredT]:
        """The deployment for an operation that is no chat: where a call or the client, own, names an entry, that one's
        model, with its address, key, price and time; else what `Deployments.operating` gives."""
        settings = self._deployments.settled()
        entry = self._entry(name or own or settings.model)
        if entry is None:
            try:
                return self._deployments.operating(kind, name)
            except NotFoundError as unknown:
                self.suggest(name or own, unknown)
                raise
        held = self._operating.get((kind, entry.name, name is None))
        if held is None or held[0] is not entry or held[1] is not settings:
            found = self._operation(kind, entry, settings, chosen=name is not None)
            held = self._operating[kind, entry.name, name is None] = (entry, settings, found)
        operation: OperationDeployment[AskedT, AnsweredT] = held[2]
        return operation

    def _entry(self, name: str | None) -> Entry | None:
        """The entry of a name or an alias; None where there is none, or the client has an address of its own."""
        if not isinstance(name, str) or self._deployments.is_one_place or not self._registers():
            return None
        return self.registry.get_by_name(name)

    def _operation(self, kind: Kind[Any, Any], entry: Entry, settings: Settings, *, chosen: bool) -> Any:
        found: Any = copy.copy(self._apart(entry, settings).operating(kind, entry.model if chosen else None))
        found.name = entry.name
        if entry.timeout is not None:
            found.timeout = entry.timeout
        if entry.price is not None and found.money is not None:
            from polyvox.registry import known_of

            known = known_of(entry, settings)
            found.money = found.money.at(lambda _provider, _model: known)
        return found

    def _registers(self) -> bool:
        """Whether any deployment is named anywhere."""
        if self._given is None and not self._deployments.settled().deployments:
            return False
        return bool(self.registry.list_active())

    @property
    def asks(self) -> bool:
        """Whether the registry is on another machine, so that `fresh` asks there."""
        return self._given is not None and self.registry.asks

    async def fresh(self) -> None:
        """Ask for the newest state of a registry that is on another machine."""
        if self.asks:
            await self.registry.refresh()

    # ---- for people ---------------------------------------------------------------------------

    def decision(self, route: Any, request: Request, how: CallOptions) -> Decision:
        """How a call would choose just now."""
        plan = route.plan(request, how)
        found: Decision = plan.looked()
        return found

    def explained(self, route: Any, request: Request, how: CallOptions) -> tuple[AnyDeployment, Entry]:
        """The deployment that a call would go to first, for looking at, and its entry; one without an address of its
        own needs no key."""
        asked = self.decision(route, request, how).asked
        member = next((one for one in route.members if one.name in asked), route.members[0])
        entry: Entry = member.entry
        return (member.deployment if entry.base_url else self._looked_at(entry)), entry

    def keyless(self, problem: MissingKeyError) -> tuple[AnyDeployment, Entry]:
        """The same, where nobody can be asked for want of a key."""
        from polyvox.registry import Entry

        if problem.decision is None or not problem.decision.candidates:
            raise problem
        name = problem.decision.candidates[0].name
        entry = self.registry.get_by_name(name) or Entry(name, name)
        if entry.base_url:
            raise problem
        return self._looked_at(entry), entry

    def _looked_at(self, entry: Entry) -> AnyDeployment:
        found: Any = copy.copy(self._deployments.explained(entry.model))
        found.name = entry.name
        made: AnyDeployment = found
        return made

    def standing(self) -> list[dict[str, Any]]:
        """See `AsyncClient.standing`."""
        return (
            []
            if self._pools is None
            else [member.describe(self._pools.shared.clock()) for member in self._pools.members()]
        )

    # ---- one deployment -----------------------------------------------------------------------

    def _make(self, entry: Entry) -> Made:
        from polyvox.pools import Made
        from polyvox.registry import known_of, why_not_local

        settings = self._deployments.settings
        known = known_of(entry, settings)
        try:
            found: Any = copy.copy(self._deployment(entry, settings))
        except NotFoundError as unknown:
            self.suggest(entry.model, unknown)
            raise
        found.name = entry.name
        if isinstance(found, Deployment) and _is_apart(entry):
            # What it mints holds for its own key or server alone.
            found.endpoint = replace(found.endpoint, origin=entry.name)
        if entry.price is not None and found.money is not None:
            found.money = found.money.at(lambda _provider, _model: known)
        price = known.price(datetime.now(UTC)) if known is not None else None
        local = why_not_local(entry, settings) is None
        return Made(found, _abilities(entry, known, local), rates_of(price))

    def _deployment(self, entry: Entry, settings: Settings) -> AnyDeployment:
        """The deployment of an entry: one with an address or a key of its own is made apart from the client's."""
        if not _is_apart(entry):
            return self._deployments.get(entry.model)
        return self._apart(entry, settings).get(entry.model)

    def _apart(self, entry: Entry, settings: Settings) -> Deployments:
        """What makes the deployments of an entry alone, over the client's connections."""
        from polyvox.registry import key_of

        key = key_of(entry, settings)
        if key is None and (entry.api_key_env or entry.api_key_of) and not self._deployments.replays:
            # Another key is another account: that of the provider is not meant.
            lacks = f"${entry.api_key_env} is not set" if entry.api_key_env else f"{entry.api_key_of!r} is not kept"
            hint = f"set {entry.api_key_env}" if entry.api_key_env else f"run: polyvox keys set {entry.api_key_of}"
            raise MissingKeyError(f"the deployment {entry.name!r} has no key: {lacks}", hint=hint)
        apart = self._own[entry.name] = self._deployments.apart(
            entry.model, entry.base_url, None if key is None else key.secret, entry.dialect
        )
        return apart

    async def close(self) -> None:
        """Close what was made here."""
        if self._leases is not None:
            await self._leases.close()


def _is_apart(entry: Entry) -> bool:
    """Whether an entry has an address or a key of its own."""
    return bool(entry.base_url or entry.api_key or entry.api_key_env or entry.api_key_of)


def _abilities(entry: Entry, known: Model | None, local: bool) -> Abilities:
    profile = profiles.profile_of(entry.model, known)
    return abilities_of(known, getattr(profile, "refuses", ()) or (), local=local)
