"""What is limited, what a lease is, and what is said where there is no room. Values and shapes only; nothing is counted
here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from polyvox.errors import InputError, PolyvoxError

WINDOW = 60.0
"""Seconds over which requests and tokens are counted."""

What = Literal["concurrency", "requests", "tokens", "pause", "turn"]


class Limits(Struct, frozen=True):
    """What a deployment may be asked at most: calls at a time, and requests and tokens in any 60 seconds; None where
    nothing limits it. InputError for a number below 1.

    >>> Limits(concurrency=4, requests_per_minute=60)
    Limits(concurrency=4, requests_per_minute=60, tokens_per_minute=None)
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        """Numbers only that let something through."""
        for name in self.__struct_fields__:
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < 1):
                raise InputError(f"{name}={number!r} limits nothing", hint="give a whole number from 1, or None")


NO_LIMITS = Limits()

_SAYS = {
    "concurrency": "as many calls are in flight as may be: {limit}",
    "requests": "the {limit} requests a minute are used up",
    "tokens": "too few of the {limit} tokens a minute are left",
    "pause": "the provider asked for a pause",
    "turn": "others wait for room there",
}


class Full(NamedTuple):
    """There is no room: of what, its limit, and the seconds until there could be, if nothing else comes. wait is None
    where only a lease that is given back makes room, and infinite where more is asked for than will ever fit."""

    what: What
    limit: int
    wait: float | None

    @property
    def why(self) -> str:
        """A sentence.

        >>> Full("requests", 60, 12.0).why
        'the 60 requests a minute are used up'
        """
        return _SAYS[self.what].format(limit=self.limit)


class Used(NamedTuple):
    """What is in use: calls in flight, and requests and tokens of the last 60 seconds."""

    in_flight: int
    requests: int
    tokens: int


class Lease(Protocol):
    """Room that a call has until it gives it back, once; what comes later changes nothing. A lease that nobody holds
    any more gives back itself."""

    def settle(self, tokens: int | None = None) -> None:
        """The call is over and took so many tokens; None leaves what was estimated."""

    def refund(self) -> None:
        """Nothing was sent: all of it is given back."""


class LimitsHealth(Struct, frozen=True):
    """How counting does. "degraded" means that each process counts for itself; why says what is wrong."""

    state: Literal["ok", "degraded"] = "ok"
    why: str | None = None


class Leases(Protocol):
    """Leases by a key word for each deployment; for any thread and event loop."""

    waits: bool
    """Whether `take` must be awaited."""

    def take(self, key: str, limits: Limits = ..., tokens: int = ...) -> Lease | Full | Awaitable[Lease | Full]:
        """Room for one call that takes about so many tokens in all, or what there is none of."""

    def used(self, key: str) -> Used:
        """What this process uses of a deployment."""

    def watch(self, told: Callable[[], object]) -> None:
        """Call this whenever a lease was given back, in whatever thread that happens, and in the middle of anything:
        it must neither wait nor ask these leases. `FairQueue.wake_soon` of a queue whose calls wait for them."""

    def unwatch(self, told: Callable[[], object]) -> None:
        """Do not call it any more."""

    def health(self) -> LimitsHealth:
        """How counting does."""

    async def close(self) -> None:
        """Give back what can be given back, and close connections."""


class LimitsAwayError(PolyvoxError):
    """Where limits are counted cannot be reached, and was said to let nothing through then; nothing was sent."""

    kind = "limits_away"
    advice = 'see whether the Redis server of the limits is well, or let processes count for themselves: failure="open"'
    retry = True

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})
