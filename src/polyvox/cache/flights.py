"""Calls under way that several wait for: one does the work, all get the answer, and whoever leaves harms nobody. It
knows nothing of keys, stores or providers. A flight lives in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from polyvox.cache.records import as_json, joined
from polyvox.errors import CallCancelledError, CallTimeoutError, PolyvoxError, StreamInterruptedError
from polyvox.types import Event, Response

Outcome = tuple[Response | None, BaseException | None]


class Run(Protocol):
    """A streamed answer being read, as the engine's is: events until the list is empty, then the response."""

    @property
    def response(self) -> Response | None:
        """The whole answer, once the stream has ended."""

    async def batch(self) -> list[Event]:
        """The next events; [] when the stream has ended well; raises what it failed with."""

    async def close(self) -> None:
        """Let go of it."""


Where = tuple[int, str, str, bool]
"""The event loop, the space and the digest of the key, and whether the call asks anew."""


class Owner(NamedTuple):
    """What whoever began flights does with them: keep an answer, with its events as a JSON array where it was streamed;
    let nobody join any more; forget one whose task is done; count one that the last who waited has left."""

    keep: Callable[[Flight, Response, bytes | None], Awaitable[Any]]
    over: Callable[[Flight], None]
    ended: Callable[[Flight], None]
    abandoned: Callable[[], None]


