"""Leaves a deployment alone after failures, for a time that grows, and tries it with one call before it trusts it
again; and never leaves a pool without members. Pure: the time is told, in seconds of a clock that nobody sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

IN_A_ROW = 5
SHARE, AT_LEAST, OVER = 0.5, 20, 30.0
"""Or this share of failures among at least so many calls within so many seconds."""
FIRST, LONGEST = 15.0, 300.0
"""Seconds it stays open the first time, and at most."""
FLOOR = 0.5
"""The share of a pool that stays in whatever happens."""
_SLOTS = 10
_NO_TURN = -1

State = Literal["closed", "open", "half-open"]

FAILURES = {
    "server": "the provider says that it failed",
    "overloaded": "it has no capacity; another one may",
    "connection": "nothing listens there, or nobody comes through",
    "timeout": "it does not answer in time",
    "stream_interrupted": "it breaks off what it says",
    "bad_response": "what answers is not what should",
}
"""The kinds of error that speak against a deployment, with the reason. No other kind does: a request that is wrong, a
key that is not accepted or an account that is empty fails the same when the provider is well; a rate limit is for
`Learned`; what was cancelled, or refused on this side, says nothing of it."""


class Breaker:
    """The state of one deployment. Whoever begins a call asks `begin` for its turn, and gives it back with the end.

    >>> breaker = Breaker()
    >>> for _ in range(5):
    ...     breaker.ended(breaker.begin(0.0), "server", 0.0)
    >>> breaker.allows(14.9), breaker.allows(15.0)
    (False, True)
    >>> breaker.ended(breaker.begin(15.0), None, 16.0)
    >>> breaker.state(16.0)
    'closed'
    """

    __slots__ = ("_bad", "_good", "_pause", "_probe", "_row", "_slot", "_turn", "opened", "until")

    def __init__(self) -> None:
        self.until: float | None = None
        """Until when it is open; None while it is closed."""
        self.opened: float = 0.0
        """Since when it has not been closed."""
        self._turn = self._row = 0
        self._pause = FIRST
        self._probe: float | None = None
        self._slot = 0
        self._good, self._bad = [0] * _SLOTS, [0] * _SLOTS

    def state(self, now: float) -> State:
        """How it stands."""
        if self.until is None:
            return "closed"
        return "open" if now < self.until else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a call may begin: when it is closed, or as the only one that tries. Changes nothing."""
        if self.until is None:
            return True
        # Nobody waits for ever for a probe that does not come back.
        return now >= self.until and (self._probe is None or now - self._probe >= LONGEST)

    def begin(self, now: float) -> int:
        """A call begins, allowed or not; its turn, for `ended`: what comes of calls that began before the breaker last
        changed, or beside one that tries, is no news."""
        if self.until is not None:
            if self.allows(now):
                self._probe = now
                self._turn += 1
            elif now >= self.until:
                return _NO_TURN
        return self._turn

    def ended(self, turn: int, kind: str | None, now: float) -> None:
        """A call of this turn ended well (None), or with an error of this kind."""
        if turn != self._turn:
            return
        if kind is None:
            if self.until is not None:
                self._close(now)
            self._row = 0
            if int(now * _SLOTS / OVER) != self._slot:
                self._move(now)
            self._good[self._slot % _SLOTS] += 1
        elif kind in FAILURES:
            self._failed(now)
        else:
            self._probe = None  # the next one may try

    def _failed(self, now: float) -> None:
        if self.until is not None:
            if now >= self.until:
                self._pause = min(self._pause * 2, LONGEST)
                self._open(now)
            return
        self._row += 1
        if int(now * _SLOTS / OVER) != self._slot:
            self._move(now)
        self._bad[self._slot % _SLOTS] += 1
        if self._row >= IN_A_ROW or self._many():
            self.opened = now
            self._open(now)

    def _many(self) -> bool:
        bad = sum(self._bad)
        calls = bad + sum(self._good)
        return calls >= AT_LEAST and bad >= SHARE * calls

    def _open(self, now: float) -> None:
        self.until, self._probe = now + self._pause, None
        self._turn += 1

    def _close(self, now: float) -> None:
        self.until, self._probe, self._pause = None, None, FIRST
        self._turn += 1
        self._good, self._bad = [0] * _SLOTS, [0] * _SLOTS
        self._slot = int(now * _SLOTS / OVER)

    def _move(self, now: float) -> None:
        """Forget what is older than the window."""
        slot = int(now * _SLOTS / OVER)
        for past in range(max(self._slot + 1, slot - _SLOTS + 1), slot + 1):
            self._good[past % _SLOTS] = self._bad[past % _SLOTS] = 0
        self._slot = slot


def allowed(breakers: Sequence[Breaker], now: float, floor: float = FLOOR) -> list[int]:
    """Who of a pool may be asked: those whose breaker allows it, and at least this share of all and one. Where breakers
    leave fewer, those that have been out longest come back first."""
    out = [place for place, breaker in enumerate(breakers) if breaker.until is not None]
    if not out:
        return list(range(len(breakers)))
    out = [place for place in out if not breakers[place].allows(now)]
    missing = max(1, math.ceil(len(breakers) * floor)) - (len(breakers) - len(out))
    if missing > 0:
        out.sort(key=lambda place: breakers[place].opened)  # equal ones stay in their order
        del out[:missing]
    gone = set(out)
    return [place for place in range(len(breakers)) if place not in gone]
