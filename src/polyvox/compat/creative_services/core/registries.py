"""Deployments by the names of creative_services: the fields of its table, and its registries. They are the core's;
those made here are seen through all four interfaces."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import msgspec

from polyvox.compat import shared
from polyvox.compat.creative_services.core.llm_config import name_of, provider_of, row_of
from polyvox.compat.creative_services.core.llm_registry import tier_of
from polyvox.compat.errors import speaking
from polyvox.config import Settings
from polyvox.errors import InputError
from polyvox.keys.secret import secret_of
from polyvox.registry import DictRegistry as CoreRegistry
from polyvox.registry import Entry, Registries, Rows
from polyvox.registry import Registry as LLMRegistry

__all__ = ["DictRegistry", "LLMRegistry", "entry_of", "whatever_there_is"]


# ---- entries by the fields of the documented model --------------------------------------------

_SAME = {"active": "is_active", "base_url": "api_endpoint", "model": "model_name"}
_PRICES = {"cost_per_1k_input": "input", "cost_per_1k_output": "output"}
_OWN = ("id", "provider", "model_name", "llm_name", "api_endpoint", "is_active", *_PRICES)


def entry_of(said: Mapping[str, Any], old: Entry | None = None) -> dict[str, Any]:
    """Fields of an Entry from those that the document's Llms has, and from its own; old is what they change. Money is
    USD per 1,000 tokens there. InputError, which names the nearest, for one that is none."""
    core = [field.name for field in msgspec.structs.fields(Entry)]
    for name in said:
        if name not in core and name not in _OWN:
            near = difflib.get_close_matches(name, [*core, *_OWN], n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join([*core, *_OWN])}"
            raise InputError(f"a deployment has no {name!r}", param=name, hint=hint)
    found = {field: said[field] for field in core if field in said}
    found |= {field: said[other] for field, other in _SAME.items() if other in said}
    if "llm_name" in said:
        found.setdefault("model", said["llm_name"])
    if isinstance(found.get("api_key"), str):
        found["api_key"] = secret_of(found["api_key"]) if found["api_key"].strip() else None
    if "base_url" in found and not found["base_url"]:
        found |= {"base_url": None, "dialect": None}
    if said.get("id") is not None:
        more = found.get("aliases") or (old.aliases if old is not None else ())
        more = more if isinstance(more, list | tuple) else (more,)
        found["aliases"] = tuple(dict.fromkeys([*more, str(said["id"])]))
    prices = {field: _per_million(name, said[name]) for name, field in _PRICES.items() if said.get(name) is not None}
    if prices:
        found["price"] = {**(old.price if old is not None and old.price else {}), **prices}
    provider = provider_of(said.get("provider"))
    if provider is None and said.keys() & {"model_name", "api_endpoint"}:
        provider = _provider_kept(old)
    if provider:
        found.update(_placed(provider, found, old))
    return found


def _provider_kept(old: Entry | None) -> str | None:
    """The provider of an entry of which only the model or the address changes: in that table it is a field of its
    own."""
    return old.model.split("/", 1)[0] if old is not None and old.base_url is None and "/" in old.model else None


def _placed(provider: str, found: Mapping[str, Any], old: Entry | None) -> dict[str, Any]:
    """A model and the protocol it is asked in, by the name of its provider."""
    model = found.get("model")
    address = found.get("base_url", old.base_url if old is not None else None)
    if model is None and old is not None:
        kept = _provider_kept(old)
        if address is not None or kept == provider:
            model = old.model.removeprefix(f"{kept}/")
    if address is None:
        return {"model": name_of(provider, model)}
    return {"model": model, "dialect": found.get("dialect") or row_of(provider).dialect}


def _per_million(name: str, amount: Any) -> Decimal:
    try:
        return (amount if isinstance(amount, Decimal) else Decimal(str(amount))) * 1000
    except InvalidOperation:
        raise InputError(f"{name} is an amount of USD, not {amount!r}", param=name) from None


def _entry(said: Mapping[str, Any]) -> Entry:
    found = {"name": "", "model": "", **entry_of(said)}
    return Entry(**found)


def _given(entries: Any) -> Any:
    """Entries as the core takes them: tables by name, or a sequence of them, each with the fields of either."""
    if isinstance(entries, Mapping):
        return {name: _table(said) for name, said in entries.items()}
    if not isinstance(entries, Iterable) or isinstance(entries, str | bytes):
        raise InputError(
            f"a registry is made of entries, or of tables by name, not of {type(entries).__name__}",
            hint='for example DictRegistry({"fast": {"model": "openai/gpt-5.4-mini", "tier": "economy"}})',
        )
    return [_entry(each) if isinstance(each, Mapping) else each for each in entries]


def _table(said: Any) -> Any:
    if said is None:
        return {}  # which says what it needs
    return entry_of(said) if isinstance(said, Mapping) and any(name in said for name in _OWN) else said


# ---- registries -------------------------------------------------------------------------------


class DictRegistry(CoreRegistry):
    """Deployments by name, in the order in which they were given: entries, or tables, whose fields are those of `add`;
    see `polyvox.registry.DictRegistry`. A change acts on the next call of all four interfaces, for as long as somebody
    holds the registry.

    >>> from polyvox.compat.creative_services import LLMTier
    >>> registry = DictRegistry()
    >>> registry.add(name="fast", provider="openai", model_name="gpt-6-luna", tier="economy")
    >>> registry.get_by_tier(LLMTier.ECONOMY).model
    'openai/gpt-6-luna'
    """

    def __init__(
        self,
        entries: Iterable[Entry | Mapping[str, Any]] | Mapping[str, Mapping[str, Any]] = (),
        *,
        settings: Settings | None = None,
    ) -> None:
        self._follows = False
        self._held: tuple[object, Rows] = ((), Rows())
        with speaking():
            super().__init__(_given(entries), settings=settings)
        shared.EVERYONE.publish(self)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, settings: Settings | None = None) -> Self:
        """Deployments at the providers whose keys are in the environment, by tier, and what the AI_ variables describe
        at each moment; see `polyvox.registry.DictRegistry.from_env`. Without any key there is the tier local alone."""
        with speaking():
            if env is not None and not isinstance(env, Mapping):
                raise InputError(f"an environment is a table of variables, not {type(env).__name__}", param="env")
            found = super().from_env(env, settings=settings)
        found._follows = env is None
        return found

    @property
    def rows(self) -> Rows:
        """The newest state."""
        own = self._rows
        if not self._follows:
            return own
        said = shared.deployment()
        if said is None or said.name in {entry.name for entry in own.entries}:
            return own
        seen = (own, said)
        if seen != self._held[0]:
            self._held = (seen, Rows((*own.entries, said)))
        return self._held[1]

    def get_by_tier(self, tier: str) -> Entry | None:
        """The entry for a tier, a member of LLMTier or a word; None where it has none. InputError for a tier that there
        is not. See `polyvox.registry.Registry.get_by_tier`."""
        with speaking():
            return super().get_by_tier(tier_of(tier, self.rows.tiers))

    def add(self, entry: Entry | None = None, **fields: Any) -> None:
        """Add an entry at the end: an `Entry`, or its fields as the document's Llms has them (name, provider,
        model_name, tier, api_key, api_endpoint, max_tokens, temperature, cost_per_1k_input, cost_per_1k_output,
        is_active). ConfigError where its name is taken or it cannot work."""
        with speaking():
            if entry is None:
                entry = _entry(fields)
            elif fields:
                raise InputError("an entry has its fields already", hint="change it with update(name, ...)")
            super().add(entry)

    def update(self, name: str, /, **changes: Any) -> Entry:
        """Change fields of an entry, named as in `add`; the changed one. InputError for a name or field that is not
        there."""
        with speaking():
            old = next((entry for entry in self._rows.entries if entry.name == name), None)
            return super().update(name, **entry_of(changes, old))


def whatever_there_is() -> LLMRegistry:
    """What is used where no registry was given: all that were made, what the AI_ variables describe, then the providers
    whose keys are in the environment now."""
    return Registries(shared.EVERYONE, CoreRegistry.from_env())
