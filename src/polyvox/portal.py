"""The one background event loop behind the sync face: a thread hands it a coroutine and waits for the
result. It knows nothing of models or transports; forks, signals and interpreter exit are its business.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its fork hooks must be there before a fork waits for ours
import os
import sys
import threading
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

from polyvox.errors import CallCancelledError, UsageError

T = TypeVar("T")

CANCEL_SECONDS = 2.0  # how long Ctrl-C waits for a call to clean up, and close() for all of them
# Waiting looks up now and then: on Windows Ctrl-C does not wake a lock, and elsewhere a signal that lands just
# before the wait begins does not either.
_WAIT = 0.1


class _Call(Generic[T]):
    """One coroutine on its way through the loop. A bare lock is the cheapest thing a thread can wait on."""

    __slots__ = ("coroutine", "done", "error", "result", "task")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.task: asyncio.Task[None] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class Portal:
    """A background event loop that starts with its first call and is started anew in every process."""

    def __init__(self) -> None:
        self._inherited: list[Any] = []
        self._exiting = False
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopper: asyncio.Task[None] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the background loop and wait for its result, in the caller's context variables.

        The error it raises is raised here. UsageError in the loop's own thread, where waiting would
        never end; CallCancelledError when the coroutine was cancelled. Ctrl-C cancels it.

        >>> async def answer():
        ...     return 42
        >>> run(answer())
        42
        """
        if threading.current_thread() is self._thread and os.getpid() == self._pid:
            coroutine.close()
            raise UsageError(
                "a sync call inside polyvox's own event loop would wait for itself",
                hint="tools, hooks and callbacks that call polyvox must be async and await AsyncClient",
                sent="no",
            )
        call = _Call(coroutine)
        context = copy_context()
        # Under the lock, so that no call slips into a loop that close() has already stopped.
        with self._lock:
            try:
                loop = self._running_loop()
            except RuntimeError as error:
                coroutine.close()
                raise UsageError(f"no background thread can be started: {error}", sent="no") from error
            loop.call_soon_threadsafe(self._start, call, loop, context)
        try:
            while not call.done.acquire(timeout=_WAIT):
                pass
        except BaseException:
            loop.call_soon_threadsafe(_cancel, call)
            call.done.acquire(timeout=CANCEL_SECONDS)
            raise
        if call.error is None:
            return call.result  # type: ignore[return-value]
        try:
            if isinstance(call.error, asyncio.CancelledError):
                raise CallCancelledError("the call was cancelled") from call.error
            raise call.error
        finally:
            # The traceback holds this frame; without this, frame and error would hold each other.
            del call

    def close(self) -> None:
        """Cancel what runs and stop the thread, within a few seconds; the next run() starts a new one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            if self._pid != os.getpid() or loop is None or thread is None:
                return
            self._loop = self._thread = None
            loop.call_soon_threadsafe(self._stop, loop)
        if thread is not threading.current_thread():
            thread.join(CANCEL_SECONDS)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            self._after_fork()
        if self._loop is None:
            if sys.is_finalizing():  # a thread that is started now never runs
                raise RuntimeError("the interpreter is exiting")
            loop = _new_loop()
            thread = threading.Thread(target=_serve, args=(loop,), name="polyvox-portal", daemon=True)
            try:
                thread.start()
            except BaseException:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        return self._loop

    def _start(self, call: _Call[Any], loop: asyncio.AbstractEventLoop, context: Any) -> None:
        call.task = loop.create_task(self._drive(call), context=context)

    async def _drive(self, call: _Call[Any]) -> None:
        # The waiting thread is woken from inside: a done callback would cost one more turn of the loop.
        try:
            call.result = await call.coroutine
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            call.error = error
        # At exit only daemon threads can still be waiting: woken, they would print a traceback each.
        if not self._exiting:
            call.done.release()

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        # Kept, because a loop holds its tasks by weak references only.
        self._stopper = loop.create_task(_wind_down(loop))

    def _before_fork(self) -> None:
        # A fork while another thread starts the loop would leave the child a half-made one, and an import
        # of the loop's library that never ends.
        self._lock.acquire()

    def _after_fork_here(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        """In the child: the thread is not here, and the loop's selector is the parent's. Neither is touched,
        nor freed, because freeing would close what the parent still uses.
        """
        self._inherited.append((self._loop, self._thread))
        self._forget()

    def _at_exit(self) -> None:
        self._exiting = True
        self.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop

        # With one of the standard descriptors closed, uvloop would be given its number and abort the process.
        for number in range(3):
            os.fstat(number)
    except (ImportError, OSError):
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _wind_down(loop: asyncio.AbstractEventLoop) -> None:
    """Let cancelled tasks clean up, then close what hangs on the loop's generators, then stop it."""
    try:
        tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS / 2)
        await loop.shutdown_asyncgens()
    finally:
        loop.stop()


def _cancel(call: _Call[Any]) -> None:
    if call.task is not None:
        call.task.cancel()


_portal = Portal()
run: Final = _portal.run
close: Final = _portal.close

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_portal._before_fork,
        after_in_parent=_portal._after_fork_here,
        after_in_child=_portal._after_fork,
    )
atexit.register(_portal._at_exit)
