"""Random bytes of the system, fetched many at a time: asking for sixteen of them lets go of Python's lock, and the
thread that asked may then wait for the one that writes. It knows nothing of what they are for."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable

PIECE = 16
_PIECES = 256


class RandomBytes:
    """Gives random bytes, as `os.urandom` does, each of them once: to whatever thread asks, and in a fork other ones
    than its parent has. source is where they come from.

    >>> draw = RandomBytes()
    >>> len(draw(9)), draw(16) == draw(16)
    (9, False)
    """

    __slots__ = ("__weakref__", "_pieces", "_source")

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._pieces: deque[bytes] = deque()
        _pools.add(self)

    def __call__(self, count: int) -> bytes:
        """So many random bytes."""
        if count > PIECE:
            return self._source(count)
        try:
            return self._pieces.popleft()[:count]
        except IndexError:
            drawn = self._source(PIECE * _PIECES)
            pieces = [drawn[start : start + PIECE] for start in range(0, len(drawn), PIECE)]
            self._pieces.extend(pieces[1:])
            return pieces[0][:count]

    def after_fork(self) -> None:
        """In a child: what was drawn is the parent's."""
        self._pieces = deque()


_pools: weakref.WeakSet[RandomBytes] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

random_bytes: RandomBytes = RandomBytes()
"""Those of this process."""
