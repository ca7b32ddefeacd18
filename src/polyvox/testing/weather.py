"""How a simulated provider does at a time: how long it takes, which share of calls fails, and how. Pure: chance comes
as a source that is handed in, time as a number of seconds."""

from __future__ import annotations

from random import Random
from typing import Protocol

from msgspec import Struct

# ---- how long it takes ------------------------------------------------------------------------


class Latency(Protocol):
    """Seconds until the first token. busy is how many calls are being answered already."""

    def draw(self, chance: Random, busy: int) -> float:
        """The seconds of one call."""


class Constant(Struct, frozen=True):
    """Always the same."""

    seconds: float = 0.5

    def draw(self, chance: Random, busy: int) -> float:
        """See `Latency`."""
        return self.seconds


class LogNormal(Struct, frozen=True):
    """Half are faster than the median; sigma is the spread of the logarithm."""

    median: float = 0.5
    sigma: float = 0.5

    def draw(self, chance: Random, busy: int) -> float:
        """See `Latency`."""
        return self.median * chance.lognormvariate(0.0, self.sigma)


class HeavyTail(Struct, frozen=True):
    """Pareto's: never faster than least, and now and then many times slower; the smaller alpha, the more often."""

    least: float = 0.2
    alpha: float = 1.2
    most: float = 600.0

    def draw(self, chance: Random, busy: int) -> float:
        """See `Latency`."""
        return min(self.most, self.least * chance.paretovariate(self.alpha))


class SlowFirst(Struct, frozen=True):
    """As usual, but that a share of the calls gets its first token late."""

    usual: Latency = LogNormal()
    slow: Latency = Constant(30.0)
    share: float = 0.2

    def draw(self, chance: Random, busy: int) -> float:
        """See `Latency`."""
        return (self.slow if chance.random() < self.share else self.usual).draw(chance, busy)


class UnderLoad(Struct, frozen=True):
    """As usual while few ask; twice as long at capacity, and from there with the square of those who wait."""

    usual: Latency = LogNormal()
    capacity: int = 8

    def draw(self, chance: Random, busy: int) -> float:
        """See `Latency`."""
        return self.usual.draw(chance, busy) * (1.0 + (busy / self.capacity) ** 2)


# ---- what goes wrong --------------------------------------------------------------------------

TROUBLES = ("cut", "stall", "bad_chunk", "error_event", "gave_up")
"""What can happen to an answer that has begun: it stops without its end, nothing more comes, a piece is damaged, an
error comes in its place, or the model itself says that it gave up."""

Shares = tuple[tuple[str, float], ...]


class Conditions(Struct, frozen=True):
    """How a provider does for a while.

    Attributes:
        errors: shares of calls that fail before an answer begins, by the name of the failure; see
            `polyvox.testing.simulated.FAILURES`.
        troubles: shares of answers that go wrong once they have begun, by one of TROUBLES.
        slow: how many times longer everything takes.
        per_second: requests a second above which it says 429; None where it takes all.
        burst: how many of those may come at once.
        tells: whether a 429 says how long to wait.
    """

    errors: Shares = ()
    troubles: Shares = ()
    slow: float = 1.0
    per_second: float | None = None
    burst: int = 1
    tells: bool = True


HEALTHY = Conditions()
OUTAGE = Conditions(errors=(("connection", 0.5), ("server", 0.3), ("overloaded", 0.2)))
BROWN_OUT = Conditions(errors=(("overloaded", 0.2),), troubles=(("stall", 0.05),), slow=8.0)
SHAKY = Conditions(
    errors=(("server", 0.1), ("connection", 0.05), ("overloaded", 0.05), ("bad_response", 0.03)),
    troubles=tuple((trouble, 0.04) for trouble in TROUBLES),
)


class Spell(Struct, frozen=True):
    """Conditions from a time on and for so many seconds; again and again where every is set, from start to start."""

    begins: float
    lasts: float
    conditions: Conditions
    every: float | None = None

    def covers(self, now: float) -> bool:
        """Whether it is so now."""
        since = now - self.begins
        if since < 0:
            return False
        return (since if self.every is None else since % self.every) < self.lasts


class Weather(Struct, frozen=True):
    """Conditions over time: the last spell that covers a moment holds, the usual ones otherwise.

    >>> Weather(HEALTHY, (Spell(10, 5, OUTAGE),)).at(12) is OUTAGE
    True
    """

    usual: Conditions = HEALTHY
    spells: tuple[Spell, ...] = ()

    def at(self, now: float) -> Conditions:
        """How it is so many seconds after the beginning."""
        found = self.usual
        for spell in self.spells:
            if spell.covers(now):
                found = spell.conditions
        return found


def outage(begins: float, lasts: float, usual: Conditions = HEALTHY) -> Weather:
    """All is as usual, but that for a while nothing works."""
    return Weather(usual, (Spell(begins, lasts, OUTAGE),))


def flapping(up: float, down: float, usual: Conditions = HEALTHY) -> Weather:
    """It works for so many seconds, then fails for so many, over and over."""
    return Weather(usual, (Spell(up, down, OUTAGE, every=up + down),))


def one_of(shares: Shares, chance: float) -> str | None:
    """Which of them a number in [0, 1) falls on; None for the rest.

    >>> one_of((("cut", 0.25), ("stall", 0.25)), 0.3)
    'stall'
    """
    for name, share in shares:
        if chance < share:
            return name
        chance -= share
    return None
