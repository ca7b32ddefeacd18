"""The limits of a simulated provider: requests and tokens a minute, answers at a time, and the headers that
tell them. It is told the time and keeps none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

from polyvox.errors import OverloadedError, PolyvoxError, RateLimitError

_SECONDS = 60.0
_ALMOST = 1e-6  # what has come back by waiting as long as was asked for may be short of a whole by rounding


class Allowance:
    """So many a minute, given back evenly; what was not used does not add up beyond a minute's worth."""

    def __init__(self, a_minute: int) -> None:
        self.a_minute = a_minute
        self._left = float(a_minute)
        self._at = 0.0

    def left(self, now: float) -> float:
        """How many may be taken now."""
        return min(float(self.a_minute), self._left + max(0.0, now - self._at) * self.a_minute / _SECONDS)

    def take(self, count: int, now: float) -> float:
        """Take so many and give 0.0; or take none, and give the seconds until there are enough (inf: never)."""
        left = self.left(now)
        if count > self.a_minute:
            return math.inf
        if left + _ALMOST < count:
            return (count - left) * _SECONDS / self.a_minute
        self._left, self._at = left - count, now
        return 0.0

    def full_in(self, now: float) -> float:
        """Seconds until all of it may be taken again."""
        return (self.a_minute - self.left(now)) * _SECONDS / self.a_minute


class Limits:
    """What may be asked, by all keys together; None is no limit."""

    def __init__(self, rpm: int | None, tpm: int | None, concurrent: int | None) -> None:
        self._allowances = {
            name: Allowance(a_minute) for name, a_minute in (("requests", rpm), ("tokens", tpm)) if a_minute is not None
        }
        self._concurrent = concurrent
        self._open = 0

    @contextmanager
    def slot(self, busy: str) -> Iterator[None]:
        """One of the places for answers at a time; raises the error of kind `busy` when all are taken."""
        if self._concurrent is not None and self._open >= self._concurrent:
            raise _too_much(busy, f"{self._open} requests are being answered, which is the limit", "concurrent", 1.0)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def take(self, what: Literal["requests", "tokens"], count: int, busy: str, now: float) -> None:
        """Take so many at `now`, in seconds; raises the error of kind `busy` when too few are left."""
        allowance = self._allowances.get(what)
        wait = allowance.take(count, now) if allowance is not None else 0.0
        if allowance is None or not wait:
            return
        if math.isinf(wait):
            said = f"this takes {count} {what}, more than the {allowance.a_minute} that a minute has"
            raise _too_much(busy, said, what, None)
        said = f"the limit of {allowance.a_minute} {what} a minute is reached; try again in {math.ceil(wait)}s"
        raise _too_much(busy, said, what, float(math.ceil(wait)))

    def headers(self, form: Literal["openai", "anthropic"] | None, now: float, clock: datetime) -> dict[str, str]:
        """The headers that tell the limits at `now`, which by the clock on the wall is `clock`."""
        found: dict[str, str] = {}
        for what, allowance in self._allowances.items():
            limit, left, full = (
                str(allowance.a_minute),
                str(math.floor(allowance.left(now) + _ALMOST)),
                allowance.full_in(now),
            )
            if form == "openai":
                found[f"x-ratelimit-limit-{what}"] = limit
                found[f"x-ratelimit-remaining-{what}"] = left
                found[f"x-ratelimit-reset-{what}"] = go_duration(full)
            elif form == "anthropic":
                found[f"anthropic-ratelimit-{what}-limit"] = limit
                found[f"anthropic-ratelimit-{what}-remaining"] = left
                found[f"anthropic-ratelimit-{what}-reset"] = rfc3339(clock + timedelta(seconds=math.ceil(full)))
        return found


def _too_much(busy: str, message: str, type: str, retry_after: float | None) -> PolyvoxError:
    if busy == "overloaded":
        return OverloadedError(f"server busy: {message}", retry_after=retry_after)
    # Without a time to wait for there is no use in asking again.
    return RateLimitError(
        f"Rate limit: {message}.", code="rate_limit_exceeded", type=type, retry_after=retry_after,
        retryable=retry_after is not None,
    )  # fmt: skip


def go_duration(seconds: float) -> str:
    """Seconds as Go writes durations, rounded up to milliseconds.

    >>> go_duration(90.951), go_duration(0.012), go_duration(360.0)
    ('1m30.951s', '12ms', '6m0s')
    """
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 has it, in UTC, to the second.

    >>> rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
