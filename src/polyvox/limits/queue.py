"""Calls that wait for room, in a fair order: tenants in turn, and each one's calls as they came. Whoever's turn it is
asks for room itself, so that none is lost where a call goes away; the queue knows no limits. It lives in one event
loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

from polyvox.errors import RateLimitError, UsageError
from polyvox.limits.values import Full

T = TypeVar("T")

MOST = 1000
_RECENT = 60.0
_SHORTEST = 0.001
"""Seconds: clocks are no finer, and room that is due by then is there."""
_HINT = "send fewer calls at a time, spread them over several deployments, or raise the limits where they are yours"


class _Waiter:
    __slots__ = ("full", "future", "late", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.full: Full | None = None
        self.future: asyncio.Future[None] | None = None
        self.late = False

    def wake(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)

    def expire(self) -> None:
        self.late = True
        self.wake()


class FairQueue:
    """most is how many calls may wait. clock gives seconds; by default it is the event loop's.

    A queue is for calls that wait for the same room, such as that of one pool: the first one holds up the others, so
    that no large call starves beside small ones.
    """

    def __init__(self, most: int = MOST, *, clock: Callable[[], float] | None = None) -> None:
        self.most = most
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tenants: dict[str, dict[_Waiter, None]] = {}
        """In the order of their turns; none is here of whom nobody waits."""
        self._size = 0
        self._turn: _Waiter | None = None
        self._again = False
        self._timer: asyncio.TimerHandle | None = None
        self._full: Full | None = None
        self._due: float | None = None
        self._served, self._pace = -math.inf, 0.0

    def __len__(self) -> int:
        """How many wait."""
        return self._size

    async def wait(
        self, take: Callable[[], T | Full | Awaitable[T | Full]], *, tenant: str = "", deadline: float = math.inf
    ) -> T:
        """What take gives, when it gives something else than `Full`. It is called when it is this call's turn, and
        again when there may be room; deadline is by the clock.

        RateLimitError of this side where the queue is full, and where there is no room before the deadline, which is
        said as soon as it is known; retry_after is when there could be some, if anything says so.
        """
        waiter = self._enter(tenant)
        timer, served = None, False
        try:
            while True:
                if self._turn is None and self._first() is waiter and waiter.full is None:
                    self._turn = waiter
                if self._turn is not waiter:
                    if timer is None and deadline < math.inf:
                        timer = self._later(deadline - self._now(), waiter.expire)
                    await self._sleep(waiter)
                if self._turn is waiter:
                    got = await self._ask(waiter, take)
                    if not isinstance(got, Full):
                        served = True
                        return got
                    if self._again and not waiter.late and self._now() < deadline:
                        continue
                    self._pause(waiter, got, deadline)
                if waiter.late or self._now() >= deadline:
                    raise self.refusal("there was no room in time")
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(waiter, served)

    def wake(self) -> None:
        """There may be room: something was given back. In the thread of the event loop."""
        if self._turn is not None:
            self._again = True
        elif self._size:
            self._turn = self._first()
            self._turn.wake()

    def wake_soon(self) -> None:
        """The same from any thread. RuntimeError where the event loop is closed."""
        # Who waits is counted before it asks for room, so there is nobody here whom this would pass over.
        if self._size and self._loop is not None:
            # Never here and now: a lease that was left behind may be found in the middle of anything.
            if asyncio._get_running_loop() is self._loop:
                self._loop.call_soon(self.wake)
            else:
                self._loop.call_soon_threadsafe(self.wake)

    # ---- one who waits ------------------------------------------------------------------------

    def _enter(self, tenant: str) -> _Waiter:
        loop = asyncio.get_running_loop()
        if self._size and loop is not self._loop:
            raise UsageError("calls of another event loop wait in this queue", hint="give each event loop a queue")
        self._loop = loop
        if self._size >= self.most:
            raise self.refusal(f"{self._size} calls wait for room already, which is as many as may")
        waiter = _Waiter(tenant)
        self._tenants.setdefault(tenant, {})[waiter] = None
        self._size += 1
        return waiter

    async def _ask(self, waiter: _Waiter, take: Callable[[], T | Full | Awaitable[T | Full]]) -> T | Full:
        got = take()
        # What came back while it asked, without waiting, came from itself.
        self._again = False
        if isawaitable(got):
            return await got
        return got

    def _pause(self, waiter: _Waiter, full: Full, deadline: float) -> None:
        """There is no room for the first one now."""
        waiter.full = self._full = full
        now = self._now()
        self._due = None if full.wait is None else now + full.wait
        if full.wait is not None and (full.wait == math.inf or now + full.wait > deadline):
            raise self.refusal("there is no room in time")
        self._turn = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if full.wait is not None:
            self._timer = self._later(full.wait, self.wake)

    async def _sleep(self, waiter: _Waiter) -> None:
        if waiter.late:
            return
        assert self._loop is not None
        waiter.future = self._loop.create_future()
        try:
            await waiter.future
        finally:
            waiter.future = None

    def _leave(self, waiter: _Waiter, served: bool) -> None:
        first = self._first() is waiter
        mine = self._tenants[waiter.tenant]
        del mine[waiter]
        self._size -= 1
        if served or not mine:
            del self._tenants[waiter.tenant]
            if mine:
                self._tenants[waiter.tenant] = mine  # behind the others
        if served:
            now = self._now()
            if now - self._served < _RECENT:
                self._pace += (now - self._served - self._pace) / 5
            self._served = now
        if self._turn is waiter:
            self._turn = None
        if first and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Whoever is first now asks: it may need less, or have been meant by what woke this one.
        if first and self._turn is None:
            self.wake()
        if not self._size:
            self._full = self._due = None

    def _first(self) -> _Waiter:
        return next(iter(next(iter(self._tenants.values()))))

    # ---- time, and errors ---------------------------------------------------------------------

    def _now(self) -> float:
        assert self._loop is not None
        return self._loop.time() if self._clock is None else self._clock()

    def _later(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        assert self._loop is not None
        return self._loop.call_later(max(seconds, _SHORTEST), then)

    def refusal(self, what: str) -> RateLimitError:
        """What a call is told for which there is no room; what begins the sentence."""
        why = f": {self._full.why}" if self._full is not None else ""
        return RateLimitError(f"{what}{why}", hint=_HINT, retry_after=self._soonest(), sent="no", billed=False)

    def _soonest(self) -> float | None:
        """Seconds until there could be room for one more: when it is known, or at the pace of late."""
        if self._due is not None:
            return max(self._due - self._now(), 0.0) if self._due < math.inf else None
        return self._pace * self._size or None
