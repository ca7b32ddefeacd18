"""From settings to what a client of the core is made of: whose model, at which address, with which key. It sends
nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from polyvox import backends, catalog, config
from polyvox.catalog import Provider
from polyvox.compat.ai_utilities.sources import is_of_file, is_own_address, row_of
from polyvox.keys import secret_of

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings

__all__ = ["AUTO", "Defaults", "defaults_of", "facts_of", "full_name", "row_of"]

AUTO = "auto"
"""The provider that is whoever has a key, in the catalog's order; with a model, whoever serves it."""

_LOCAL_SECONDS = 1800.0  # a machine of one's own loads the model first, and may be slow


class Defaults(NamedTuple):
    """What is usual for a provider: the model, the address, and seconds for a whole call."""

    model: str | None = None
    base_url: str | None = None
    timeout_s: float | None = None


def defaults_of(provider: str) -> Defaults:
    """What is usual for a provider, as the catalog has it and as it is configured."""
    settings = config.current()
    row = row_of(provider)
    if row is None:
        return Defaults(timeout_s=settings.timeout)
    seconds = settings.timeout
    if row.local and settings.origin("timeout") == "default":
        seconds = _LOCAL_SECONDS
    seconds = settings.providers.get(provider, {}).get("timeout", seconds)
    address = row.base_url.rstrip("/")
    return Defaults(row.default_model, address if address and "{" not in address else None, seconds)


def full_name(provider: str, model: str, base_url: str | None = None) -> str:
    """A model with its provider's name before it, as the core has it. At an address of one's own, and where the
    provider's own name for a model begins so, nothing that looks like a provider's name is one."""
    if provider == AUTO or model.startswith("@"):
        return model
    is_full = model.startswith(f"{provider}/") and base_url is None
    if is_full and catalog.load().info(provider, model) is None and model != defaults_of(provider).model:
        return model
    return f"{provider}/{model}"


def facts_of(settings: AiSettings, provider: str) -> dict[str, Any]:
    """The arguments of a client of the core."""
    row = row_of(provider)
    seconds = settings.timeout_s or defaults_of(provider).timeout_s
    facts: dict[str, Any] = {} if seconds is None else {"timeout": seconds}
    key = _key(settings, provider)
    if row is None:
        # A backend has no wire, and "auto" no address of its own.
        if backends.registered_as(provider) is None and key is not None:
            facts["api_key"] = key
        return facts | ({"model": settings.model} if settings.model else {})
    if model := settings.model or row.default_model:
        facts["model"] = full_name(provider, model, settings.base_url)
    if settings.base_url is None:
        return facts | ({"api_key": key} if key is not None else {})
    facts["settings"] = _at_its_address(settings, row, catalog.complete_url(settings.base_url, row), key)
    return facts


def _key(settings: AiSettings, provider: str) -> str | None:
    """The key that the core is told; None where it finds the provider's own by itself."""
    if settings.key_is_the_providers:
        is_found_there = settings.origin("api_key").startswith("env ")
        return None if is_found_there or provider != settings.provider else settings.api_key
    return settings.api_key


def _at_its_address(settings: AiSettings, row: Provider, url: str, key: str | None) -> config.Settings:
    """The settings of this process with a provider at an address. Without a key for it, nothing that proves who asks
    goes there: it is no address that a key of the provider's belongs to."""
    own: dict[str, Any] = {"base_url": url}
    may_have_the_usual = is_own_address(row, url) and not is_of_file(settings.origin("base_url"))
    if key is not None:
        own["api_key"] = secret_of(key)
    elif not may_have_the_usual:
        own["auth"] = "none"
    current = config.current()
    said = {**current.providers.get(row.name, {}), **own}
    if not may_have_the_usual:
        said.pop("secret_headers", None)
        if key is None:
            said.pop("api_key", None)
    origins = {**current.origins, **{f"providers.{row.name}.{field}": "argument" for field in own}}
    return replace(current, providers={**current.providers, row.name: said}, origins=origins)
