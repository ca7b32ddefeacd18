"""The tracker of the core under the name that AI Utilities has for it: it makes no file until it is told of a request,
and passes what it is told on to others."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from polyvox import usage as core
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError
from polyvox.ledger import Ledger

log: logging.Logger = logging.getLogger("polyvox.usage")

P = ParamSpec("P")
T = TypeVar("T")


class Observer(Protocol):
    """Whoever wants to know what each request used."""

    def track_request(self, usage: Any) -> None:
        """The usage of one request."""


def _spoken(method: Callable[P, T]) -> Callable[P, T]:
    """A method of the core whose errors are also what the documents call them."""

    @functools.wraps(method)
    def speaks(*args: P.args, **kwargs: P.kwargs) -> T:
        with speaking():
            return method(*args, **kwargs)

    return speaks


_opening = threading.RLock()


class UsageTracker(core.UsageTracker):
    """See `polyvox.usage.UsageTracker`: record, track_request, get_stats. Without a ledger it makes a place of its own
    when it is first told or asked something, so that making or inheriting from one costs nothing.

    >>> with UsageTracker() as tracker:
    ...     tracker.track_request({"prompt_tokens": 1, "completion_tokens": 2})
    ...     print(tracker.get_stats().total_tokens)
    3
    """

    _own = True
    _observers: tuple[Observer, ...] = ()

    def __init__(self, ledger: Ledger | None = None) -> None:
        if ledger is None:
            return
        if not isinstance(ledger, Ledger):
            raise named(InputError(f"a ledger is a Ledger, not {type(ledger).__name__}", hint="polyvox.ledger.Ledger"))
        super().__init__(ledger)

    def __getattr__(self, name: str) -> Any:
        """The ledger, made when it is first used."""
        if name != "ledger":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _opening:
            if "ledger" not in self.__dict__:
                core.UsageTracker.__init__(self)
            return self.__dict__["ledger"]

    def close(self) -> None:
        """Forget what only this tracker knows; a ledger that was given stays open."""
        if "ledger" in self.__dict__:
            super().close()

    def add_observer(self, observer: Observer) -> None:
        """Tell somebody else of each request too; one that fails harms neither the request nor the others."""
        if not callable(getattr(observer, "track_request", None)):
            raise named(InputError(f"an observer has a method track_request(usage), which {observer!r:.60} has not"))
        self._observers = (*self._observers, observer)

    def track_request(self, usage: Any, *, user_id: int | str | None = None, model: str = "") -> None:
        """See `polyvox.usage.UsageTracker`."""
        with speaking():
            super().track_request(usage, user_id=user_id, model=model)
        for observer in self._observers:
            try:
                observer.track_request(usage)
            except Exception:
                log.warning("an observer of usage failed", exc_info=True)

    record = _spoken(core.UsageTracker.record)
    get_stats = _spoken(core.UsageTracker.get_stats)


def create_usage_tracker(*observers: Observer, ledger: Ledger | None = None) -> UsageTracker:
    """A tracker, which also tells these observers of each request. With a ledger, what it is told stays."""
    tracker = UsageTracker(ledger)
    for observer in observers:
        tracker.add_observer(observer)
    return tracker
