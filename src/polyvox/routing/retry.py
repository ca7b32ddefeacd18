"""May we try again at the same deployment, and when: the rule of delays, and the budget that keeps retries from
making a failure worse. It reads errors and numbers, and waits for nothing itself."""

from __future__ import annotations

from msgspec import Struct

from polyvox.errors import PolyvoxError

# Kinds that another try seldom mends are tried once more, not to the limit.
_AT_MOST = {"bad_response": 1, "conflict": 1}


class RetryRule(Struct, frozen=True):
    """How often and how long to wait, in seconds. Base delays double with each try, under full jitter.

    A server's own wish is a floor, honoured up to `longest_wish`; a longer one ends the call.
    """

    retries: int = 2
    base: float = 0.5
    base_rate_limit: float = 2.0
    cap: float = 20.0
    longest_wish: float = 60.0

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
        delay = max(wish, chance * min(self.cap, base * 2.0 ** (tries - 1)))
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
