"""May we try again at the same deployment, and when: the rule of delays, and the budget that keeps retries from
making a failure worse. It reads errors and numbers, and waits for nothing itself."""

from __future__ import annotations

import math

from msgspec import Struct

from polyvox.errors import InputError, PolyvoxError

# Kinds that another try seldom mends are tried once more, not to the limit.
_AT_MOST = {"bad_response": 1, "conflict": 1}
_DOUBLINGS = 64  # more than any cap needs, and no number too large for a float


class RetryRule(Struct, frozen=True):
    """How often to try again, and how long to wait before, in seconds. InputError for what makes no sense.

    Attributes:
        retries: further tries after the first.
        base, base_rate_limit: the longest first wait, and the one after a rate limit; each try doubles it.
        cap: what no wait grows beyond.
        longest_wish: a server's own wish is a floor, honoured up to this; a longer one ends the call here.
        jitter: the share of a wait that is left to chance: 1 all of it, 0 none.
        budget: tokens that one deployment's retries may take before successes give some back; see `RetryBudget`.

    >>> RetryRule(retries=5, base=0.1, jitter=0.5)
    RetryRule(retries=5, base=0.1, base_rate_limit=2.0, cap=20.0, longest_wish=60.0, jitter=0.5, budget=500)
    """

    retries: int = 2
    base: float = 0.5
    base_rate_limit: float = 2.0
    cap: float = 20.0
    longest_wish: float = 60.0
    jitter: float = 1.0
    budget: int = 500

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("retries", "budget"):
            number = getattr(self, name)
            if type(number) is not int or number < 0:
                raise InputError(f"{name} is a whole number from 0, not {number!r}", param="retries")
        for name in ("base", "base_rate_limit", "cap", "longest_wish", "jitter"):
            number = getattr(self, name)
            if type(number) not in (int, float) or not math.isfinite(number) or number < 0:
                raise InputError(f"{name} is a number from 0, not {number!r}", param="retries")
        if self.jitter > 1:
            raise InputError(f"jitter is a share from 0 to 1, not {self.jitter!r}", param="retries")

    def wait(self, error: PolyvoxError, tries: int, chance: float, left: float | None) -> float | None:
        """Seconds to wait before the next try, or None when there must be none.

        tries counts attempts made; chance is a random number in [0, 1); left is the time until the
        deadline. A request that timed out after it was sent may have been billed, so it is not repeated; one of which
        the provider says that it did may be.
        """
        if tries > min(self.retries, _AT_MOST.get(error.kind, self.retries)):
            return None
        if not error.retryable and error.kind not in _AT_MOST:
            return None
        if error.kind == "timeout" and error.sent != "no" and error.status is None:
            return None
        wish = error.retry_after or 0.0
        if wish > self.longest_wish:
            return None
        base = self.base_rate_limit if error.kind == "rate_limit" else self.base
        share = 1.0 - self.jitter + self.jitter * chance
        delay = max(wish, share * min(self.cap, base * 2.0 ** min(tries - 1, _DOUBLINGS)))
        return None if left is not None and delay >= left else delay


THROTTLED = 5
TRANSIENT = 14


class RetryBudget:
    """How many retries one deployment may still get, as tokens in a bucket; full at first. Not for several threads.

    The numbers are those of the AWS SDKs' standard mode: a retry after a failure takes 14 tokens, one after a rate
    limit 5; a call that succeeds gives back what its last retry took, or 1 where it took none. So a deployment that is
    down gets few retries in all, however many calls there are, and one that fails now and then gets every one.

    >>> budget = RetryBudget(20)
    >>> budget.take("server"), budget.take("server"), budget.take("rate_limit"), budget.left
    (14, 0, 5, 1)
    """

    __slots__ = ("capacity", "left")

    def __init__(self, capacity: int = 500) -> None:
        self.capacity: int = capacity
        self.left: int = capacity

    def take(self, kind: str) -> int:
        """The tokens that a retry after an error of this kind took; 0 where there are too few, so no retry."""
        cost = THROTTLED if kind == "rate_limit" else TRANSIENT
        if cost > self.left:
            return 0
        self.left -= cost
        return cost

    def succeeded(self, taken: int = 0) -> None:
        """A call ended well whose last retry took so many tokens; 0 for none."""
        self.left = min(self.capacity, self.left + (taken or 1))

    def __repr__(self) -> str:
        return f"<RetryBudget {self.left} of {self.capacity}>"
