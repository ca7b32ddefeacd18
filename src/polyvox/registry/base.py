"""What every registry of deployments can do, and the one way in which all of them choose. Where entries come from is
the business of each."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from polyvox import config
from polyvox.config import Settings
from polyvox.registry.reach import thrift, usable, why_not_local
from polyvox.registry.rows import Rows
from polyvox.registry.values import LOCAL, Entry, tier_word


@runtime_checkable
class Registry(Protocol):
    """Deployments by name and by tier. A change acts on the next call: every question is answered by the newest
    state, whole. Usable from any thread."""

    @property
    def version(self) -> object:
        """Another object than before as soon as the contents are others; what was made from them is then out of date.
        Cheap: it is read with every call."""

    @property
    def problem(self) -> str | None:
        """Why the newest state could not be read, or not all of it; None when all is well. What held before goes
        on."""

    @property
    def asks(self) -> bool:
        """Whether `refresh` asks another machine; elsewhere `version` sees every change by itself."""

    async def refresh(self) -> object:
        """Ask for the newest state; the version. Raises nothing, and takes at most half a second."""

    def get_by_tier(self, tier: str) -> Entry | None:
        """The active entry for a tier: of those that have a key the one of the smallest priority number, then the
        first; for economy, where priorities are equal, the cheapest whose model is current. Where none has a key the
        choice is the same, so that the call's error says what is missing. None for a tier without entries, which for
        local includes entries that are no longer on this machine."""

    def get_by_name(self, name: str) -> Entry | None:
        """The active entry of this name or alias, or None."""

    def list_active(self) -> tuple[Entry, ...]:
        """All active entries, always in the same order."""

    def get_default(self) -> Entry | None:
        """Who answers where nobody says: of the active entries the first with default=True, else the one for the tier
        standard, else the first with a key that is not in the tier local; None where there is no such entry."""


class Asked:
    """The questions of `Registry`, answered from `rows`; settings None means those of this process at each moment."""

    asks = False
    _problem: str | None = None

    def __init__(self, settings: Settings | None = None) -> None:
        self._fixed = settings

    def __repr__(self) -> str:
        """What kind it is; its contents may be anything."""
        return f"{type(self).__name__}()"

    @property
    def rows(self) -> Rows:
        """The newest state."""
        raise NotImplementedError

    @property
    def version(self) -> Rows:
        """See `Registry.version`."""
        return self.rows

    @property
    def problem(self) -> str | None:
        """See `Registry.problem`."""
        self.rows  # noqa: B018 - it looks for what is new
        return self._problem

    async def refresh(self) -> Rows:
        """See `Registry.refresh`."""
        return self.rows

    def settings(self) -> Settings:
        """The settings that say where entries lead."""
        return self._fixed or config.current()

    def list_active(self) -> tuple[Entry, ...]:
        """See `Registry.list_active`."""
        return self.rows.active

    def list_all(self) -> tuple[Entry, ...]:
        """All entries, those that are not active too."""
        return self.rows.entries

    def get_by_name(self, name: str) -> Entry | None:
        """See `Registry.get_by_name`."""
        return self.rows.get(name)

    def get_by_tier(self, tier: str) -> Entry | None:
        """See `Registry.get_by_tier`."""
        return self._of_tier(self.rows, tier_word(tier))

    def get_default(self) -> Entry | None:
        """See `Registry.get_default`."""
        rows = self.rows
        default = next((entry for entry in rows.active if entry.default), None)
        chosen = default or self._of_tier(rows, "standard")
        if chosen is not None:
            return chosen
        # A local server that nobody named may not even run.
        return self._first([entry for entry in rows.active if entry.tier != LOCAL])

    def _of_tier(self, rows: Rows, tier: str) -> Entry | None:
        found = list(rows.tiers.get(tier, ()))
        if tier == LOCAL:
            found = [entry for entry in found if why_not_local(entry, self.settings()) is None]
        return self._first(found, cheap=tier == "economy")

    def _first(self, entries: list[Entry], *, cheap: bool = False) -> Entry | None:
        if len(entries) < 2:
            return entries[0] if entries else None
        settings = self.settings()
        keyed: dict[tuple[str | None, ...], bool] = {}  # where a key lies is looked up once for all who share it

        def rank(entry: Entry) -> tuple[bool, int]:
            place = (entry.model, entry.base_url, entry.api_key_env, entry.api_key_of)
            if entry.api_key is None and place not in keyed:
                keyed[place] = usable(entry, settings)
            return entry.api_key is None and not keyed[place], entry.priority

        ranks = [rank(entry) for entry in entries]
        best = min(ranks)
        equal = [entry for entry, its in zip(entries, ranks, strict=True) if its == best]
        return min(equal, key=lambda entry: thrift(entry, settings)) if cheap and len(equal) > 1 else equal[0]
