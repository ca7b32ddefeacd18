"""A call whose answer comes as a stream: until an event shows the caller something, a failed attempt may be repeated,
here or elsewhere. It knows no bytes, only legs and their events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from polyvox.dialects.collect import Collector
from polyvox.dialects.errors_on_wire import request_id
from polyvox.engine.attempt import Try
from polyvox.engine.call import Call, gave_up
from polyvox.engine.contract import Spent
from polyvox.engine.hedge import raced
from polyvox.engine.leg import Leg
from polyvox.engine.seam import Seam
from polyvox.errors import PolyvoxError, Sent, StreamInterruptedError
from polyvox.types import Event, Failed, Response

_SENT: tuple[Sent, ...] = ("no", "unknown", "yes")


class StreamRun:
    """A call that streams: `batch` gives the next events, `finish` the whole answer. on_response is called
    with the answer when it is whole.

    Until an event shows the caller something, a failed attempt may be repeated; after that never, but where a plan
    goes on with what had come, elsewhere, and the answer says so. whole is True where nobody reads the events, only the
    answer: then none of them is shown.
    """

    __slots__ = ("_begun", "_call", "_error", "_leg", "_legs", "_seam", "on_response", "response", "whole")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.whole: bool = False
        self.on_response: Callable[[Response], None] | None = None
        self._leg: Leg | None = None
        self._legs: dict[Try, Leg] = {}  # while attempts race
        self._seam: Seam | None = None  # where an answer that broke off goes on elsewhere
        self._begun = False
        self._error: PolyvoxError | None = None
        self.response: Response | None = None

    async def batch(self) -> list[Event]:
        """The next events, as many as one read gives; [] when the stream has ended well."""
        if self._error is not None:
            raise self._error
        if self.response is not None:
            return []
        call = self._call
        if self._begun:
            call.wait()
        else:
            self._begun = True
            try:
                call.begin()
            except PolyvoxError as error:  # nobody could ever answer it
                raise self._fail(error) from None
        if call.expired:
            await self._cut()
            raise await self._late()
        try:
            while True:
                try:
                    events = await self._next()
                except PolyvoxError as error:
                    if error is self._error:
                        raise
                    await self._failed(error)
                    continue
                if events or self._over():
                    return events
        except asyncio.CancelledError as gone:
            await self._cut()
            if call.expired_alone():
                raise await self._late() from None
            self._left("the stream was cancelled", gone)
            raise
        except PolyvoxError:
            raise
        except BaseException:  # closed in the middle, or a defect: neither may leave its account open
            self._left("the stream was closed")
            raise
        finally:
            call.rest()

    def _over(self) -> bool:
        """Whether the stream ended well; raises what it ended with otherwise, if it did."""
        if self._error is not None:
            raise self._error
        return self.response is not None

    async def _next(self) -> list[Event]:
        leg = self._leg
        if leg is None:
            leg, events = await self._begin()
        elif leg.failure is not None:
            raise leg.failure
        else:
            events = await leg.read()
        if not events and not leg.ended:
            return events
        if self._seam is not None:
            events = self._seam.joined(events)
        if self._call.engine.listeners["on_event"]:
            for event in events:
                self._call.tell("on_event", event)
        if leg.failure is not None:
            await self._told(leg, leg.failure)
        elif leg.ended:
            await self._done(leg)
        return events

    async def _begin(self) -> tuple[Leg, list[Event]]:
        """Open a leg, and read until something can be shown."""
        call, plan = self._call, self._call.plan
        try:
            attempt = call.again() if plan is None else await call.attempt()
        except PolyvoxError as final:
            raise self._fail(final) from None
        if plan is None or plan.hedge_after is None:
            leg = self._leg = Leg(attempt)
            events = await leg.first(None if plan is None else plan.first_token)
        else:
            self._legs = {}
            _, (leg, events) = await raced(call, attempt, self._racing, self._lost)
            self._leg, self._legs = leg, {}
        if leg.worded and not self.whole:
            call.seen(leg.attempt)
        return leg, events

    async def _racing(self, attempt: Try) -> tuple[Leg, list[Event]]:
        plan = self._call.plan
        leg = self._legs[attempt] = Leg(attempt)
        try:
            return leg, await leg.first(None if plan is None else plan.first_token)
        except PolyvoxError as error:
            if attempt.heard:
                error.partial = error.partial or leg.partial()
            raise

    async def _lost(self, attempt: Try, _: object) -> Spent | None:
        leg = self._legs.get(attempt)
        if leg is None:
            return attempt.spent(None)
        await leg.cut()
        return attempt.spent(None, leg.partial())

    async def _told(self, leg: Leg, error: PolyvoxError) -> None:
        """The stream told a failure, after events that the caller sees now: it is raised with the next batch."""
        if self._call.engine.listeners["on_event"]:
            self._call.annotate(error, leg.attempt)
            self._call.tell("on_event", Failed(error))
        await leg.cut()
        if self.whole:
            raise error
        if not self._goes_on(leg):
            await self._broke(leg, error)

    async def _failed(self, error: PolyvoxError) -> None:
        """Wait for the next try, or raise the error when there must be none."""
        call = self._call
        attempt = call.trying[0]
        leg = self._leg
        if leg is not None:
            await leg.cut()
            if leg.seen and not self.whole:
                if self._goes_on(leg):
                    await self._go_on(leg, error)
                    return
                raise await self._broke(leg, error)
            if attempt.heard:
                error.partial = error.partial or leg.partial()
            self._leg = None
        try:
            await call.failed(attempt, error)
        except PolyvoxError as final:
            raise self._fail(final) from None

    def _goes_on(self, leg: Leg) -> bool:
        """Whether an answer that broke off is gone on with elsewhere."""
        plan = self._call.plan
        return plan is not None and plan.continues and Seam.possible(leg)

    async def _go_on(self, leg: Leg, error: PolyvoxError) -> None:
        call, plan = self._call, self._call.plan
        assert plan is not None
        seam = self._seam or Seam(leg)
        partial = seam.partial(leg)
        error.partial = leg.partial()
        try:
            await call.failed(leg.attempt, error)
        except PolyvoxError as final:
            final.partial = partial
            raise self._fail(final) from None
        plan.resume(partial)
        call.made.clear()  # requests go on with what came now
        seam.open(leg, error)
        self._leg, self._seam = None, seam

    async def _broke(self, leg: Leg, error: PolyvoxError) -> PolyvoxError:
        """The stream broke off for good: nothing of it is repeated."""
        call = self._call
        error.partial = error.partial or leg.partial()
        if leg.attempt in call.trying:
            await call.broke_off(leg.attempt, error)
        if self._seam is not None:
            error.partial = self._seam.partial(leg)
        self._fail(call.final(error))
        await call.over(error)
        return error

    async def _done(self, leg: Leg) -> None:
        pieces, leg.pieces = leg.pieces, None
        answer = None
        if pieces is not None:
            answer = request_id(pieces.headers)
            await pieces.close()
        call = self._call
        call.end()
        response = leg.collector.response()
        if response.finish_reason == "error":
            await self._broke(leg, gave_up(response))
            return
        response = call.succeeded(leg.attempt, response, answer)
        whole = response if self._seam is None else self._seam.whole(response)
        # There before it is written down: whoever is cancelled meanwhile has an answer.
        self.response = whole
        if call.account is not None:
            await call.answered(leg.attempt, response)
        if self.on_response is not None:
            self.on_response(whole)

    async def _late(self) -> PolyvoxError:
        """The deadline has come."""
        return self._fail(await self._call.out_of_time(self._partial()))

    def _left(self, why: str, gone: BaseException | None = None) -> None:
        """Nobody reads on."""
        for attempt in self._call.trying:
            attempt.left(gone)
        outs = [attempt.out for attempt in self._call.trying]
        sent: Sent = next((word for word in reversed(_SENT) if word in outs), "no")
        self._call.left_alone(self._fail(StreamInterruptedError(why, sent=sent)).partial)

    def _fail(self, error: PolyvoxError) -> PolyvoxError:
        self._call.end()
        if self._seam is not None and self._leg is None:
            error.partial = self._seam.so_far  # what whoever should go on with it had said is nothing
        error.partial = error.partial or self._partial()
        self._error = error
        return error

    def _partial(self) -> Response:
        legs = [self._leg] if self._leg is not None else list(self._legs.values())
        if legs:
            leg = max(legs, key=lambda one: one.collector.next_part)
            return leg.partial() if self._seam is None else self._seam.partial(leg)
        if self._seam is not None:
            return self._seam.so_far
        at = self._call.deployment
        return replace(Collector().response(), provider=at.provider, deployment=at.name, complete=False)

    def __del__(self) -> None:
        call = self._call
        call.end()  # left in the middle: its deadline has nobody left to tell
        if not self._begun or self.response is not None or self._error is not None:
            return
        if call.account is not None or call.plan is not None:
            call.abandoned(self._partial())

    async def _cut(self) -> None:
        # One that won its race may not be known as the leg yet.
        for leg in (self._leg, *self._legs.values()):
            if leg is not None:
                await leg.cut()

    async def close(self) -> None:
        """Let go of the connection; a stream that has not ended is cut."""
        self._call.end()
        await self._cut()
        if self.response is None and self._error is None:
            partial = self._partial()
            self._error = StreamInterruptedError("the stream was closed before its end", partial=partial)
            if self._begun:
                self._call.left_alone(partial)

    async def finish(self) -> Response:
        """Read to the end and give the whole answer."""
        try:
            while self.response is None:
                await self.batch()
        finally:
            await self.close()
        return self.response
