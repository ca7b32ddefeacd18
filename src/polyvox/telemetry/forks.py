"""What observers keep, put right in the children of a process: their threads and calls are the parent's, and a lock
may have been held by a thread that is not there."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Forked(Protocol):
    """What is put right."""

    def after_fork(self) -> None:
        """Begin anew: this is a child process."""


_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_forks(one: Forked) -> None:
    """Call its `after_fork` in every child of this process, as long as it lives."""
    _watched.add(one)


def _after_fork() -> None:
    for one in list(_watched):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
