"""An answer that an iterator of others gives piece by piece, as the engine reads one. It knows how iterators
of both kinds are advanced and closed, not what they yield."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from polyvox.backends.worker import Worker
from polyvox.errors import PolyvoxError

log: logging.Logger = logging.getLogger("polyvox.backends")

CLOSE_SECONDS = 2.0
"""How long an abandoned iterator may take to close before it is left to itself."""

_END = object()
# Values that can be iterated, but whose items are no pieces of an answer; models of pydantic give their fields.
_VALUES = (str, bytes, Mapping)
_NOT_CLOSED = "%s: closing its iterator failed"


class Pieces:
    """The pieces of the iterator that `start` gives, each after `take`, which must give something true.
    Whatever it raises comes out as `failure` reads it."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Any],
        take: Callable[[Any], Any],
        failure: Callable[[Exception], PolyvoxError],
    ) -> None:
        self._name = name
        self._start = start
        self._take = take
        self._failure = failure
        self.headers: Mapping[str, str] = {}
        self.given: Any = None
        self.source: Any = None
        self._iterator: Any = None
        self._worker: Worker | None = None
        self._next: Callable[[], Any] | None = None
        self._busy = False

    async def open(self, in_loop: bool, is_whole: Callable[[Any], bool]) -> bool:
        """Start it, in the loop or in a thread; whether there is something to iterate. Where there is not,
        `given` is what came instead: a whole answer, or nothing anybody can read."""
        try:
            made = self._begin() if in_loop else await self._in_thread(self._begin)
            if inspect.isawaitable(made):
                made = self.source = await made
            kind = type(made)
            one = isinstance(made, _VALUES) or hasattr(kind, "model_dump") or is_whole(made)
            if not one and hasattr(kind, "__aiter__"):
                self._iterator = aiter(made)
                self._next = self._iterator.__anext__
                return True
            if not one and hasattr(kind, "__iter__"):
                self._iterator = iter(made)
                return True
        except PolyvoxError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        self.given, self.source = made, None
        return False

    def _begin(self) -> Any:
        # Kept from inside: what a cancelled caller no longer waits for must still be closed.
        self.source = self._start()
        return self.source

    async def _in_thread(self, job: Callable[[], Any]) -> Any:
        if self._worker is None:
            self._worker = Worker(self._name)
        self._busy = True
        return await self._worker.run(lambda: self._done_after(job))

    def _done_after(self, job: Callable[[], Any]) -> Any:
        try:
            return job()
        finally:
            self._busy = False

    async def chunk(self) -> Any:
        """See `engine.Pieces`."""
        try:
            if self._next is not None:
                piece = await self._next()
            else:
                piece = await self._in_thread(lambda: next(self._iterator, _END))
            return None if piece is _END else self._take(piece)
        except StopAsyncIteration:
            return None
        except PolyvoxError:
            raise
        except Exception as error:
            raise self._failure(error) from error

    async def close(self) -> None:
        """Let the iterator clean up, for a short while; one whose thread is busy is closed once it is free."""
        worker, self._worker = self._worker, None
        if worker is not None and self._busy:
            worker.stop(self._shut)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                try:
                    waiting = self._shut() if worker is None else await worker.run(self._shut)
                    for result in await asyncio.gather(*waiting, return_exceptions=True):
                        if isinstance(result, Exception):
                            log.warning(_NOT_CLOSED, self._name, exc_info=result)
                finally:
                    if worker is not None:
                        worker.stop()

    def _shut(self) -> list[Awaitable[Any]]:
        """Close the iterator, and what it came from, which may hold the connection; gives what is to be awaited."""
        things = [self._iterator] if self._iterator is self.source else [self._iterator, self.source]
        self._iterator = self.source = None
        waiting = []
        for thing in things:
            close = getattr(thing, "aclose", None) or getattr(thing, "close", None)
            try:
                result = close() if callable(close) else None
            except Exception:
                log.warning(_NOT_CLOSED, self._name, exc_info=True)
                continue
            if inspect.isawaitable(result):
                waiting.append(result)
        return waiting

    def __del__(self) -> None:
        if self._worker is not None:
            # An asynchronous iterator is the event loop's to close.
            self._worker.stop(self._shut if self._next is None else None)


class Whole:
    """An answer that is there already, as one piece."""

    headers: Mapping[str, str] = {}

    def __init__(self, piece: Any) -> None:
        self._piece = piece

    async def chunk(self) -> Any:
        """See `engine.Pieces`."""
        piece, self._piece = self._piece, None
        return piece

    async def close(self) -> None:
        """There is nothing to let go of."""
