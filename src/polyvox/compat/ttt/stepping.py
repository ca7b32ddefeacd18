"""Awaited things for ordinary code: on the core's background loop, one step at a time. Nothing here starts a loop."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any, TypeVar

from polyvox.compat.errors import speaking
from polyvox.errors import UsageError

T = TypeVar("T")


@functools.cache
def _portal() -> ModuleType:
    """The core's loop, loaded with the first question; kept, for nothing can be imported while a program ends."""
    from polyvox import portal

    return portal


def waited(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives."""
    with speaking():
        found: T = _portal().run(coroutine)
        return found


def stepped(begin: Callable[[], AsyncIterator[str]]) -> Iterator[str]:
    """The pieces of something that is iterated asynchronously; it is closed when this is left."""
    pieces = begin()
    try:
        while (piece := waited(_next(pieces))) is not None:
            yield piece
    finally:
        # Where nobody can wait for it, at exit or in the loop's own thread, it is dropped, and the loop closes it.
        if not sys.is_finalizing():
            with contextlib.suppress(UsageError):
                waited(close(pieces))


async def _next(pieces: AsyncIterator[str]) -> str | None:
    async for piece in pieces:
        return piece
    return None


async def close(pieces: AsyncIterator[str]) -> None:
    """Close what can be closed."""
    end = getattr(pieces, "aclose", None)
    if end is not None:
        await end()
