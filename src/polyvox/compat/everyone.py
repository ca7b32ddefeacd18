"""Deployments and models as all four interfaces see them: the registries that anybody published, the deployment that
the AI_ variables describe, and the catalog with what was added to it. It sends nothing."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping
from typing import TypeVar

from polyvox import backends, catalog, config
from polyvox.compat.shared import ENVIRONMENT, IN_CATALOG, Found, said
from polyvox.errors import ConfigError, UnknownProviderError
from polyvox.keys import Secret
from polyvox.models import Model
from polyvox.registry import Entry, Registries, Registry, Rows
from polyvox.registry.base import Asked

NumberT = TypeVar("NumberT", int, float)

_described: tuple[object, object, Entry | None] = (None, None, None)


def deployment(env: Mapping[str, str] | None = None) -> Entry | None:
    """The deployment that the AI_ variables describe, or None where they name none: without a provider, a model, a key
    and an address there is nothing to ask. ConfigError, naming the variable, for what cannot be."""
    global _described
    if env is not None:
        return _deployment(said(env))
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


def in_catalog(name: str) -> str:
    """A provider's name, or a model's with its provider, as the catalog has it: where a document has another word for
    the provider, and nobody has taken that word."""
    word, separator, rest = catalog.split_name(name)
    own = IN_CATALOG.get(word.lower())
    if own is None or backends.registered_as(word) is not None or EVERYONE.get_by_name(name) is not None:
        return name
    settings = config.current()
    taken = word in catalog.load().providers or word in settings.providers or name in settings.deployments
    return name if taken else f"{own}{separator}{rest}"


def info(name: str, provider: str | None = None) -> Model | None:
    """What is known of a model, by its name alone or with its provider's, or by the name of a deployment."""
    if entry := EVERYONE.get_by_name(name):
        name = entry.model
    known = catalog.load()
    left, _, right = in_catalog(name).partition("/")
    if provider is None and right and left in known.providers:
        provider, name = left, right
    if provider is not None:
        return known.info(in_catalog(provider), name)
    own = next((model for model in catalog.added() if name in (model.id, *model.aliases)), None)
    if own is not None or not known.claims(name):
        return own
    return known.resolve(name).info
