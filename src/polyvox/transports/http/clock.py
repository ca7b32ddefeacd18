"""Deadlines of exchanges: one timer for all of an event loop. It decides nothing but when time is up."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from polyvox.errors import CallTimeoutError
from polyvox.transports import Timeouts

if TYPE_CHECKING:
    from aiohttp import ClientResponse

# aiohttp tells nobody when it gives up on a body whose chunks are malformed; so we look.
LOOK_SECONDS = 0.5


class Clock:
    """The one timer of an event loop's exchanges: it fires at the nearest of their deadlines, looks at all of
    them, and goes back to sleep. Deadlines that move on never touch it."""

    __slots__ = ("_armed", "_handle", "_watches", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._watches: dict[Watch, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed = math.inf

    def add(self, watch: Watch) -> None:
        """Look at this watch from now on, whenever one is due."""
        self._watches[watch] = None

    def expect(self, when: float) -> None:
        """Somebody is due at this time."""
        if when < self._armed:
            if self._handle is not None:
                self._handle.cancel()
            self._armed = when
            self._handle = self.loop.call_at(when, self._fire)

    def forget(self, watch: Watch) -> None:
        """Its exchange is over."""
        self._watches.pop(watch, None)

    def stop(self) -> None:
        """Nothing will come any more."""
        self._watches.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle, self._armed = None, math.inf
        for watch in list(self._watches):
            due = watch.look()
            self.expect(due)


class Watch:
    """The deadline of an exchange. Before the head it cancels the task that waits; after it, it breaks
    the body.
    """

    __slots__ = ("_clock", "_deadline", "_task", "cancels", "expired", "limits", "phase", "reply")

    def __init__(self, clock: Clock, limits: Timeouts) -> None:
        self._clock = clock
        self.limits: Timeouts = limits
        self.phase: str = "connect"
        self.expired: bool = False
        self.reply: ClientResponse | None = None
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self.cancels: int = self._task.cancelling() if self._task else 0
        self._deadline = math.inf
        clock.add(self)
        self._move(limits.connect)

    def connected(self) -> None:
        """The connection is there and the request is going out."""
        self.phase = "first byte"
        self._move(self.limits.first_byte)

    def wait_for_more(self, reply: ClientResponse) -> None:
        """Somebody waits for the body now."""
        self.phase = "idle"
        self.reply = reply
        self._move(self.limits.idle)

    def rest(self) -> None:
        """Nobody waits: time may pass."""
        self._deadline = math.inf

    def stop(self) -> None:
        """No more deadlines."""
        self._deadline = math.inf
        self._task = self.reply = None
        self._clock.forget(self)

    def own_cancel(self) -> bool:
        """Whether a cancellation was this deadline's alone; takes it back."""
        return self.expired and self._task is not None and self._task.uncancel() <= self.cancels

    def _move(self, seconds: float | None) -> None:
        now = self._clock.loop.time()
        self._deadline = math.inf if seconds is None else now + seconds
        self._clock.expect(self._deadline if self.reply is None else min(self._deadline, now + LOOK_SECONDS))

    def look(self) -> float:
        """Act if the time has come; when to look again, or never."""
        if self._deadline == math.inf and self.reply is None:
            return math.inf
        now = self._clock.loop.time()
        connection = self.reply and self.reply.connection
        if self.reply is not None and connection and connection.transport is None and not self.reply.content.is_eof():
            self.reply.content.set_exception(ConnectionError("it is not framed as HTTP says"))
        elif self._deadline > now + 0.002:  # clocks of event loops are coarse to about 1 ms
            return self._deadline if self.reply is None else min(self._deadline, now + LOOK_SECONDS)
        else:
            self.expired = True
            if self.reply is not None:
                self.reply.content.set_exception(TimeoutError())
            elif self._task is not None:
                self._task.cancel()
        return math.inf

    def error(self, where: str) -> CallTimeoutError:
        """What to tell the caller when time ran out."""
        text, seconds = {
            "connect": (f"connect: no connection to {where}", self.limits.connect),
            "first byte": (f"first byte: no answer from {where}", self.limits.first_byte),
            "idle": (f"idle: nothing more came from {where}", self.limits.idle),
        }[self.phase]
        return CallTimeoutError(f"{text} within {seconds:g} s", sent="no" if self.phase == "connect" else "yes")


WATCH: ContextVar[Watch] = ContextVar("polyvox_http_watch")
