"""Whom the core asks for a model: the deployments that a name means, so that its routing chooses among them and goes on
to the next where one fails; else the provider itself. It decides nothing about a call."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from polyvox import Client, catalog
from polyvox.compat import shared
from polyvox.compat.llm_service.models.llm import LLMModelSpec
from polyvox.errors import InputError, NotFoundError, UsageError
from polyvox.registry import Registries, Registry, Rows, SettingsRegistry
from polyvox.registry.base import Asked
from polyvox.routing.patterns import is_pattern, matches

if TYPE_CHECKING:
    from polyvox.registry import Entry
    from polyvox.types import Request


class Speaking(NamedTuple):
    """How a provider is spoken to: its name, the row of the catalog that is asked in its place, and the dialect that a
    server of somebody's own has to speak; "" for its usual one."""

    provider: str
    row: str = ""
    dialect: str = ""

    def full(self, model: str) -> str:
        """A model of this provider, as the core asks for it."""
        return f"{self.row or self.provider}/{model}"


class Spoken(Asked):
    """The deployments of a registry, those of a provider in the place of which another row is asked at that row; with
    a dialect only those that can speak it."""

    def __init__(self, source: Registry, how: Speaking) -> None:
        super().__init__()
        self._source = source
        self._how = how
        self._held: tuple[object, Rows] = (None, Rows())

    @property
    def asks(self) -> bool:  # type: ignore[override]
        """See `Registry.asks`."""
        return self._source.asks

    async def refresh(self) -> Rows:
        """See `Registry.refresh`."""
        await self._source.refresh()
        return self.rows

    @property
    def rows(self) -> Rows:
        """The newest state."""
        version, held = self._source.version, self._held
        if version is not held[0]:
            entries = [said for entry in self._source.list_active() if (said := self._said(entry)) is not None]
            held = self._held = (version, held[1].followed_by(tuple(entries)))
        return held[1]

    def _said(self, entry: Entry) -> Entry | None:
        how = self._how
        if entry.base_url is not None:
            return replace(entry, dialect=how.dialect) if how.dialect else entry
        if how.row and entry.model.startswith(f"{how.provider}/"):
            return replace(entry, model=how.full(entry.model.partition("/")[2]))
        return None if how.dialect and not entry.model.startswith(f"{how.row}/") else entry


def own(how: Speaking, spec: LLMModelSpec, dialect: str) -> tuple[Client, str]:
    """The core's own client for a model, and the name it goes by there. With a dialect nothing else takes what is
    asked: InputError where the deployments that are meant do not speak it."""
    registry, client = _everyone(how)
    name = _meant(registry, how, spec)
    if name is not None:
        if not dialect:
            return client, name
        able, client = _everyone(how._replace(dialect=dialect))
        spoken = _meant(able, how, spec)
        if spoken is None:
            entry = registry.get_by_name(spec.model)
            who = f"the deployment {entry.name!r} ({entry.model}) does" if entry else f"the deployments {name!r} do"
            raise InputError(
                f"{who} not take what is said in {dialect}",
                hint="name one that does, or leave vector_store_id and transformers of your own out",
            )
        return client, spoken
    said = shared.deployment() if shared.said().keys() & {"api_key", "base_url"} else None
    if said is None or _provider_said() != how.provider:
        return client, how.full(spec.model)
    speaks = (dialect or said.dialect) if said.base_url else None
    return _as_said(said, speaks), spec.model if said.base_url else how.full(spec.model)


def within(client: Client, how: Speaking, spec: LLMModelSpec, asked: Request) -> str:
    """The name that a model goes by at somebody's client: its deployments go before the provider itself."""
    names = [spec.model] if _is_unsaid(how, spec) else []
    if not (how.row and asked.extra):  # what is said to that row alone would be lost elsewhere
        names.append(f"{how.provider}/{spec.model}")
    for name in names:
        try:
            client.route(asked, model=name)
        except (UsageError, NotFoundError):  # no deployment goes by it
            continue
        return name
    return how.full(spec.model)


def _meant(registry: Registry, how: Speaking, spec: LLMModelSpec) -> str | None:
    """The name or the pattern by which deployments of a registry are meant; None where none is."""
    unsaid, full = _is_unsaid(how, spec), how.full(spec.model)
    entry = registry.get_by_name(spec.model)
    if entry is not None and (unsaid or entry.model.startswith((f"{how.provider}/", f"{how.row or how.provider}/"))):
        return spec.model
    for name in (full, *([spec.model] if unsaid else [])):
        for entry in registry.list_active():
            if (entry.model == name and entry.base_url is None) or (
                is_pattern(name) and matches(name, (*entry.names, entry.model))
            ):
                return name
    return None


def _is_unsaid(how: Speaking, spec: LLMModelSpec) -> bool:
    """Whether nothing is said against a deployment of another provider: the one that holds where nobody says one is no
    word against it, unless it has that model itself."""
    usual = LLMModelSpec.model_fields["provider"].default
    return how.provider == usual and not catalog.load().info(how.provider, spec.model)


def _provider_said() -> str:
    """The provider that the AI_ variables name."""
    said = shared.said()
    word = said["provider"].value.lower() if "provider" in said else "openai"
    return shared.IN_CATALOG.get(word, word)


@functools.cache
def _everyone(how: Speaking) -> tuple[Registry, Client]:
    """All deployments that are published or configured, spoken to in one way, and the client that asks them."""
    registry = Spoken(Registries(shared.EVERYONE, SettingsRegistry()), how)
    return registry, Client(registry=registry)


@functools.lru_cache(maxsize=8)
def _as_said(said: Entry, dialect: str | None) -> Client:
    """The client for what the AI_ variables say; their key and address hold for every model of their provider."""
    usual = {name: value for name in ("temperature", "max_tokens") if (value := getattr(said, name)) is not None}
    if said.base_url is None:
        return Client(api_key=said.api_key, **usual)
    return Client(base_url=said.base_url, api_key=said.api_key, dialect=dialect or "openai.chat", **usual)
