"""Streamed answers as AI Utilities hands them out: an iterator of texts that has a result at its end. It reads what
somebody else streams, and adds nothing to it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from polyvox.compat.ai_utilities.results import AskResult
from polyvox.compat.errors import named
from polyvox.compat.foreign import told
from polyvox.errors import ServerError, UsageError

Make = Callable[[str], AskResult]
"""The result, from the whole text."""

End = Callable[[AskResult], Any]
"""Told once how it went, also of what there was where somebody left early; not told of a failure."""

Around = Callable[[str], contextlib.AbstractContextManager[None]]
"""What a read goes through, which makes each failure one that the document knows; takes the provider's name."""


_OVER: Any = object()


def chunks_of(source: Any, name: str) -> Any:
    """What a provider streams, as an iterator; ServerError for what can be none."""
    if hasattr(source, "__next__") or hasattr(source, "__anext__"):
        return source
    if not hasattr(source, "__iter__") or isinstance(source, str):
        raise named(ServerError(
            f"the stream is {type(source).__name__}, where an iterator of texts is due", provider=name,
            retryable=False, hint="ask_stream yields texts",
        ))  # fmt: skip
    return iter(source)


class _Held:
    def __init__(self, source: Any, make: Make, end: End | None = None, name: str = "", around: Around = told) -> None:
        self._name, self._around = name, around
        self._source, self._make, self._end = chunks_of(source, name), make, end
        self._texts: list[str] = []
        self._result: AskResult | None = None
        self._over = False

    @property
    def result(self) -> AskResult:
        """The whole answer, once the stream has ended; UsageError before."""
        if self._result is None:
            raise named(UsageError("the stream has not ended yet", hint="read it to its end first", sent="yes"))
        return self._result

    def _taken(self, text: Any) -> str:
        if not isinstance(text, str):
            raise named(ServerError(
                f"the stream gave {type(text).__name__}, where a text is due", provider=self._name, retryable=False,
                hint="ask_stream yields texts",
            ))  # fmt: skip
        self._texts.append(text)
        return text

    def _ended(self) -> Any:
        self._over = True
        self._result = self._make("".join(self._texts))
        return self._end(self._result) if self._end is not None else None

    def _left(self) -> Any:
        """Told of whoever leaves before the end; what was used is not known then."""
        if self._over:
            return None
        self._over = True
        if self._end is None or not self._texts:
            return None
        return self._end(AskResult("".join(self._texts)))


class TextStream(_Held, Iterator[str]):
    """The texts of an answer. Leaving early: use `with`, or call close(); the provider then stops at once."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._over:
            raise StopIteration
        try:
            with self._around(self._name):
                text = next(self._source, _OVER)
            if text is not _OVER:
                return self._taken(text)
        except BaseException:
            self._over = True
            raise
        self._ended()
        raise StopIteration

    def close(self) -> None:
        """Cut the stream unless it has ended."""
        close = getattr(self._source, "close", None)
        if callable(close):
            close()
        self._left()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTextStream(_Held, AsyncIterator[str]):
    """The same, awaited: `async for`, `async with`, `await close()`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._over:
            raise StopAsyncIteration
        try:
            with self._around(self._name):
                text = await anext(self._source, _OVER)
            if text is not _OVER:
                return self._taken(text)
        except BaseException:
            self._over = True
            raise
        await _done(self._ended())
        raise StopAsyncIteration

    async def close(self) -> None:
        """Cut the stream unless it has ended."""
        close = getattr(self._source, "close", None) or getattr(self._source, "aclose", None)
        if callable(close):
            await _done(close())
        await _done(self._left())

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _done(outcome: Any) -> None:
    if inspect.isawaitable(outcome):
        await outcome
