"""Awaited things for ordinary code: on the core's background loop, one step at a time. Nothing here starts a loop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from polyvox import portal
from polyvox.compat.errors import speaking
from polyvox.errors import UsageError

T = TypeVar("T")


def waited(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives."""
    with speaking():
        return portal.run(coroutine)


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
