"""How those who handed something to the writer learn what came of it: each event loop is woken once for all of its
waiters, a thread by its lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, TypeAlias

Outcome: TypeAlias = tuple[Any, BaseException | None]


class Waiting:
    """A thread that waits for one result."""

    __slots__ = ("_done", "outcome")

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self.outcome: Outcome = (None, None)

    def set(self, outcome: Outcome) -> None:
        """What came of it."""
        self.outcome = outcome
        self._done.release()

    def wait(self, timeout: float = -1) -> bool:
        """Whether the result came within so many seconds; -1 waits without end."""
        return self._done.acquire(timeout=timeout)


Waiter: TypeAlias = "asyncio.Future[Any] | Waiting | None"


class Told:
    """What one event loop was told, and whether it has heard: one that is closed meanwhile never does."""

    __slots__ = ("heard", "loop", "orphaned", "outcomes")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outcomes: list[tuple[asyncio.Future[Any], Outcome]], orphaned: Any
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.outcomes: list[tuple[asyncio.Future[Any], Outcome]] = outcomes
        self.orphaned: Any = orphaned
        self.heard: bool = False

    def hear(self) -> None:
        """In the loop: each gets its outcome."""
        self.heard = True
        for future, outcome in self.outcomes:
            if future.done():
                self.orphaned(future, outcome)
            elif outcome[1] is None:
                future.set_result(outcome[0])
            else:
                future.set_exception(outcome[1])

    def unheard(self) -> bool:
        """Whether nobody will ever hear it; those who waited are orphans then."""
        if self.heard or not self.loop.is_closed():
            return False
        self.heard = True
        for future, outcome in self.outcomes:
            self.orphaned(future, outcome)
        return True


def tell(outcomes: Iterable[tuple[Waiter, Outcome]], orphaned: Any) -> list[Told]:
    """Give each waiter its outcome. orphaned(future, outcome) is called for one who was cancelled meanwhile, and
    for all of a loop that is closed. What loops were told, for `Told.unheard`."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
    for waiter, outcome in outcomes:
        if waiter is None:
            continue
        if isinstance(waiter, Waiting):
            waiter.set(outcome)
        else:
            by_loop.setdefault(waiter.get_loop(), []).append((waiter, outcome))
    given = []
    for loop, told in by_loop.items():
        one = Told(loop, told, orphaned)
        given.append(one)
        try:
            loop.call_soon_threadsafe(one.hear)
        except RuntimeError:  # the loop is closed
            one.unheard()
    return given
