"""Keeps callers from a server that does not answer: after some failures in a row nobody asks it for a while, then one
does. It measures no time itself and knows no server."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 5
FIRST = 5.0
LONGEST = 60.0


class Breaker:
    """Open after so many failures in a row, for seconds that double up to the longest; then one probe decides."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        first: float = FIRST,
        longest: float = LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = failures
        self.first = first
        self.longest = longest
        self._clock = clock
        self._row = 0
        self._pause = first
        self._until: float | None = None
        self._probing = False

    def open_now(self) -> bool:
        """Whether nobody may ask now, not even as a probe."""
        return self._until is not None and (self._probing or self._clock() < self._until)

    def allows(self) -> bool:
        """Whether to ask now. Whoever is told so must say `well`, `failed` or `unknown` afterwards."""
        if self._until is None:
            return True
        if self.open_now():
            return False
        self._probing = True
        return True

    def well(self) -> None:
        """It answered."""
        self._row, self._pause, self._until, self._probing = 0, self.first, None, False

    def failed(self) -> None:
        """It did not answer."""
        self._row += 1
        if self._probing:
            self._pause = min(self._pause * 2, self.longest)
            self._until, self._probing = self._clock() + self._pause, False
        elif self._until is None and self._row >= self.failures:
            self._until = self._clock() + self._pause

    def unknown(self) -> None:
        """Whoever asked went away before the answer; the next one may ask."""
        self._probing = False
