"""What encoding one request or answer carries along: where it goes, and what it could not say so far.
It knows no block."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from polyvox.dialects import Endpoint
from polyvox.dialects.bedrock.facts import CACHE_TTLS, NAME
from polyvox.dialects.scope import Scope as BaseScope
from polyvox.dialects.scope import at_field
from polyvox.types import CacheHint

Block: TypeAlias = dict[str, Any]


class Scope(BaseScope):
    """One encoding: its endpoint, its losses, and how many documents it has named."""

    __slots__ = ("documents",)
    NAME: ClassVar[str] = NAME

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self.documents: int = 0

    def cache(self, hint: CacheHint | None, field: str) -> list[Block]:
        """A cache hint as the block that stands behind its part; none without one."""
        if hint is None:
            return []
        point: Block = {"type": "default"}
        if hint.ttl in CACHE_TTLS:
            point["ttl"] = hint.ttl
        elif hint.ttl is not None:
            self.lose(at_field(field, "cache"), f"cached for 5m or 1h, not {hint.ttl}: the default is used", "note")
        return [{"cachePoint": {**point, **self.own(hint.extra, at_field(field, "cache"))}}]


def joined(first: Block, second: Block) -> Block:
    """Both objects in one, objects under one key joined too; else the second wins."""
    both = dict(first)
    for key, value in second.items():
        known = both.get(key)
        both[key] = joined(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return both
