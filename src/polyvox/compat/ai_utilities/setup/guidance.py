"""What a person has to know to use a provider: where its keys are made, which variable has one, which model is meant
when none is named. All of it is from the catalog."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from polyvox import catalog, config
from polyvox.catalog import Provider
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError
from polyvox.keys import find_key


class Guidance(Struct, frozen=True, kw_only=True):
    """How to set up one provider.

    keys_at is the page where keys are made, variables are those that may hold one, best first; default_model is
    asked when no other is named; needs are variables that its address takes, such as a region; found says where a
    key lies already, None where none does.
    """

    provider: str
    title: str
    needs_key: bool
    local: bool
    keys_at: str | None = None
    variables: tuple[str, ...] = ()
    default_model: str | None = None
    base_url: str = ""
    needs: tuple[str, ...] = ()
    found: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The same in sentences."""
        if self.needs_key:
            made = f", made at {self.keys_at}" if self.keys_at else ""
            named = f" Its own variable is {self.variables[0]}." if self.variables else ""
            key = f"{self.title} wants a key{made}.{named}"
        else:
            key = f"{self.title} works without a key."
        more = [key]
        if self.local:
            more.append(f"It runs on your own machine, at {self.base_url}.")
        if self.needs:
            more.append(f"Its address also needs {' and '.join(self.needs)}.")
        if self.default_model:
            more.append(f"Unless another model is named, {self.default_model} is asked.")
        else:
            more.append("No model of it is usual: one has to be named.")
        if self.found:
            more.append(f"A key is there already: {self.found}.")
        return tuple(more)


def providers() -> tuple[str, ...]:
    """The names of all that can be set up, in the catalog's order: those that talk, each account once."""
    return tuple([
        row.name for row in catalog.load().providers.values() if not row.key_of and row.transport == "http"
    ])  # fmt: skip


def guidance(name: str, env: Mapping[str, str] | None = None) -> Guidance:
    """How to set up a provider; UnknownProviderError, with the nearest name, for one that there is not.

    >>> guidance("openai", {}).variables
    ('OPENAI_API_KEY',)
    """
    if not isinstance(name, str):
        raise named(InputError(f"provider is a name, not {type(name).__name__}", hint='such as "openai"'))
    with speaking():
        settings = config.current()
        row = catalog.load().with_overrides(settings.providers, settings.origins).provider(name.strip().lower())
    found = find_key(row, env=os.environ if env is None else env) if row.needs_key else None
    return Guidance(
        provider=row.name,
        title=row.title or row.name,
        needs_key=row.needs_key,
        local=row.local,
        keys_at=row.docs,
        variables=_variables(row),
        default_model=row.default_model,
        base_url=row.base_url,
        needs=tuple([variables[0] for variables in row.needs.values() if variables]),
        found=None if found is None else f"{found.source} ({found.secret.fingerprint})",
    )


def _variables(row: Provider) -> tuple[str, ...]:
    return row.key_env or row.key_parts
