"""A streamed answer as the caller holds it: text by default, events on request, the response at the
end. One class for each face; both draw batches from the same run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from polyvox import portal
from polyvox.engine import StreamRun
from polyvox.errors import UsageError
from polyvox.types import Event, PartAdded, Response, Text, TextDelta

if TYPE_CHECKING:
    from polyvox.cache import CachedRun

Run: TypeAlias = "StreamRun | CachedRun"


class _Held:
    """What both faces share: the run, made when the stream is first read, and its end."""

    __slots__ = ("_run", "_start", "_texts", "on_response")

    def __init__(self, start: Callable[[], Run]) -> None:
        self._start = start
        self._run: Run | None = None
        self._texts: Iterator[str] = iter(())
        self.on_response: Callable[[Response], None] | None = None

    def _begin(self) -> Run:
        self._run = self._start()
        self._run.on_response = self.on_response
        return self._run

    @property
    def response(self) -> Response:
        """The whole answer, once the stream has ended; UsageError before."""
        if self._run is None or self._run.response is None:
            raise UsageError("the stream has not ended yet", hint="read it to its end first, or call finish()")
        return self._run.response

    async def _batch(self) -> list[Event]:
        # Begun here, inside the loop it will run in, whichever thread the caller is in.
        return await (self._run or self._begin()).batch()

    async def _finish(self) -> Response:
        return await (self._run or self._begin()).finish()

    async def _close(self) -> None:
        if self._run is not None:
            await self._run.close()


def _text_of(events: list[Event]) -> list[str]:
    """The words in these events. Some come as a part that is whole: signed ones, and those of an unstreamed answer."""
    found = []
    for event in events:
        if type(event) is TextDelta:
            if event.choice == 0 and event.text:
                found.append(event.text)
        elif type(event) is PartAdded and type(event.value) is Text and event.choice == 0 and event.value.text:
            found.append(event.value.text)
    return found


class AsyncStream(_Held):
    """Iterate for text, `events()` for everything, `response` or `await finish()` for the whole.

    Leaving early: use `async with`, or call `close()`; the provider then stops at once.
    """

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        for text in self._texts:
            return text
        run = self._run or self._begin()
        while events := await run.batch():
            self._texts = iter(_text_of(events))
            for text in self._texts:
                return text
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Every event, the last one `Ended`; an error is raised."""
        while events := await self._batch():
            for event in events:
                yield event

    async def finish(self) -> Response:
        """Read what is left and give the whole answer."""
        return await self._finish()

    async def close(self) -> None:
        """Cut the stream unless it has ended."""
        await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Stream(_Held):
    """The sync face of `AsyncStream`; each read waits on the background loop for one batch."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        for text in self._texts:
            return text
        while events := portal.run(self._batch()):
            self._texts = iter(_text_of(events))
            for text in self._texts:
                return text
        raise StopIteration

    def events(self) -> Iterator[Event]:
        """Every event, the last one `Ended`; an error is raised."""
        while events := portal.run(self._batch()):
            yield from events

    def finish(self) -> Response:
        """Read what is left and give the whole answer."""
        return portal.run(self._finish())

    def close(self) -> None:
        """Cut the stream unless it has ended."""
        portal.run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
