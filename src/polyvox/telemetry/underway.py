"""Calls that are under way: what an observer remembers of each from its start to its end. It knows no convention."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from polyvox.telemetry.forks import watch_forks

MOST = 10_000
"""Calls that are remembered. One more lets go of the oldest, so that calls whose end is never told cannot fill the
memory."""

HeldT = TypeVar("HeldT")


class Underway(Generic[HeldT]):
    """What is held of each call, found again by the call's id. Any thread may use it: each step is one operation of a
    dict with texts for keys, which no other thread can come between."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """In a child: the calls under way are the parent's."""
        self._held: OrderedDict[str, HeldT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, call: str, held: HeldT) -> HeldT | None:
        """Remember something of a call that begins; gives what is let go of for it, if anything."""
        self._held[call] = held
        if len(self._held) <= self._most:
            return None
        try:
            return self._held.popitem(last=False)[1]
        except KeyError:  # meanwhile all of them ended
            return None

    def pop(self, call: str) -> HeldT | None:
        """What is held of a call that has ended; None of one that never began here."""
        return self._held.pop(call, None)