class Flight:
    """What both kinds share: the task, those who wait, and the end. life is how long its answer is kept, in seconds."""

    # What most flights never change stands on the class.
    keeps: bool = True
    landed: bool = False
    response: Response | None = None
    error: BaseException | None = None
    _told = False

    def __init__(self, owner: Owner, where: Where, life: float | None) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.where = where
        self.life = life
        self._owner = owner
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order in which they came
        self.task: asyncio.Task[None]

    def _take_off(self) -> None:
        # One callback is all that a call which nobody else waits for can afford: each is a turn of the loop.
        self.task = self.loop.create_task(self._flight())
        self.task.add_done_callback(self._ended)

    async def _flight(self) -> None:
        try:
            await self._fly()
            if self.response is not None and self.keeps:
                await self._owner.keep(self, self.response, self._events())
        except Exception as error:  # noqa: BLE001 - it is told to those who wait
            self._land(error=error)
        finally:
            self._owner.over(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A task may be cancelled before it has begun.
        if not self.landed:
            self._land(error=CallCancelledError("the call that several waited for was cancelled"))
        self._owner.ended(self)
        if not task.cancelled():
            task.exception()

    async def _fly(self) -> None:
        raise NotImplementedError

    def _events(self) -> bytes | None:
        return None

    def _land(self, response: Response | None = None, error: BaseException | None = None) -> None:
        if self.landed:
            return
        self.landed, self.response, self.error = True, response, error
        if error is not None:
            self._owner.over(self)
        self._wake()

    def _wake(self) -> None:
        # Those who were woken wait no more, though they have not run yet.
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def own_error(self) -> BaseException:
        """The error it ended with; an object of its own for each who asks."""
        assert self.error is not None
        error = self.error if not self._told else copied(self.error)
        self._told = True
        return error

    def abandon(self) -> None:
        """Nobody waits any more."""
        if not self.landed:
            self._owner.over(self)
            self._owner.abandoned()
            self.task.cancel()


class WholeFlight(Flight):
    """One whole answer on its way."""

    def __init__(self, make: Callable[[], Awaitable[Response]], *rest: Any) -> None:
        super().__init__(*rest)
        self._make = make
        self._take_off()

    async def _fly(self) -> None:
        self._land(await self._make())

    async def wait(self, until: float | None = None) -> Response:
        """The answer; raises what the call failed with, and CallTimeoutError at the time of the loop's clock."""
        if not self.landed:
            future = self.loop.create_future()
            self._waiting[future] = None
            try:
                await _wait(future, until)
            finally:
                self._waiting.pop(future, None)
                if not self._waiting:
                    self.abandon()
        if self.response is None:
            raise self.own_error()
        return self.response


class Place:
    """How far one reader of a stream is, in batches; cut when it fell too far behind."""

    __slots__ = ("at", "cut")

    def __init__(self, at: int) -> None:
        self.at: int = at
        self.cut: bool = False


class Batch(Struct, frozen=True, gc=False):
    """Events that came together, and how many bytes they are as JSON."""

    events: list[Event]
    size: int


class StreamFlight(Flight):
    """A stream that several read from its beginning. The fastest reader sets the pace; what has passed is kept for the
    others, up to so many bytes. Beyond them nobody can join, nothing is kept, and readers who fall that far behind
    are cut off."""

    def __init__(self, make: Callable[[], Run], most: int, *rest: Any) -> None:
        super().__init__(*rest)
        self._make = make
        self._most = most
        self._batches: list[Batch] = []
        self._first = 0  # how many batches went before those that are held
        self._held = 0
        self._json: list[bytes] = []
        self._places: set[Place] = set()
        self._asleep: asyncio.Future[None] | None = None
        self._take_off()

    async def _fly(self) -> None:
        run = self._make()
        try:
            while run.response is None:
                await self._demand()
                events = await run.batch()
                if not events:
                    break
                self._take(events)
            response = run.response
        finally:
            await run.close()
        if response is None:
            raise StreamInterruptedError("the stream ended without an answer", sent="yes")
        self._land(response)

    async def _demand(self) -> None:
        """Wait until a reader has read all there is."""
        if not self._waiting:
            self._asleep = self.loop.create_future()
            await self._asleep

    def _take(self, events: list[Event]) -> None:
        try:
            told = as_json(events)
        except (TypeError, ValueError, RecursionError):
            told = b""
            self.keeps = False
        self._batches.append(Batch(events, len(told)))
        self._held += len(told)
        if self.keeps:
            self._json.append(told)
        if self._held > self._most:
            if self.keeps:
                self.keeps = False
                self._json.clear()
                self._owner.over(self)
            self._trim()
        self._wake()

    def _trim(self) -> None:
        """Forget what all have read, and cut off the slowest until the rest is little enough."""
        while True:
            behind = min((place.at for place in self._places), default=self._first + len(self._batches))
            gone = self._batches[: behind - self._first]
            del self._batches[: behind - self._first]
            self._first = behind
            self._held -= sum(batch.size for batch in gone)
            # What came last is still to be read by everybody.
            if self._held <= self._most or len(self._batches) <= 1:
                return
            for place in [place for place in self._places if place.at == behind]:
                place.cut = True
                self._places.discard(place)

    def _events(self) -> bytes | None:
        return joined(self._json)

    def join(self) -> Place:
        """A place at the beginning."""
        place = Place(self._first)
        self._places.add(place)
        return place

    def leave(self, place: Place) -> None:
        """A reader goes; with the last one the stream is cut."""
        if place in self._places:
            self._places.discard(place)
            if not self._places:
                self.abandon()

    def read_all(self, place: Place) -> bool:
        """Whether a reader has seen all that has come."""
        return place.at >= self._first + len(self._batches)

    async def next(self, place: Place, until: float | None = None) -> list[Event]:
        """The events that this reader has not seen yet; [] at the end. Raises what the stream failed with once all
        before it was seen."""
        while True:
            if place.cut:
                raise StreamInterruptedError(
                    "this reader of a shared stream fell too far behind the others",
                    hint="read faster, or ask with cached=False for a stream of its own",
                    sent="yes",
                )
            unseen = self._batches[place.at - self._first :]
            if unseen:
                place.at += len(unseen)
                return unseen[0].events if len(unseen) == 1 else [event for batch in unseen for event in batch.events]
            if self.landed:
                if self.error is not None:
                    raise self.own_error()
                return []
            future = self.loop.create_future()
            self._waiting[future] = None
            if self._asleep is not None and not self._asleep.done():
                self._asleep.set_result(None)
            try:
                await _wait(future, until)
            finally:
                self._waiting.pop(future, None)


async def _wait(future: asyncio.Future[None], until: float | None) -> None:
    if until is None:
        await future
        return
    try:
        async with asyncio.timeout_at(until):
            await future
    except TimeoutError:
        raise CallTimeoutError(
            "an equal call that this one waited for gave no answer within its time",
            hint="give it longer with timeout=SECONDS",
        ) from None


def copied(error: BaseException) -> BaseException:
    """Another object that says the same; an error that cannot be copied is wrapped."""
    with contextlib.suppress(Exception):
        other = copy.copy(error)
        if type(other) is type(error):
            other.__cause__ = error.__cause__
            return other
    wrapped = PolyvoxError(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
