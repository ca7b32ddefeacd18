"""A call whose answer comes as a stream: until an event shows the caller something, a failed attempt may be repeated.
It knows no bytes, only readers and the pieces they take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from polyvox.dialects import Reader
from polyvox.dialects.collect import Collector
from polyvox.dialects.errors_on_wire import request_id
from polyvox.engine.call import Call, gave_up
from polyvox.engine.contract import Pieces
from polyvox.errors import CallTimeoutError, PolyvoxError, StreamInterruptedError
from polyvox.types import Ended, Event, ExtraAdded, Failed, Response, Started, UsageReported

# Events that show the caller nothing: until something else comes, a broken stream can start anew.
_UNSEEN = (Started, UsageReported, ExtraAdded)


class StreamRun:
    """A call that streams: `batch` gives the next events, `finish` the whole answer. on_response is called
    with the answer when it is whole.

    Until an event shows the caller something, a failed attempt may be repeated; after that never.
    """

    __slots__ = (
        "_begun", "_call", "_collector", "_error", "_held", "_pieces", "_reader", "_seen", "on_response", "response",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self._call = call
        self.on_response: Callable[[Response], None] | None = None
        self._pieces: Pieces | None = None
        self._reader: Reader | None = None
        self._collector = Collector()
        self._held: list[Event] = []
        self._begun = False
        self._seen = False
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
            call.begin()
        if call.expired:
            begun = self._pieces is not None
            await self._cut()
            raise self._fail(call.out_of_time(begun))
        try:
            while True:
                try:
                    events = await self._read() if self._pieces is not None else await self._open()
                except PolyvoxError as error:
                    await self._cut()
                    await self._failed(error)
                    continue
                if events or self._over():
                    return events
        except asyncio.CancelledError:
            begun = self._pieces is not None
            await self._cut()
            if call.expired_alone():
                raise self._fail(call.out_of_time(begun)) from None
            call.note("cancelled")
            self._fail(StreamInterruptedError("the stream was cancelled", sent="yes"))
            raise
        finally:
            call.rest()

    def _over(self) -> bool:
        """Whether the stream ended well; raises what it ended with otherwise, if it did."""
        if self._error is not None:
            raise self._error
        return self.response is not None

    async def _open(self) -> list[Event]:
        self._collector = Collector()
        self._held = []
        self._call.begin_attempt()
        self._pieces, self._reader = await self._call.deployment.open(self._call.encoded())
        return await self._read()

    async def _read(self) -> list[Event]:
        """One read of the answer: the events to show now. Raises the error a Failed event carries,
        but only after the events before it were shown."""
        assert self._pieces is not None
        assert self._reader is not None
        try:
            data = await self._pieces.chunk()
        except CallTimeoutError as error:
            # Its head had come, so the stream has begun: one that stalls broke off, whatever the reason.
            raise StreamInterruptedError(error.message, sent="yes") from error
        events = self._reader.feed(data) if data else self._reader.close()
        if not events:
            return events
        add = self._collector.add
        for event in events:
            add(event)
        last = events[-1]
        if self._seen and not self._call.engine.hooks and type(last) is not Failed and type(last) is not Ended:
            return events
        return await self._shown(events, last)

    async def _shown(self, events: list[Event], last: Event) -> list[Event]:
        """What of these events the caller may see now: the first words, the end, a failure, or with hooks."""
        if type(last) is Failed:
            self._call.annotate(last.error)
        if self._call.engine.hooks:
            for event in events:
                self._call.tell("on_event", event)
        if type(last) is Failed:
            return await self._broken(events, last.error)
        if type(last) is Ended:
            await self._done()
        if self._seen:
            return events
        self._held += events
        if type(last) is not Ended and all(isinstance(event, _UNSEEN) for event in events):
            return []
        shown, self._held = self._held, []
        self._seen = True
        return shown

    async def _broken(self, events: list[Event], error: PolyvoxError) -> list[Event]:
        shown = self._held + events[:-1]
        await self._cut()
        if not self._seen and all(isinstance(event, _UNSEEN) for event in shown):
            raise error
        self._held = []
        self._seen = True
        self._call.note(error.kind, error)
        self._fail(self._call.final(error))
        return shown

    async def _failed(self, error: PolyvoxError) -> None:
        if self._seen:
            self._call.annotate(error)
            self._call.note(error.kind, error)
            raise self._fail(self._call.final(error))
        try:
            await self._call.failed(error)
        except PolyvoxError as final:
            raise self._fail(final) from None

    async def _done(self) -> None:
        pieces, self._pieces = self._pieces, None
        answer = None
        if pieces is not None:
            answer = request_id(pieces.headers)
            await pieces.close()
        self._call.end()
        response = self._collector.response()
        if response.finish_reason == "error":
            error = gave_up(response)
            self._call.annotate(error)
            self._call.note(error.kind, error)
            self._fail(self._call.final(error))
        else:
            self.response = self._call.succeeded(response, answer)
            if self.on_response is not None:
                self.on_response(self.response)

    def _fail(self, error: PolyvoxError) -> PolyvoxError:
        self._call.end()
        error.partial = error.partial or self._partial()
        self._error = error
        return error

    def _partial(self) -> Response:
        return replace(
            self._collector.response(),
            provider=self._call.deployment.provider,
            deployment=self._call.deployment.name,
            losses=self._call.losses,
            complete=False,
        )

    def __del__(self) -> None:
        self._call.end()  # left in the middle: its deadline has nobody left to tell

    async def _cut(self) -> None:
        self._reader = None
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.close()

    async def close(self) -> None:
        """Let go of the connection; a stream that has not ended is cut."""
        self._call.end()
        await self._cut()
        if self.response is None and self._error is None:
            if self._begun:
                self._call.note("cancelled")
            self._error = StreamInterruptedError("the stream was closed before its end", partial=self._partial())

    async def finish(self) -> Response:
        """Read to the end and give the whole answer."""
        try:
            while self.response is None:
                await self.batch()
        finally:
            await self.close()
        return self.response
