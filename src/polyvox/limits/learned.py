"""What a provider's refusals and heads teach of its limits, where nobody configured them or they are lower than was
said. It counts nothing and reads no head; times are seconds of a clock that nobody sets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from polyvox.limits.values import NO_LIMITS, Full, Limits, Used

LONGEST_WISH = 3600.0
"""A pause that a refusal asks for is kept for so many seconds at most, then it is tried."""
LONGEST_HEAD = 60.0
"""A head of an answer that says that nothing remains is believed for so long: windows are a minute, mostly."""
FORGET = 900.0
"""Seconds without a refusal after which what refusals taught is forgotten."""
LEAST = Limits(concurrency=1, requests_per_minute=30)
"""Nothing lower is learned: a refusal of one call among few says little of the rate, and pauses do the rest."""
_STEPS = 20


class Allowance(Protocol):
    """What a head says of one limit, as `polyvox.dialects.rate_limits` reads it."""

    @property
    def remaining(self) -> int | None:
        """How much is left."""

    @property
    def reset(self) -> float | None:
        """Seconds until all of it is there again."""


class Pause:
    """Until when nobody asks. All deployments whose calls count in one quota, such as those of one key, share one."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until: float = -math.inf

    def ask(self, seconds: float, now: float, most: float = LONGEST_WISH) -> None:
        """A server asks for a pause of so many seconds. It never makes one shorter; nonsense is left out."""
        if seconds > 0:  # which is not so of NaN
            self.until = max(self.until, now + min(seconds, most))

    def full(self, now: float) -> Full | None:
        """What to say to whoever asks now."""
        return Full("pause", 0, self.until - now) if now < self.until else None


class _Learned:
    """One number: halved by refusals, grown by one share for each full round of successes."""

    __slots__ = ("grown", "least", "step")

    def __init__(self, least: int | None) -> None:
        self.least = float(least or 1)
        self.grown: float | None = None
        self.step = 1.0

    def cut(self, in_use: int, configured: int | None) -> None:
        # More than is in use was refused, whatever the limit is.
        most = in_use if self.grown is None else min(self.grown, max(in_use, 1))
        if configured is not None:
            most = min(most, configured)
        self.step = max(1.0, most / _STEPS)
        self.grown = max(self.least, most / 2)

    def grow(self) -> None:
        if self.grown is not None:
            self.grown += self.step / self.grown

    def limit(self, configured: int | None) -> int | None:
        if self.grown is None or (configured is not None and self.grown >= configured):
            return configured
        return int(self.grown)


def _fresh() -> tuple[_Learned, _Learned]:
    return _Learned(LEAST.concurrency), _Learned(LEAST.requests_per_minute)


class Learned:
    """The limits of one deployment as they were configured and learned, and its pause. Usable from several threads:
    what they lose of each other is one step at most.

    >>> learned = Learned()
    >>> learned.refused(Used(in_flight=8, requests=120, tokens=0), began=0.0, now=1.0, wish=2.5)
    >>> learned.limits
    Limits(concurrency=4, requests_per_minute=60, tokens_per_minute=None)
    >>> learned.full(1.0)
    Full(what='pause', limit=0, wait=2.5)
    """

    __slots__ = ("_concurrency", "_configured", "_refused", "_requests", "limits", "pause")

    def __init__(self, configured: Limits = NO_LIMITS, pause: Pause | None = None) -> None:
        self.limits: Limits = configured
        self._configured = configured
        """What to take leases with."""
        self.pause: Pause = pause if pause is not None else Pause()
        self._refused: float | None = None
        self._concurrency, self._requests = _fresh()

    def configure(self, configured: Limits) -> None:
        """The limits were changed; what was learned stays."""
        self._configured = configured
        self._show()

    def full(self, now: float) -> Full | None:
        """Whether there is a pause."""
        return self.pause.full(now) if now < self.pause.until else None

    def well(self, now: float) -> None:
        """A call ended well."""
        if self._refused is None:
            return
        if now - self._refused > FORGET:
            self._refused = None
            self._concurrency, self._requests = _fresh()
        else:
            self._concurrency.grow()
            self._requests.grow()
        self._show()

    def refused(self, used: Used, *, began: float, now: float, wish: float | None = None) -> None:
        """A call that began at a time was refused for a rate limit, while so much was in use, itself included; wish is
        the pause that the server asks for, seconds. Calls that began before the last such refusal was heard say
        nothing new."""
        if wish is not None:
            self.pause.ask(wish, now)
        if self._refused is not None and began <= self._refused:
            return
        self._refused = now
        self._concurrency.cut(used.in_flight, self._configured.concurrency)
        self._requests.cut(used.requests, self._configured.requests_per_minute)
        self._show()

    def heard(self, allowances: Iterable[Allowance], now: float) -> None:
        """An answer says what is left: where that is nothing, nobody asks until there is something again."""
        for allowance in allowances:
            if allowance.remaining == 0 and allowance.reset is not None:
                self.pause.ask(allowance.reset, now, LONGEST_HEAD)

    def _show(self) -> None:
        configured = self._configured
        concurrency = self._concurrency.limit(configured.concurrency)
        requests = self._requests.limit(configured.requests_per_minute)
        shown = self.limits
        if (
            concurrency != shown.concurrency
            or requests != shown.requests_per_minute
            or configured.tokens_per_minute != shown.tokens_per_minute
        ):
            self.limits = Limits(concurrency, requests, configured.tokens_per_minute)
