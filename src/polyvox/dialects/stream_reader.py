"""What readers of streamed answers have in common: bytes go in, events come out, and nothing is ever raised. It knows
no framing and no event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from polyvox.dialects import SHAPE_ERRORS, Endpoint
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import Event


class StreamReader(ABC):
    """See `polyvox.dialects.Reader`. A dialect puts its events into `_out`, and raises what is wrong."""

    def __init__(self, at: Endpoint) -> None:
        self.done: bool = False
        self._at = at
        self._out: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """Take some bytes, give the events they complete; never raises."""
        if not self.done:
            self._guard(self._read, data)
        out, self._out = self._out, []
        return out

    def close(self) -> list[Event]:
        """The connection ended: what was pending, then `Failed` unless the end had come."""
        if not self.done:
            self._guard(self._finish)
        out, self._out = self._out, []
        return out

    def _guard(self, step: Callable[..., None], *given: Any) -> None:
        try:
            step(*given)
        except PolyvoxError as error:
            self._broken(error)
        except SHAPE_ERRORS as error:
            shape = f"the stream has an event of an unexpected shape ({type(error).__name__}: {error})"
            self._broken(BadResponseError(shape))

    def _broken(self, error: PolyvoxError) -> None:
        # Whoever answers has the request.
        if error.sent == "unknown":
            error.sent = "yes"
        self._fail(error)
        self.done = True

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Take some bytes."""

    @abstractmethod
    def _finish(self) -> None:
        """No more bytes come; StreamInterruptedError unless the end had come."""

    @abstractmethod
    def _fail(self, error: PolyvoxError) -> None:
        """Tell what is known by now, then `Failed`."""
