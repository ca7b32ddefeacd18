"""May we try again, and when. Pure: it reads errors and numbers, and decides; the engine acts."""

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
        deadline. A request that timed out after it was sent may have been billed, so it is not repeated.
        """
        if tries > min(self.retries, _AT_MOST.get(error.kind, self.retries)):
            return None
        if not error.retryable and error.kind not in _AT_MOST:
            return None
        if error.kind == "timeout" and error.sent != "no":
            return None
        wish = error.retry_after or 0.0
        if wish > self.longest_wish:
            return None
        base = self.base_rate_limit if error.kind == "rate_limit" else self.base
        delay = max(wish, chance * min(self.cap, base * 2.0 ** (tries - 1)))
        return None if left is not None and delay >= left else delay
