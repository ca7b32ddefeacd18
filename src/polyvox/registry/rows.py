"""All entries of a registry at one moment: a value, which whoever asks has whole. It reads nothing."""

from __future__ import annotations

from collections.abc import Iterable

from polyvox.registry.values import Entry


class Rows:
    """Entries in their order, never changed. Two are the same only if they are the same object."""

    __slots__ = ("_names", "active", "entries", "tiers")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: tuple[Entry, ...] = tuple(entries)
        self.active: tuple[Entry, ...] = tuple([entry for entry in self.entries if entry.active])
        tiers: dict[str, list[Entry]] = {}
        names: dict[str, Entry] = {}
        for entry in self.active:
            names.setdefault(entry.name, entry)
            if entry.tier is not None:
                tiers.setdefault(entry.tier, []).append(entry)
        for entry in self.active:  # a name goes before all aliases
            for alias in entry.aliases:
                names.setdefault(alias, entry)
        self.tiers: dict[str, tuple[Entry, ...]] = {tier: tuple(found) for tier, found in tiers.items()}
        self._names = names

    def __repr__(self) -> str:
        """How many there are."""
        return f"Rows({len(self.entries)} entries, {len(self.active)} active)"

    def get(self, name: str) -> Entry | None:
        """The active entry of a name or an alias."""
        return self._names.get(name)

    def followed_by(self, entries: tuple[Entry, ...]) -> Rows:
        """Rows with these entries: this very object where they are the same, so that nothing is made anew for them."""
        return self if entries == self.entries else Rows(entries)
