"""A streamed answer as whoever asked for it reads it, wherever it comes from: kept, under way for somebody else, or
asked for now. It has the face of the engine's own streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from polyvox.cache.flights import Place, Run, StreamFlight, WholeFlight
from polyvox.dialects.collect import as_events
from polyvox.errors import CallTimeoutError, StreamInterruptedError
from polyvox.types import Event, Response

How = Literal["made", "shared", "hit"]
"""Where an answer comes from: asked for now, from an equal call that was under way, or kept."""


class Source(Protocol):
    """Where a run draws its events from."""

    how: How
    age: float | None

    @property
    def late(self) -> bool:
        """Whether the time of this reader is over."""

    @property
    def response(self) -> Response | None:
        """The answer, once all of it was given."""

    async def batch(self) -> list[Event]:
        """The next events; [] when it has ended well."""

    async def leave(self) -> None:
        """Nobody reads it any more."""


class CachedRun:
    """A stream: `batch` gives the next events, `finish` the whole answer; on_response is called with the answer once
    it is whole. how tells where it comes from, age how many seconds ago it was kept; both None until the first batch.
    on_given makes the answer what it is for this caller, where it was made for another; it may raise.
    """

    def __init__(self, begin: Callable[[], Awaitable[Source]], again: Callable[[], Awaitable[Source]]) -> None:
        self._begin = begin
        self._again: Callable[[], Awaitable[Source]] | None = again
        self._source: Source | None = None
        self._error: BaseException | None = None
        self.on_response: Callable[[Response], None] | None = None
        self.on_given: Callable[[Response], Response] | None = None
        self.response: Response | None = None
        self.how: How | None = None
        self.age: float | None = None

    async def batch(self) -> list[Event]:
        """The next events; [] when the stream has ended well; raises what it failed with."""
        if self._error is not None:
            raise self._error
        if self.response is not None:
            return []
        try:
            events = await self._drawn()
        except asyncio.CancelledError:
            await self._end(StreamInterruptedError("the stream was cancelled", sent="yes"))
            raise
        except Exception as error:
            await self._end(error)
            raise
        source = self._source
        assert source is not None
        if events:
            self._again = None
        if source.response is not None:
            await source.leave()
            self.response = self._as_given(source.response)
            if self.on_response is not None:
                self.on_response(self.response)
        return events

    def _as_given(self, response: Response) -> Response:
        if self.how == "made" or self.on_given is None:
            return response
        try:
            return self.on_given(response)
        except Exception as error:
            self._error = error
            raise

    async def _drawn(self) -> list[Event]:
        if self._source is None:
            self._take(await self._begin())
        assert self._source is not None
        try:
            return await self._source.batch()
        except CallTimeoutError:
            # The time that ran out was that of whoever asked first.
            if self._again is None or self._source.how != "shared" or self._source.late:
                raise
        await self._source.leave()
        again, self._again = self._again, None
        self._take(await again())
        return await self._source.batch()

    def _take(self, source: Source) -> None:
        self._source, self.how, self.age = source, source.how, source.age

    async def _end(self, error: BaseException) -> None:
        self._error = error
        if self._source is not None:
            await self._source.leave()

    async def close(self) -> None:
        """Let go of the stream; one that has not ended is cut, unless others read it."""
        if self.response is None and self._error is None:
            await self._end(StreamInterruptedError("the stream was closed before its end"))

    async def finish(self) -> Response:
        """Read to the end and give the whole answer."""
        try:
            while self.response is None:
                if not await self.batch() and self.response is None:
                    raise StreamInterruptedError("the stream ended without an answer", sent="yes")
        finally:
            await self.close()
        return self.response


class Replayed:
    """An answer that was kept: all of its events at once."""

    how: How = "hit"
    late = False

    def __init__(self, events: list[Event], response: Response, age: float) -> None:
        self._events = events
        self._response = response
        self.age: float | None = age
        self.response: Response | None = None

    async def batch(self) -> list[Event]:
        """See `Source`."""
        self.response = self._response
        return self._events

    async def leave(self) -> None:
        """See `Source`."""


class Direct:
    """A stream of its own."""

    how: How = "made"
    age: float | None = None
    late = False

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def response(self) -> Response | None:
        """See `Source`."""
        return self._run.response

    async def batch(self) -> list[Event]:
        """See `Source`."""
        return await self._run.batch()

    async def leave(self) -> None:
        """See `Source`."""
        await self._run.close()


class Following:
    """A place in a stream that several may read."""

    age: float | None = None

    def __init__(
        self,
        flight: StreamFlight,
        how: How,
        until: float | None,
        left: Callable[[], None],
        saved: Callable[[Response], None],
    ) -> None:
        self._flight = flight
        self._place: Place = flight.join()
        self._until = until
        self._left = left
        self._saved = saved
        self.how = how
        self.response: Response | None = None

    @property
    def late(self) -> bool:
        """Whether its own time is over."""
        return self._until is not None and self._flight.loop.time() >= self._until

    async def batch(self) -> list[Event]:
        """See `Source`."""
        flight, place = self._flight, self._place
        events = await flight.next(place, self._until)
        if flight.landed and flight.response is not None and flight.read_all(place):
            self.response = flight.response
            self._saved(self.response)
        return events

    async def leave(self) -> None:
        """See `Source`."""
        if not self._flight.landed:
            self._left()
        self._flight.leave(self._place)

    def __del__(self) -> None:
        # Left in the middle, by whatever thread collects it.
        with contextlib.suppress(RuntimeError, AttributeError):
            if not self._flight.landed:
                self._flight.loop.call_soon_threadsafe(self._flight.leave, self._place)


class Awaited:
    """A whole answer under way for somebody else, told as the events that would have told it."""

    how: How = "shared"
    age: float | None = None

    def __init__(self, flight: WholeFlight, until: float | None, saved: Callable[[Response], None]) -> None:
        self._flight = flight
        self._until = until
        self._saved = saved
        self.response: Response | None = None

    @property
    def late(self) -> bool:
        """Whether its own time is over."""
        return self._until is not None and self._flight.loop.time() >= self._until

    async def batch(self) -> list[Event]:
        """See `Source`."""
        self.response = await self._flight.wait(self._until)
        self._saved(self.response)
        return as_events(self.response)

    async def leave(self) -> None:
        """See `Source`."""
