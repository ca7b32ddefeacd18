"""Breaks another transport by plan: refused connections, rubbish, silence, half answers, the same way for
the same seed. It knows no dialect, and leaves alone every call the plan does not mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    PolyvoxError,
    Sent,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Exchange, Outgoing, Timeouts, Transport
from polyvox.transports.fault_plan import KINDS, Fault, Schedule, plan_from

__all__ = ["KINDS", "LOGIN_PAGE", "Fault", "FaultExchange", "FaultTransport", "PlannedExchange", "plan_from"]

Sleep = Callable[[float], Awaitable[None]]

LOGIN_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"


class FaultTransport:
    """Carries requests through another transport and breaks those a plan means. A call gets the first fault
    of the plan that matches it; to combine faults, wrap a FaultTransport in another one.

    What happens depends on the plan, the seed and a call's number alone. sleep waits seconds; an injected
    one makes a run without waiting. ConfigError lists what is wrong with the plan, and what in it needs a socket.

    Attributes:
        calls: how many calls came.
        done: by kind, how many calls it really broke; a cut beyond the end of a body breaks nothing.

    Example:
        >>> import asyncio
        >>> from polyvox.transports.demo import DemoTransport
        >>> transport = FaultTransport(DemoTransport(), [Fault("refuse", at=(1,))])
        >>> from polyvox import Client
        >>> [attempt.outcome for attempt in Client("demo", transport=transport).ask("hi").attempts]
        ['connection', 'ok']
    """

    def __init__(
        self,
        inner: Transport,
        plan: Iterable[Fault | Mapping[str, Any]] | Mapping[str, Any],
        *,
        seed: int = 0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.plan: tuple[Fault, ...] = plan_from(plan, "transport")
        self.calls: int = 0
        self.done: dict[str, int] = {}
        self._inner = inner
        self._schedule = Schedule(self.plan, seed)
        self._sleep = sleep
        self._closed = False

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Exchange:
        """See `transports.Transport.send`; what the plan leaves alone is the inner transport's own exchange."""
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        self.calls += 1
        fault, rng = self._schedule.fault_for(self.calls)
        if fault is None:
            return await self._inner.send(outgoing, timeouts)
        if fault.kind in _INSTEAD:
            self._note(fault.kind)
            return await _INSTEAD[fault.kind](self, fault, timeouts)
        if fault.kind == "delay":
            self._note(fault.kind)
            limit = timeouts.first_byte
            if limit is not None and fault.seconds > limit:
                raise await _out_of_time("first byte", limit, "yes", self._sleep)
            await self._sleep(fault.seconds)
            return await self._inner.send(outgoing, timeouts)
        exchange = await self._inner.send(outgoing, timeouts)
        return FaultExchange(exchange, fault, timeouts.idle, rng, self._sleep, self._note)

    async def close(self) -> None:
        """Close the inner transport; both refuse further use."""
        self._closed = True
        await self._inner.close()

    def _note(self, kind: str) -> None:
        self.done[kind] = self.done.get(kind, 0) + 1

    # ---- instead of asking --------------------------------------------------------------------

    async def _refuse(self, fault: Fault, timeouts: Timeouts) -> Exchange:
        raise ConnectionFailedError("no connection: it was refused (planned fault)", sent="no")

    async def _connect_timeout(self, fault: Fault, timeouts: Timeouts) -> Exchange:
        raise await _out_of_time("connect", timeouts.connect, "no", self._sleep)

    async def _first_byte_timeout(self, fault: Fault, timeouts: Timeouts) -> Exchange:
        raise await _out_of_time("first byte", timeouts.first_byte, "yes", self._sleep)

    async def _status(self, fault: Fault, timeouts: Timeouts) -> Exchange:
        named = {name.lower(): text for name, text in fault.headers.items()}
        return PlannedExchange(fault.status, {"content-type": "application/json", **named}, fault.body)

    async def _html(self, fault: Fault, timeouts: Timeouts) -> Exchange:
        return PlannedExchange(200, {"content-type": "text/html; charset=utf-8"}, LOGIN_PAGE)


_INSTEAD: dict[str, Callable[[FaultTransport, Fault, Timeouts], Awaitable[Exchange]]] = {
    "refuse": FaultTransport._refuse,
    "connect_timeout": FaultTransport._connect_timeout,
    "first_byte_timeout": FaultTransport._first_byte_timeout,
    "status": FaultTransport._status,
    "html": FaultTransport._html,
}


