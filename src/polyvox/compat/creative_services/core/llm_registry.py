"""The tiers of creative_services, and its registries, which are loaded on first touch: they are the core's, and those
made here are seen through all four interfaces."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from polyvox.compat.errors import named
from polyvox.errors import InputError

if TYPE_CHECKING:
    from polyvox.compat.creative_services.core.registries import DictRegistry as DictRegistry
    from polyvox.compat.creative_services.core.registries import LLMRegistry as LLMRegistry
    from polyvox.compat.creative_services.core.registries import entry_of as entry_of
    from polyvox.compat.creative_services.core.registries import whatever_there_is as whatever_there_is

__all__ = ["DictRegistry", "LLMRegistry", "LLMTier", "entry_of", "tier_of", "whatever_there_is"]


class LLMTier(StrEnum):
    """How good, and how dear; `use_case` says what each is for."""

    ECONOMY = "economy"
    STANDARD = "standard"
    PREMIUM = "premium"
    LOCAL = "local"

    @classmethod
    def _missing_(cls, value: object) -> LLMTier:
        """A member by its word in any case; InputError, which lists them, for what is none."""
        return cls(tier_of(value))

    @property
    def use_case(self) -> str:
        """What the tier is for, for people."""
        from polyvox.registry import TIERS

        return TIERS[self.value]

    description = use_case


def tier_of(tier: object, more: Iterable[str | None] = ()) -> str:
    """A tier as the core has it: one of LLMTier in any case, or one of more. InputError, which lists what there is, for
    any other."""
    word = tier.strip().lower() if isinstance(tier, str) else ""
    known = dict.fromkeys([*(each.value for each in LLMTier), *filter(None, more)])
    if word in known:
        return word
    raise named(InputError(f"there is no tier {tier!r}", param="tier", hint=f"tiers are {', '.join(known)}"))


def __getattr__(name: str) -> Any:
    """Load what stands in `registries` on first touch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from polyvox.compat.creative_services.core import registries

    value = globals()[name] = getattr(registries, name)
    return value


def __dir__() -> list[str]:
    return [*__all__]
