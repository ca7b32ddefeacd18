"""A thread that does what an observer need not do while a call waits, so that an exporter that hangs or fails holds up
nobody. It knows nothing of what it does."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyvox.telemetry.forks import watch_forks

log: logging.Logger = logging.getLogger("polyvox.telemetry")

_AT_EXIT = 2.0  # seconds a program that ends waits for what is left


class Later:
    """Does things in order, in one thread of its own that starts with the first of them.

    When `most` wait already, further ones are dropped and counted; so are those that fail. Neither is raised.
    """

    def __init__(self, name: str, most: int = 2048) -> None:
        self._name = name
        self._most = most
        self.dropped: int = 0
        self.failed: int = 0
        self._closed = False
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """In a child: the thread is the parent's, and so is what it was to do."""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, what: Callable[..., Any], *arguments: Any) -> None:
        """Do this when all before it is done; nothing any more once it is closed."""
        if self._closed:
            return
        if self._thread is None:
            self._start()
        if self._queue.qsize() >= self._most:
            self._drop()
            return
        self._queue.put((what, arguments))

    def flush(self, timeout: float = 5.0) -> bool:
        """Whether all that was given so far is done within so many seconds."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put((done.set, ()))
        return done.wait(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Do what is left and end the thread; whether that took less than so many seconds."""
        self._closed = True
        atexit.unregister(self._at_exit)
        thread = self._thread
        if thread is None:
            return True
        self._queue.put(None)
        thread.join(timeout)
        return not thread.is_alive()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=_work, args=(self, self._queue), name=self._name, daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        self.close(_AT_EXIT)

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            log.warning("%s: what observes calls does not keep up, and is told of some no more", self._name)

    def fail(self, error: Exception) -> None:
        """Count a failure; the first is logged."""
        self.failed += 1
        if self.failed == 1:
            log.warning("%s: what observes calls fails, which harms no call: %s", self._name, kind_and_place(error))


def kind_and_place(error: BaseException) -> str:
    """An error without its words, which may quote what was observed: "ValueError at exporter.py:12"."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where


def _work(later: Later, todo: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]) -> None:
    while (next_one := todo.get()) is not None:
        what, arguments = next_one
        try:
            what(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises
            later.fail(error)
        del next_one, what, arguments
