"""A bound on names that become labels: so many have a place of their own, all others are "other"."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from polyvox.telemetry.forks import watch_forks
from polyvox.telemetry.texts import masked

OTHER = "other"
LONGEST = 200
"""Characters of a name."""

# A name that was only ever heard with one of these errors may be invented.
_PROVES_NOTHING = frozenset({"not_found", "invalid_request", "unsupported_param"})


class Places:
    """Names that keep a label of their own: those that are known from the start, and the first so many that turn up.

    A name takes a place once a provider took it for a model: answered under it, or failed for another reason than the
    request. So names that somebody invents take none.
    """

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._most = most
        self._known = frozenset(known)
        self._taken: set[str] = set()
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """In a child: the names are the same, the lock is its own."""
        self._lock = threading.Lock()

    def label(self, name: str, error: str | None = None) -> str:
        """The name, or "other"; error is the kind of error the call under this name ended with."""
        if name in self._known or name in self._taken:
            return name
        name = masked(name)[:LONGEST]
        if name in self._taken:
            return name
        if error in _PROVES_NOTHING or not name:
            return OTHER
        with self._lock:
            if len(self._taken) >= self._most and name not in self._taken:
                return OTHER
            self._taken.add(name)
        return name
