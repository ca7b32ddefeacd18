"""What encoding one request or answer carries along: where it goes, and what it could not say so far.
It knows no block."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from polyvox.dialects import Endpoint
from polyvox.dialects.bedrock.facts import CACHE_TTLS, NAME
from polyvox.dialects.bound import weight
from polyvox.types import CacheHint, Extra, Loss

Block: TypeAlias = dict[str, Any]


class Scope:
    """One encoding: its endpoint, its losses, and how many documents it has named."""

    def __init__(self, at: Endpoint) -> None:
        self.at = at
        self.losses: list[Loss] = []
        self.documents = 0

    def lose(self, field: str, why: str, severity: Literal["note", "loss"] = "loss") -> None:
        """Record something that could not be said."""
        self.losses.append(Loss(field, why, severity))

    def own(self, extra: Extra, field: str) -> Block:
        """The keys that are this dialect's own; those of others are noted as lost."""
        if not extra:
            return {}
        for dialect, keys in extra.items():
            if dialect != NAME:
                self.lose(at_field(field, f"extra.{dialect}"), f"these keys belong to {dialect}", weight(dialect, keys))
        return extra.get(NAME, {})

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


def at_field(field: str, name: str) -> str:
    """The path of a name within a field; "" is the request itself."""
    return f"{field}.{name}" if field else name


def joined(first: Block, second: Block) -> Block:
    """Both objects in one, objects under one key joined too; else the second wins."""
    both = dict(first)
    for key, value in second.items():
        known = both.get(key)
        both[key] = joined(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return both
