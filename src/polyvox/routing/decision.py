"""The record of how a call chose whom to ask: who could have been, how they compared, who was left out and why. It
remembers while the call chooses and writes nothing down until somebody looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from polyvox.routing.affinity import FREE, Pins
from polyvox.routing.after import Next
from polyvox.routing.pick import Order
from polyvox.routing.tiers import Scored
from polyvox.types import Value


class Considered(Value, frozen=True):
    """One candidate of a call.

    score is what its strategy compared, the lowest best; None where nothing was or nobody knows. skipped says why it
    was not asked when its turn came; asked counts from 1, None where it was not asked.
    """

    name: str
    priority: int = 0
    weight: float = 1.0
    score: float | None = None
    skipped: str | None = None
    asked: int | None = None


class Decision(Value, frozen=True):
    """How a call chose. What is said of its candidates stands in columns, one place for each: every call makes such a
    record, and few are looked at.

    Attributes:
        named: what the caller named: a name, a pattern or a tier; None where nothing.
        strategy: how candidates of one priority were compared.
        tier, points, reasons: the tier that was asked for or found, and what led to it where it was found.
        bound: the deployments that alone could serve the request; rather, those that were asked first.
        sticky: whether calls that begin as this one does meet the same deployment.
        names, priorities, weights: of the candidates, in the order of the registry.
        scores: what the strategy compared; empty where nothing was, None where nobody knows.
        tries: the name of whoever was asked, for each attempt.
        left_out: why some were not asked when their turn came, by name.
        unusable: those that cannot be asked at all, such as for want of a key.
        steps: what followed each failed attempt: "after server at a: elsewhere".
    """

    named: str | None = None
    strategy: str = "weighted"
    tier: str | None = None
    points: int | None = None
    reasons: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    rather: tuple[str, ...] = ()
    sticky: bool = False
    names: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()
    tries: tuple[str, ...] = ()
    left_out: Mapping[str, str] = {}
    unusable: tuple[Considered, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[Considered, ...]:
        """All of them, in the order of the registry; behind them those that cannot be asked at all."""
        scores = self.scores or (None,) * len(self.names)
        asked = {name: turn for turn, name in reversed([*enumerate(self.tries, 1)])}
        found = [
            Considered(
                name, priority, weight, score, None if name in asked else self.left_out.get(name), asked.get(name)
            )
            for name, priority, weight, score in zip(self.names, self.priorities, self.weights, scores, strict=True)
        ]
        return (*found, *self.unusable)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of those that were asked, the latest last."""
        return tuple(dict.fromkeys(self.tries))

    @property
    def skipped(self) -> dict[str, str]:
        """Why each of those that were left out was."""
        return {one.name: one.skipped for one in self.candidates if one.skipped is not None}

    def describe(self) -> dict[str, Any]:
        """The decision as plain JSON values; what does not need saying is left out."""
        said: dict[str, Any] = {
            "named": self.named,
            "strategy": self.strategy,
            "tier": self.tier,
            "points": self.points,
            "reasons": list(self.reasons),
            "bound": list(self.bound),
            "rather": list(self.rather),
            "sticky": self.sticky,
            "asked": list(self.asked),
            "candidates": [_described(one) for one in self.candidates],
            "steps": list(self.steps),
        }
        return {key: value for key, value in said.items() if value not in (None, [], False)}


def _described(one: Considered) -> dict[str, Any]:
    said: dict[str, Any] = {"name": one.name, "priority": one.priority, "weight": one.weight}
    said |= {key: value for key in ("score", "skipped", "asked") if (value := getattr(one, key)) is not None}
    return said


class Deciding:
    """What a call has decided so far: whoever takes candidates from an `Order` says here what becomes of each.

    named, tier, scored and pins are what led to the order, for the record; a tier that was found is that of scored.
    unusable are those that are not in the order, each with why.
    """

    __slots__ = ("_asked", "_named", "_order", "_pins", "_scored", "_skipped", "_steps", "_tier", "_unusable")

    def __init__(
        self,
        order: Order,
        *,
        named: str | None = None,
        tier: str | None = None,
        scored: Scored | None = None,
        pins: Pins = FREE,
        unusable: tuple[Considered, ...] = (),
    ) -> None:
        self._order = order
        self._unusable = unusable
        self._named = named
        self._tier = tier
        self._scored = scored
        self._pins = pins
        self._asked: list[int] = []
        self._skipped: dict[int, str] | None = None
        self._steps: list[tuple[int, str, Next | None]] | None = None

    def skip(self, place: int, why: str) -> None:
        """A candidate was left out when its turn came."""
        if self._skipped is None:
            self._skipped = {}
        self._skipped[place] = why

    def ask(self, place: int) -> None:
        """A candidate is asked."""
        self._asked.append(place)

    def then(self, kind: str, what: Next | None, place: int | None = None) -> None:
        """The one that was asked last, or the one at a place, failed with an error of this kind, and this follows."""
        if self._steps is None:
            self._steps = []
        self._steps.append((self._asked[-1] if place is None else place, kind, what))

    @property
    def decision(self) -> Decision:
        """The record of it, made now."""
        order, scored, pins = self._order, self._scored, self._pins
        candidates = order.candidates
        return Decision(
            self._named,
            order.strategy.name,
            self._tier if scored is None else scored.tier,
            None if scored is None else scored.points,
            () if scored is None else scored.reasons,
            pins.only,
            pins.rather,
            order.key is not None,
            candidates.names,
            candidates.priorities,
            candidates.weights,
            self._scores() if order.scores else (),
            tuple(map(candidates.names.__getitem__, self._asked)),
            self._left_out() if self._skipped or order.only is not None else {},
            self._unusable,
            tuple([self._step(*step) for step in self._steps]) if self._steps else (),
        )

    def describe(self) -> dict[str, Any]:
        """See `Decision.describe`."""
        return self.decision.describe()

    def __repr__(self) -> str:
        return repr(self.decision)

    def _scores(self) -> tuple[float | None, ...]:
        order = self._order
        found: list[float | None] = [None] * len(order.candidates)
        if len(order.candidates.groups) == 1 and (scores := order.scores.get(0)) and max(scores) < math.inf:
            return tuple(scores)  # as nearly always
        for number, scores in order.scores.items():
            if scores is not None:
                for place, score in zip(order.candidates.groups[number].places, scores, strict=True):
                    found[place] = score if score < math.inf else None
        return tuple(found)

    def _left_out(self) -> dict[str, str]:
        order, names = self._order, self._order.candidates.names
        found = {}
        if order.only is not None:
            bound = "does not keep what the request names"
            found = {name: bound for place, name in enumerate(names) if place not in order.only}
        if self._skipped:
            found |= {names[place]: why for place, why in self._skipped.items()}
        return found

    def _step(self, place: int, kind: str, what: Next | None) -> str:
        """What followed a failure, in words."""
        before = f"after {kind} at {self._order.candidates.names[place]}: "
        if what is None:
            return before + "stop"
        return before + (f"again in {what.wait:.2f} s" if what.here else "elsewhere")
