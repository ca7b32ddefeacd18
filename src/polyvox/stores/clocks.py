"""Time for what outlives a process: the wall clock, without its jumps."""

from __future__ import annotations

import time
from collections.abc import Callable

SKEW = 300.0
"""Seconds by which clocks of processes may differ: what was written later than that from now is not believed."""


def _since_boot() -> float:
    # Counts on while the machine sleeps, which the monotonic clock does not do everywhere.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_TICKS = _since_boot if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic


def steady_wall(wall: Callable[[], float] = time.time, ticks: Callable[[], float] = _TICKS) -> Callable[[], float]:
    """A clock of seconds since the epoch that reads the wall clock once and goes on by one that never jumps."""
    start = wall() - ticks()
    return lambda: start + ticks()
