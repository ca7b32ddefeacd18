"""The names of calls: 128 bits, of which the first 56 are the time in microseconds and the rest chance. Sorted by name
they are sorted by time."""

from __future__ import annotations

from collections.abc import Callable

_TIME = 7
_CHANCE = 9


def new_id(started: int, random_bytes: Callable[[int], bytes]) -> str:
    """A name for a call that starts at this microsecond since the epoch, as 32 hexadecimal digits.

    >>> new_id(1_795_000_000_000_000, lambda count: bytes(count))
    '06608b015f3000000000000000000000'
    """
    return (started.to_bytes(_TIME, "big") + random_bytes(_CHANCE)).hex()


def floor_of(at: int) -> bytes:
    """The least name of a call that starts at this microsecond or later."""
    return max(0, min(at, 2**56 - 1)).to_bytes(_TIME, "big") + bytes(_CHANCE)


def time_of(id: bytes) -> int:
    """The microsecond at which a call started, from its name."""
    return int.from_bytes(id[:_TIME], "big")
