"""Code of others, called without stopping the event loop: coroutine functions in the loop, all else in a
thread. It knows no model. A thread cannot be stopped: a cancelled call stops waiting, and the thread ends
with what it runs."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from polyvox.errors import UsageError

Job = tuple[Callable[[], Any], "asyncio.Future[tuple[Any, BaseException | None]]"]


class Worker:
    """A daemon thread that runs one job after another, in the context variables of whoever made it. Its own
    thread, because a pool would be used up by calls that hang, and would keep the interpreter from exiting."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Job | Callable[[], Any] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        try:
            threading.Thread(target=_work, args=(self._jobs, self._loop, context), name=name, daemon=True).start()
        except RuntimeError as error:
            raise UsageError(f"no thread can be started: {error}", sent="no") from error

    async def run(self, job: Callable[[], Any]) -> Any:
        """What the job gives, or raises; after a cancellation it runs on unheard."""
        done: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        self._jobs.put((job, done))
        result, error = await done
        if error is not None:
            raise error
        return result

    def stop(self, last: Callable[[], Any] | None = None) -> None:
        """End the thread once it is free, after one last job; waits for nothing. Safe in a finaliser."""
        if last is not None:
            self._jobs.put(last)
        self._jobs.put(None)


def _work(
    jobs: SimpleQueue[Job | Callable[[], Any] | None], loop: asyncio.AbstractEventLoop, context: contextvars.Context
) -> None:
    while (item := jobs.get()) is not None:
        if callable(item):
            context.run(item)
            continue
        job, done = item
        try:
            result, error = context.run(job), None
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is waited for
            result, error = None, raised
        try:
            loop.call_soon_threadsafe(_settle, done, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits
        # Nothing of the last job is kept alive while the next is waited for.
        del item, job, done, result, error


def _settle(done: asyncio.Future[tuple[Any, BaseException | None]], result: Any, error: BaseException | None) -> None:
    if not done.done():
        done.set_result((result, error))


def runs_in_loop(function: Callable[..., Any]) -> bool:
    """Whether calling it only makes a coroutine or an asynchronous generator."""
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


async def called(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function gives, whether it is synchronous or not; `name` is its thread's."""
    job = partial(function, *args, **kwargs)
    if runs_in_loop(function):
        result = job()
    else:
        worker = Worker(name)
        try:
            result = await worker.run(job)
        finally:
            worker.stop()
    return await result if inspect.isawaitable(result) else result