async def _out_of_time(phase: str, limit: float | None, sent: Sent, sleep: Sleep) -> CallTimeoutError:
    """The error of a phase, once its limit has passed. Where there is none, only a cancellation ends it."""
    await (asyncio.Event().wait() if limit is None else sleep(limit))
    return CallTimeoutError(f"{phase}: nothing came within {limit or 0:g} s (planned fault)", sent=sent)


# ---- answers ----------------------------------------------------------------------------------


class _Readable:
    """What both exchanges share: the whole of a body is its chunks."""

    status: int
    _closed = False

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        if self._closed:
            raise UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        return await self._next()

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`."""
        pieces, size = [], 0
        while data := await self.chunk():
            pieces.append(data)
            size += len(data)
            if size > limit:
                await self.close()
                raise BadResponseError(f"the answer is longer than {limit} bytes", status=self.status, sent="yes")
        return b"".join(pieces)

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._closed = True

    async def _next(self) -> bytes:
        return b""


class PlannedExchange(_Readable):
    """An answer nobody gave: its head and its body in one piece."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def _next(self) -> bytes:
        data, self._body = self._body, b""
        return data


class FaultExchange(_Readable):
    """An answer whose body is broken on the way. note is told the kind when it really happens."""

    def __init__(
        self,
        inner: Exchange,
        fault: Fault,
        idle: float | None,
        rng: random.Random,
        sleep: Sleep,
        note: Callable[[str], None],
    ) -> None:
        self.status: int = inner.status
        self._inner = inner
        self._fault = fault
        self._idle = idle
        self._rng = rng
        self._sleep = sleep
        self._note = note
        self._way = _IN_BODY[fault.kind]
        self._noted = False
        self._passed = 0
        self._withheld = False
        self._over = False
        self._held = b""
        self._given = 0
        self._error: PolyvoxError | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The inner answer's head, untouched."""
        return self._inner.headers

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        await super().close()
        await self._inner.close()

    async def _next(self) -> bytes:
        if self._error is not None:
            raise self._error
        return await self._way(self)

    def _happened(self) -> None:
        if not self._noted:
            self._noted = True
            self._note(self._fault.kind)

    async def _before(self) -> bytes | None:
        """The next bytes in front of the fault; None when it is reached."""
        room = self._fault.after - self._passed
        if room <= 0:
            return None
        data = await self._inner.chunk()
        self._withheld = len(data) > room
        data = data[:room]
        self._passed += len(data)
        return data

    async def _broke(self, error: PolyvoxError) -> PolyvoxError:
        """Remember the error: a broken answer stays broken. The connection is gone with it."""
        self._error = error
        await self._inner.close()
        return error

    async def _cut(self) -> bytes:
        if self._over:
            return b""
        if (data := await self._before()) is not None:
            return data
        if self._withheld or await self._inner.chunk():
            self._happened()
            self._over = True
            await self._inner.close()  # its reader believes that the end was reached, and may not close it
        return b""

    async def _reset(self) -> bytes:
        if (data := await self._before()) is not None:
            return data
        self._happened()
        raise await self._broke(
            StreamInterruptedError("the connection broke in the middle of the answer (planned fault)", sent="yes")
        )

    async def _stall(self) -> bytes:
        if (data := await self._before()) is not None:
            return data
        self._happened()
        raise await self._broke(await _out_of_time("idle", self._idle, "yes", self._sleep))

    async def _garble(self) -> bytes:
        data = await self._inner.chunk()
        place = self._fault.after - self._passed
        self._passed += len(data)
        if not 0 <= place < len(data):
            return data
        self._happened()
        # All bits: what was valid UTF-8 is not any more, whichever byte it was.
        return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]

    async def _drip(self) -> bytes:
        return await self._piece(lambda left: min(left, 1), self._fault.seconds)

    async def _split(self) -> bytes:
        return await self._piece(lambda left: self._rng.randint(1, left))

    async def _piece(self, size_of: Callable[[int], int], pause: float = 0.0) -> bytes:
        if self._given == len(self._held):
            self._held, self._given = await self._inner.chunk(), 0
            if not self._held:
                return b""
        else:
            await asyncio.sleep(0)  # a long answer in small pieces must not hold up the event loop
        if pause:
            await self._sleep(pause)
        start = self._given
        self._given += size_of(len(self._held) - start)
        if self._given < len(self._held):
            self._happened()
        return self._held[start : self._given]


_IN_BODY: dict[str, Callable[[FaultExchange], Awaitable[bytes]]] = {
    "cut": FaultExchange._cut,
    "reset": FaultExchange._reset,
    "stall": FaultExchange._stall,
    "garble": FaultExchange._garble,
    "drip": FaultExchange._drip,
    "split": FaultExchange._split,
}
