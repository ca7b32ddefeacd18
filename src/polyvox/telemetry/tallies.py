"""Figures counted as plain numbers, so that counting costs a call next to nothing: whoever shows them makes of them
what it needs. It knows no library of metrics and no call."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple, TypeAlias

Key: TypeAlias = tuple[str, ...]
"""A figure's name, and its further labels."""

_ENDLESS = float("inf")


class Times:
    """How often something took so many seconds, by the upper edges of buckets, and how many they were in all."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges: tuple[float, ...] = edges
        self.counts: list[int] = [0] * (len(edges) + 1)
        self.total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one; what is no time is not counted."""
        if 0.0 <= seconds < _ENDLESS:
            self.counts[bisect_left(self.edges, seconds)] += 1
            self.total += seconds

    def shown(self) -> Shown:
        """As they are now."""
        return Shown(tuple(zip((*self.edges, _ENDLESS), accumulate(self.counts), strict=True)), self.total)


class Shown(NamedTuple):
    """Times at one moment: how many were no longer than each edge, the last of which is endless, and their sum."""

    upto: tuple[tuple[float, int], ...]
    total: float


class _Timed(dict[Key, Times]):
    """Times by their keys, made when one is first wanted."""

    def __init__(self, edges: Mapping[str, tuple[float, ...]]) -> None:
        self._edges = edges

    def __missing__(self, key: Key) -> Times:
        times = self[key] = Times(self._edges[key[0]])
        return times


class Tally:
    """The figures of one place, by their keys; edges are those of the buckets by a figure's name. Whoever adds holds a
    lock."""

    __slots__ = ("counts", "times")

    def __init__(self, edges: Mapping[str, tuple[float, ...]]) -> None:
        self.counts: defaultdict[Key, float] = defaultdict(float)
        self.times: _Timed = _Timed(edges)
