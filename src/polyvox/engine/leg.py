"""One attempt that streams: from opening it to its end, and which of its events a caller may see. Until an event shows
something, what came is held, so that another attempt may take its place."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from polyvox.dialects import Reader
from polyvox.dialects.collect import Collector
from polyvox.engine.attempt import Try
from polyvox.engine.contract import Pieces
from polyvox.errors import CallTimeoutError, PolyvoxError, StreamInterruptedError
from polyvox.types import Ended, Event, ExtraAdded, Failed, Response, Started, UsageReported

# Events that show the caller nothing: until something else comes, a broken stream can start anew.
UNSEEN = (Started, UsageReported, ExtraAdded)
_WORDLESS = (*UNSEEN, Ended, Failed)


class Leg:
    """A streamed attempt. first gives what came until something can be shown, read what comes after. failure is the
    error that the stream itself told, after what was shown; ended is whether it ended well; worded whether anything
    but its frame came."""

    __slots__ = ("_held", "_reader", "attempt", "collector", "ended", "failure", "pieces", "seen", "worded")

    def __init__(self, attempt: Try) -> None:
        self.attempt: Try = attempt
        self.collector: Collector = Collector()
        attempt.collector = self.collector
        self.pieces: Pieces | None = None
        self.seen: bool = False
        self.ended: bool = False
        self.worded: bool = False
        self.failure: PolyvoxError | None = None
        self._reader: Reader | None = None
        self._held: list[Event] = []

    async def first(self, limit: float | None = None) -> list[Event]:
        """Open it, and read until something can be shown. A leg that fails, or takes longer than limit seconds, is
        closed."""
        try:
            if limit is None:
                return await self._until_shown()
            try:
                async with asyncio.timeout(limit):
                    return await self._until_shown()
            except TimeoutError:
                raise CallTimeoutError(
                    f"nothing of an answer within {limit:g} s",
                    hint="give first_token longer, or name a faster model",
                    sent="yes" if self.attempt.heard else "unknown",
                ) from None
        except BaseException:
            await self.cut()
            raise

    async def _until_shown(self) -> list[Event]:
        outgoing = await self.attempt.begin()
        self.pieces, self._reader = await self.attempt.deployment.open(outgoing)
        self.attempt.heard = True
        while True:
            events = await self.read()
            if events or self.ended:
                return events

    async def read(self) -> list[Event]:
        """One read of the answer: the events to show now, [] for none. Raises what broke it; an error that the stream
        tells behind events that were not shown yet is a failure after they are."""
        assert self.pieces is not None
        assert self._reader is not None
        try:
            data = await self.pieces.chunk()
        except CallTimeoutError as error:
            # Its head had come, so the stream has begun: one that stalls broke off, whatever the reason.
            raise StreamInterruptedError(error.message, sent="yes") from error
        events = self._reader.feed(data) if data else self._reader.close()
        if not events:
            return events
        add = self.collector.add
        for event in events:
            add(event)
        last = events[-1]
        if self.seen and type(last) is not Failed and type(last) is not Ended:
            return events
        return self._shown(events, last)

    def _shown(self, events: list[Event], last: Event) -> list[Event]:
        """What of these events the caller may see now: the first words, the end, or what came before a failure."""
        if not self.worded and not all(isinstance(event, _WORDLESS) for event in events):
            self.worded = True
        if type(last) is Failed:
            shown = self._held + events[:-1]
            if not self.seen and all(isinstance(event, UNSEEN) for event in shown):
                raise last.error
            self.failure, self._held, self.seen = last.error, [], True
            return shown
        self.ended = type(last) is Ended
        if self.seen:
            return events
        self._held += events
        if not self.ended and all(isinstance(event, UNSEEN) for event in events):
            return []
        shown, self._held, self.seen = self._held, [], True
        return shown

    def partial(self) -> Response:
        """What has come of the answer."""
        at = self.attempt
        return replace(
            self.collector.response(),
            provider=at.deployment.provider,
            deployment=at.deployment.name,
            losses=at.losses,
            complete=False,
        )

    async def cut(self) -> None:
        """Let go of the connection."""
        self._reader = None
        pieces, self.pieces = self.pieces, None
        if pieces is not None:
            await pieces.close()
