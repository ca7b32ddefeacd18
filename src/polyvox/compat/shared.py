"""What the four interfaces have in common, so that an edit through one is seen through the others: the AI_ variables
of the environment here, which cost nothing to load, and deployments and models, each loaded on first touch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from polyvox.compat.everyone import EVERYONE as EVERYONE
    from polyvox.compat.everyone import Everyone as Everyone
    from polyvox.compat.everyone import deployment as deployment
    from polyvox.compat.everyone import in_catalog as in_catalog
    from polyvox.compat.everyone import info as info

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

_DEPLOYED = ("EVERYONE", "Everyone", "deployment", "in_catalog", "info")


def __getattr__(name: str) -> Any:
    """Load what knows deployments on first touch (PEP 562): registries and the catalog come with it."""
    if name not in _DEPLOYED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from polyvox.compat import everyone

    value = globals()[name] = getattr(everyone, name)
    return value


class Found(NamedTuple):
    """A value of the environment, and the variable as it is written there."""

    value: str
    variable: str


_seen: dict[Any, Any] = {}
_said: tuple[object, Mapping[str, Found]] = (None, {})


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
