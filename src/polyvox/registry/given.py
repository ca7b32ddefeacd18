"""A registry that a program fills itself, from arguments or from the keys in the environment, and changes while it
runs."""

from __future__ import annotations

import functools
import os
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from polyvox import catalog
from polyvox.catalog import Provider
from polyvox.config import Settings
from polyvox.errors import InputError
from polyvox.keys import Secret, key_of_parts
from polyvox.registry.base import Asked
from polyvox.registry.rows import Rows
from polyvox.registry.tables import read, refuse
from polyvox.registry.values import LOCAL, Entry, nearly

_DATA = Path(__file__).parent.parent / "data" / "tiers.toml"


class DictRegistry(Asked):
    """Deployments by name, in the order in which they were given: entries, or tables of settings by name. A change
    acts on the next call; whoever reads meanwhile has the old state or the new one.

    ConfigError for entries that cannot work, with all that is wrong; nothing is changed then.

    >>> registry = DictRegistry({"fast": {"model": "demo", "tier": "economy"}})
    >>> registry.add(Entry("good", "demo", tier="premium", default=True))
    >>> registry.get_by_tier("economy").name, registry.get_default().name
    ('fast', 'good')
    """

    def __init__(
        self, entries: Iterable[Entry] | Mapping[str, Mapping[str, Any]] = (), *, settings: Settings | None = None
    ) -> None:
        super().__init__(settings)
        self._lock = threading.Lock()
        if isinstance(entries, Mapping):
            entries = read(entries, lambda _: "argument", self.settings())
        self._rows = Rows()
        self._replace([_entry(each) for each in entries])

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, settings: Settings | None = None) -> Self:
        """Deployments at the providers whose keys are in the environment: one for each tier for which data/tiers.toml
        names a model, named "PROVIDER-TIER"; of other providers the default model, for the tier standard. Providers
        are in the order of the catalog, so a tier is the first one's whose key is there; economy is the cheapest's.
        The tier local is always there, and needs its server to run. POLYVOX_ settings of single deployments do not
        exist; a file has those.

        >>> [entry.name for entry in DictRegistry.from_env({}).list_active()]
        ['ollama-local']
        """
        return cls(_from_env(os.environ if env is None else env, given=env is not None), settings=settings)

    @property
    def rows(self) -> Rows:
        """The newest state."""
        return self._rows

    def add(self, entry: Entry) -> None:
        """Add an entry at the end. ConfigError where its name is taken."""
        with self._lock:
            self._replace([*self._rows.entries, _entry(entry)])

    def update(self, name: str, /, **changes: Any) -> Entry:
        """Change fields of an entry, which keeps its place; the changed one. InputError for a name or field that is
        not there."""
        unknown = changes.keys() - {field.name for field in msgspec.structs.fields(Entry)}
        if unknown:
            raise InputError(f"a deployment has no {min(unknown)!r}", hint="see polyvox.registry.Entry for its fields")
        with self._lock:
            old = self._named(name)
            new = msgspec.structs.replace(old, **changes)
            self._replace([new if entry is old else entry for entry in self._rows.entries])
            return new

    def remove(self, name: str) -> bool:
        """Forget an entry; False where there is none of this name."""
        with self._lock:
            left = tuple([entry for entry in self._rows.entries if entry.name != name])
            there = len(left) < len(self._rows.entries)
            if there:
                self._rows = Rows(left)
            return there

    def _named(self, name: str) -> Entry:
        for entry in self._rows.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self._rows.entries) or "none"
        near = nearly(str(name), [entry.name for entry in self._rows.entries])
        raise InputError(f"there is no deployment {name!r}", hint=f"{near}there are: {names}")

    def _replace(self, entries: list[Entry]) -> None:
        refuse(entries, self.settings())
        self._rows = self._rows.followed_by(tuple(entries))


def _entry(value: Any) -> Entry:
    if not isinstance(value, Entry):
        raise InputError(f"a deployment is an Entry, not {type(value).__name__}", hint="see polyvox.registry.Entry")
    return value


# ---- from the environment ---------------------------------------------------------------------


@functools.cache
def _tiers() -> dict[str, dict[str, str]]:
    return tomllib.loads(_DATA.read_text(encoding="utf-8"))


def _from_env(env: Mapping[str, str], *, given: bool) -> Iterator[Entry]:
    for row in catalog.load().providers.values():
        models = _tiers().get(row.name) or ({"standard": row.default_model} if row.default_model else {})
        variable, key = _key(row, env)
        for tier, model in models.items():
            if tier == LOCAL:
                yield Entry(f"{row.name}-{tier}", f"{row.name}/{model}", tier=tier, origin="catalog")
            elif key is not None and row.needs_key:
                # The key of an environment that is not this process's own is found nowhere else.
                own = key if given else None
                name = f"{row.name}-{tier}"
                yield Entry(name, f"{row.name}/{model}", tier=tier, api_key=own, origin=f"env {variable}")


def _key(row: Provider, env: Mapping[str, str]) -> tuple[str, Secret | None]:
    for name in row.key_env:
        if env.get(name, "").strip():
            return name, Secret(env[name].strip())
    parts = key_of_parts(row.key_parts, env)
    return (row.key_parts[0], parts.secret) if parts else ("", None)
