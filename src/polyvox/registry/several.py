"""Several registries as one: whoever comes first says what a name means. It holds no entries of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from polyvox.config import Settings
from polyvox.errors import InputError
from polyvox.registry.base import Asked, Registry
from polyvox.registry.rows import Rows
from polyvox.registry.values import Entry


class Registries(Asked):
    """Registries in the order in which they are believed, usually: arguments, a table, the environment, files. An
    entry hides those of its name in later ones, also when it is not active; entries stay in the order of their
    registries.

    >>> from polyvox.registry import DictRegistry
    >>> own = DictRegistry({"fast": {"model": "demo"}})
    >>> both = Registries(own, DictRegistry({"fast": {"model": "other/model"}, "slow": {"model": "demo"}}))
    >>> [(entry.name, entry.model) for entry in both.list_active()]
    [('fast', 'demo'), ('slow', 'demo')]
    """

    def __init__(self, *sources: Registry, settings: Settings | None = None) -> None:
        super().__init__(settings)
        for source in sources:
            if not isinstance(source, Registry):
                raise InputError(f"{type(source).__name__} is no registry", hint="see polyvox.registry.Registry")
        self.sources = sources
        self.asks: bool = any(source.asks for source in sources)
        self._lock = threading.Lock()
        self._held: tuple[tuple[object, ...], Rows] = ((), Rows())

    def __repr__(self) -> str:
        """Which ones."""
        return f"Registries({', '.join(map(repr, self.sources))})"

    @property
    def rows(self) -> Rows:
        """The newest state."""
        versions = tuple([source.version for source in self.sources])
        held = self._held
        if versions != held[0]:
            with self._lock:
                held = self._held
                if versions != held[0]:
                    merged = _merged(self.sources, versions)
                    held = self._held = (versions, held[1].followed_by(merged))
        return held[1]

    @property
    def problem(self) -> str | None:
        """The problems of all."""
        return "; ".join(problem for source in self.sources if (problem := source.problem)) or None

    async def refresh(self) -> Rows:
        """See `Registry.refresh`."""
        if self.asks:
            await asyncio.gather(*(source.refresh() for source in self.sources if source.asks))
        return self.rows


def _merged(sources: Sequence[Registry], versions: Sequence[object]) -> tuple[Entry, ...]:
    found: dict[str, Entry] = {}
    for source, version in zip(sources, versions, strict=True):
        # A version of ours is the contents themselves, so what was compared is what is read.
        entries = version.entries if isinstance(version, Rows) else source.list_active()
        for entry in entries:
            found.setdefault(entry.name, entry)
    return tuple(found.values())
