"""Time limits of many calls on one timer. It knows of a call only when it must end, and how to tell it."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol


class Ends(Protocol):
    """Something that has to end by a time of its event loop's clock."""

    deadline: float

    def expire(self) -> None:
        """The deadline has come."""


class Deadlines:
    """Ends the calls of one event loop that run out of time. One timer serves them all, because a timer
    each costs more than the rest of the engine; calls of equal length end in the order they began."""

    __slots__ = ("_armed", "_by_length", "_handle", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._by_length: dict[float, dict[Ends, None]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed = math.inf

    def add(self, call: Ends, length: float) -> None:
        """Watch a call whose deadline is `length` seconds from now."""
        waiting = self._by_length.get(length)
        if waiting is None:
            waiting = self._by_length[length] = {}
        waiting[call] = None
        if call.deadline < self._armed:
            self._arm(call.deadline)

    def drop(self, call: Ends, length: float) -> None:
        """The call is over."""
        waiting = self._by_length.get(length)
        if waiting is not None and waiting.pop(call, self) is None and not waiting and len(self._by_length) > 1:
            del self._by_length[length]

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = when
        self._handle = self.loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle, self._armed = None, math.inf
        now, nearest = self.loop.time(), math.inf
        for length, waiting in list(self._by_length.items()):
            for call in list(waiting):
                if call.deadline > now + 0.002:  # clocks of event loops are coarse to about 1 ms
                    nearest = min(nearest, call.deadline)
                    break
                self.drop(call, length)
                call.expire()
        if nearest < math.inf:
            self._arm(nearest)
