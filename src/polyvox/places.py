"""Fills in what a provider's address leaves open: a region, a project, the name of a resource. It reads no
environment; the settings have what it says.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from polyvox.catalog import Provider
from polyvox.errors import ConfigError

_OPEN = re.compile(r"\{([a-z_]+)\}")
# Nothing that could turn the rest of the address into something else.
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_HOST = re.compile(rf"{_PART.pattern}(?:\.{_PART.pattern})*")


def needed(provider: Provider, option: str) -> str:
    """An option that the provider cannot do without; ConfigError, which says what to set, for one that is missing
    or cannot be part of an address. Where a whole host is wanted, an https URL stands for it."""
    text, form = str(provider.options.get(option, "")).strip(), _PART
    if f"://{{{option}}}/" in provider.base_url:
        text, form = text.removeprefix("https://").rstrip("/"), _HOST
    if form.fullmatch(text):
        return text
    wrong = f"{option} cannot be part of an address" if text else f"no {option} is set"
    raise ConfigError(
        f"{provider.title or provider.name}: {wrong}", hint=_how(provider, option), provider=provider.name
    )


def located(provider: Provider) -> Provider:
    """The provider at the address its options lead to, which its key may then go to; ConfigError as `needed`."""
    address = provider.base_url
    for option in _OPEN.findall(address):
        address = provider.base_url_at.get(str(provider.options.get(option)), address)
    if "{" not in address and address == provider.base_url:
        return provider
    filled = _OPEN.sub(lambda found: needed(provider, found[1]), address)
    # Without hosts of its own the row gets the one of the address; a row with hosts keeps to them.
    return replace(provider, base_url=filled)


def _how(provider: Provider, option: str) -> str:
    ways = [f"set {variable}" for variable in provider.needs.get(option, ())[:1]]
    ways.append(f'write options.{option} = "..." under [providers.{provider.name}] in the configuration')
    return ", or ".join(ways)
