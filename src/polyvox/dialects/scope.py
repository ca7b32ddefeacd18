"""What writing one request or answer carries along: where it goes, and what it could not say so far. Each dialect has
its own, with what else it must remember; none knows how anything is written."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from polyvox.dialects import Endpoint
from polyvox.dialects.bound import weight
from polyvox.types import Extra, Loss


class Scope:
    """The endpoint, and the losses; `NAME` is the dialect's."""

    __slots__ = ("at", "losses")
    NAME: ClassVar[str]

    def __init__(self, at: Endpoint) -> None:
        self.at: Endpoint = at
        self.losses: list[Loss] = []

    def lose(self, field: str, why: str, severity: Literal["note", "loss"] = "loss") -> None:
        """Record something that could not be said."""
        self.losses.append(Loss(field, why, severity))

    def own(self, extra: Extra, field: str) -> dict[str, Any]:
        """The keys that are this dialect's own; those of others are noted as lost. field "" is the whole itself."""
        if not extra:
            return {}
        for other, keys in extra.items():
            if other != self.NAME:
                self.lose(at_field(field, f"extra.{other}"), f"these keys belong to {other}", weight(other, keys))
        return extra.get(self.NAME, {})

    def is_foreign(self, origin: str | None) -> bool:
        """Whether state of this origin means nothing to the endpoint."""
        return origin is not None and origin != self.at.origin

    def may_tell(self, origin: str | None) -> bool:
        """Whether what is bound to this origin is told where this goes."""
        return not self.is_foreign(origin)


class Answering:
    """Before a scope among the bases, for an answer: each loss is told once, however many pieces bring it, and what is
    bound to somebody is the client's to keep and send back."""

    __slots__ = ()
    losses: list[Loss]

    def lose(self, field: str, why: str, severity: Literal["note", "loss"] = "loss") -> None:
        """Record something that could not be said, unless it is there."""
        loss = Loss(field, why, severity)
        if loss not in self.losses:
            self.losses.append(loss)

    def may_tell(self, origin: str | None) -> bool:
        """Always."""
        return True


def at_field(field: str, name: str) -> str:
    """The path of a name within a field; "" is the whole itself."""
    return f"{field}.{name}" if field else name
