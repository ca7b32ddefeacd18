"""What the four interfaces have in common, so that an edit through one is seen through the others: deployments by
name, the AI_ variables of the environment, and models that were registered. The last are those of the catalog."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from polyvox import catalog
from polyvox.errors import ConfigError, UnknownProviderError
from polyvox.keys import Secret
from polyvox.models import Model
from polyvox.registry import Entry, Registries, Registry, Rows
from polyvox.registry.base import Asked

ENVIRONMENT = "environment"
"""The name of the deployment that the AI_ variables describe."""

VARIABLES: dict[str, tuple[str, ...]] = {
    "provider": ("AI_PROVIDER",),
    "api_key": ("AI_API_KEY",),
    "model": ("AI_MODEL", "OPENAI_MODEL"),
    "base_url": ("AI_BASE_URL",),
    "temperature": ("AI_TEMPERATURE",),
    "max_tokens": ("AI_MAX_TOKENS",),
    "cache_enabled": ("AI_CACHE_ENABLED",),
    "cache_backend": ("AI_CACHE_BACKEND",),
    "cache_ttl_s": ("AI_CACHE_TTL_S",),
}
"""The variables of each setting, in any case; the first that is set is believed."""


IN_CATALOG = {"google": "gemini"}
"""Providers that the documents call by another word than the catalog does."""

NumberT = TypeVar("NumberT", int, float)


class Found(NamedTuple):
    """A value of the environment, and the variable as it is written there."""

    value: str
    variable: str


_seen: dict[Any, Any] = {}
_said: tuple[object, Mapping[str, Found]] = (None, {})
_described: tuple[object, object, Entry | None] = (None, None, None)


def snapshot() -> object:
    """The environment as it is: the same object as before until a variable changes."""
    global _seen
    # Its own table is compared at once; name by name, which decodes each, would take as long as a call.
    now = getattr(os.environ, "_data", None)
    if now is None:
        now = dict(os.environ)
    if now != _seen:
        _seen = dict(now)
    return _seen


def said(env: Mapping[str, str] | None = None) -> Mapping[str, Found]:
    """What the environment says at this moment of each setting in VARIABLES; empty values say nothing."""
    global _said
    if env is not None:
        return _read(env)
    now = snapshot()
    if _said[0] is not now:
        _said = (now, _read(os.environ))
    return _said[1]


def _read(surroundings: Mapping[str, str]) -> dict[str, Found]:
    there = {name.upper(): name for name, value in surroundings.items() if value.strip()}
    found = {}
    for field, names in VARIABLES.items():
        if name := next((there[name] for name in names if name in there), None):
            found[field] = Found(surroundings[name].strip(), name)
    return found


def deployment(env: Mapping[str, str] | None = None) -> Entry | None:
    """The deployment that the AI_ variables describe, or None where they name none: without a provider, a model, a key
    and an address there is nothing to ask. ConfigError, naming the variable, for what cannot be."""
    global _described
    if env is not None:
        return _deployment(_read(env))
    found, known = said(), catalog.load()
    held = _described
    if held[0] is not found or held[1] is not known:
        held = _described = (found, known, _deployment(found))
    return held[2]


def _deployment(found: Mapping[str, Found]) -> Entry | None:
    if not found.keys() & {"provider", "model", "api_key", "base_url"}:
        return None
    word = found["provider"].value.lower() if "provider" in found else "openai"
    provider = IN_CATALOG.get(word, word)
    try:
        row = catalog.load().provider(provider)
    except UnknownProviderError as error:
        raise UnknownProviderError(f"{found['provider'].variable}: {error.message}", hint=error.hint) from None
    address = found["base_url"].value if "base_url" in found else None
    model = found["model"].value if "model" in found else row.default_model
    if model is None:
        raise ConfigError(f"no model is named for {provider}", hint="set AI_MODEL")
    return Entry(
        ENVIRONMENT,
        model if address or model.startswith(f"{provider}/") else f"{provider}/{model}",
        api_key=Secret(found["api_key"].value) if "api_key" in found else None,
        base_url=address,
        dialect=row.dialect if address else None,
        temperature=_number(found, "temperature", float),
        max_tokens=_number(found, "max_tokens", int),
        default=True,
        origin=f"env {next(iter(found.values())).variable}",
    )


def _number(found: Mapping[str, Found], field: str, kind: type[NumberT]) -> NumberT | None:
    if field not in found:
        return None
    try:
        return kind(found[field].value)
    except ValueError:
        raise ConfigError(f"{found[field].variable} is {found[field].value!r}, and no number") from None


class Everyone(Asked):
    """The deployments of all registries that were published and still live, the newest first, then that of the
    environment. A registry for `polyvox.Client(registry=...)`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._published: list[weakref.ref[Registry]] = []
        self._held: tuple[object, Rows] = ((), Rows())

    def publish(self, registry: Registry) -> None:
        """Let all four interfaces see a registry, for as long as somebody holds it."""
        with self._lock:
            self._published = [weakref.ref(registry), *(known for known in self._published if known() is not None)]

    def forget(self) -> None:
        """Let nobody see the registries that were published so far; who holds one may go on using it."""
        with self._lock:
            self._published = []

    @property
    def sources(self) -> tuple[Registry, ...]:
        """The registries that still live, the newest first."""
        return tuple([registry for known in self._published if (registry := known()) is not None])

    @property
    def asks(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(registry.asks for registry in self.sources)

    async def refresh(self) -> Rows:
        """See `Registry.refresh`."""
        await asyncio.gather(*(registry.refresh() for registry in self.sources if registry.asks))
        return self.rows

    @property
    def rows(self) -> Rows:
        """The newest state."""
        sources, own = self.sources, deployment()
        versions = (tuple([registry.version for registry in sources]), own)
        if versions != self._held[0]:
            with self._lock:
                entries = Registries(*sources).rows.entries if sources else ()
                taken = {name for entry in entries for name in entry.names}
                more = (own,) if own is not None and own.name not in taken else ()
                self._held = (versions, self._held[1].followed_by((*entries, *more)))
        return self._held[1]


EVERYONE = Everyone()
"""The one of this process."""


def info(name: str, provider: str | None = None) -> Model | None:
    """What is known of a model, by its name alone or with its provider's, or by the name of a deployment."""
    if entry := EVERYONE.get_by_name(name):
        name = entry.model
    known = catalog.load()
    left, _, right = name.partition("/")
    if provider is None and right and left in known.providers:
        provider, name = left, right
    if provider is not None:
        return known.info(provider, name)
    own = next((model for model in catalog.added() if name in (model.id, *model.aliases)), None)
    if own is not None or not known.claims(name):
        return own
    return known.resolve(name).info
