"""Two attempts at once: when the first shows nothing for a while, a second begins elsewhere, and whichever has
something first answers. Both are billed; the one that lost is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from polyvox.engine.attempt import let_go
from polyvox.engine.contract import Spent
from polyvox.errors import PolyvoxError

if TYPE_CHECKING:
    from polyvox.engine.attempt import Try
    from polyvox.engine.call import Call

T = TypeVar("T")


async def raced(
    call: Call,
    first: Try,
    make: Callable[[Try], Awaitable[T]],
    spent: Callable[[Try, T | None], Awaitable[Spent | None]],
) -> tuple[Try, T]:
    """The attempt that had something first, and what it had. spent says what one that lost used and cost, from what
    it had where it had all. Raises what the last of them failed with; that one alone is still under way then."""
    plan = call.plan
    assert plan is not None
    tasks: dict[asyncio.Future[T], Try] = {asyncio.ensure_future(make(first)): first}
    patience = plan.hedge_after
    try:
        while True:
            done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            patience = None
            if not done:
                taken = await plan.hedge()
                if taken is not None:
                    second = call.trying_at(taken, call.trying)
                    tasks[asyncio.ensure_future(make(second))] = second
                continue
            won = next((task for task in tasks if task in done and task.exception() is None), None)
            if won is not None:
                winner = tasks.pop(won)
                await _cut(call, tasks, spent)
                call.trying = (winner,)
                return winner, won.result()
            for task in done:
                failed = tasks.pop(task)
                error = task.exception()
                assert error is not None
                if not tasks or not isinstance(error, PolyvoxError):
                    raise error
                let_go(error)
                await call.broke_off(failed, error)
                plan.failed_beside(failed.taken, error)
    except BaseException:
        await _stopped(tasks)
        raise


async def _cut(
    call: Call, tasks: dict[asyncio.Future[T], Try], spent: Callable[[Try, T | None], Awaitable[Spent | None]]
) -> None:
    """Stop those that lost, and tell what they cost."""
    plan = call.plan
    assert plan is not None
    ended = {task for task in tasks if task.done()}
    await _stopped(tasks)
    for task, attempt in tasks.items():
        error = None if task.cancelled() else task.exception()
        if task in ended and isinstance(error, PolyvoxError):  # it lost nothing: it failed at the same moment
            let_go(error)
            await call.broke_off(attempt, error)
            plan.failed_beside(attempt.taken, error)
            continue
        whole = None if task.cancelled() or error is not None else task.result()
        cost = await spent(attempt, whole)
        attempt.note("hedged", None, None, cost)
        call.lost(attempt, cost)
        await attempt.told(cost)


async def _stopped(tasks: dict[asyncio.Future[Any], Any]) -> None:
    for task in tasks:
        if not (isinstance(task, asyncio.Task) and task.cancelling()):  # one that is let go of already may finish that
            task.cancel()
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen: it is told nowhere else
