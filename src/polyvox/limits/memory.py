"""Leases counted in this process. What was let through is kept as a log of at most some hundred entries a deployment,
which forgets a little late and never early: so no window of 60 seconds ever holds more than the limit."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from polyvox.errors import InputError
from polyvox.limits.values import NO_LIMITS, WINDOW, Full, Limits, LimitsHealth, Used
from polyvox.stores.tally import watch_forks

GRAIN = WINDOW / 256
"""What is let through within so many seconds is kept as one entry, and forgotten together."""
_MANY = 1024


class _Entry:
    """What was let through within a grain: from first to last, and what counts of it. gone when it was forgotten."""

    __slots__ = ("first", "gone", "last", "requests", "tokens")

    def __init__(self, now: float) -> None:
        self.first: float = now
        self.last: float = now
        self.requests: int = 0
        self.tokens: int = 0
        self.gone: bool = False


class _Gate:
    """What one deployment is asked just now."""

    __slots__ = ("entries", "in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.in_flight: int = 0
        self.requests: int = 0
        self.tokens: int = 0
        self.entries: deque[_Entry] = deque()

    def forget(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0].last + WINDOW <= now:
            entry = entries.popleft()
            entry.gone = True
            self.requests -= entry.requests
            self.tokens -= entry.tokens

    def full(self, limits: Limits, tokens: int, now: float) -> Full | None:
        """What there is no room for; of several, that which takes longest."""
        most, found = limits.requests_per_minute, None
        if most is not None and self.requests >= most:
            found = Full("requests", most, self._wait(now, self.requests + 1 - most, 0))
        most = limits.tokens_per_minute
        if most is not None and self.tokens + tokens > most:
            wait = math.inf if tokens > most else self._wait(now, 0, self.tokens + tokens - most)
            if found is None or wait > (found.wait or 0.0):
                found = Full("tokens", most, wait)
        most = limits.concurrency
        if found is None and most is not None and self.in_flight >= most:
            found = Full("concurrency", most, None)
        return found

    def _wait(self, now: float, requests: int, tokens: int) -> float:
        """Seconds until so much is forgotten."""
        for entry in self.entries:
            requests -= entry.requests
            tokens -= entry.tokens
            if requests <= 0 and tokens <= 0:
                return entry.last + WINDOW - now
        return WINDOW

    def add(self, tokens: int, now: float) -> _Entry:
        entries = self.entries
        if entries and now - entries[-1].first < GRAIN:
            entry = entries[-1]
            if now > entry.last:
                entry.last = now
        else:
            entry = _Entry(now)
            entries.append(entry)
        entry.requests += 1
        entry.tokens += tokens
        self.requests += 1
        self.tokens += tokens
        self.in_flight += 1
        return entry


class MemoryLease:
    """See `Lease`. As a context it is settled at the end."""

    __slots__ = ("__weakref__", "_entry", "_gate", "_leases", "tokens")

    def __init__(self, leases: MemoryLeases, gate: _Gate, entry: _Entry, tokens: int) -> None:
        self._leases = leases
        self._gate: _Gate | None = gate
        self._entry = entry
        self.tokens: int = tokens

    def settle(self, tokens: int | None = None) -> None:
        """See `Lease.settle`."""
        leases = self._leases
        with leases.lock:
            gate, self._gate = self._gate, None
            if gate is None:
                return
            gate.in_flight -= 1
            if tokens is not None and tokens >= 0 and not self._entry.gone:
                self._entry.tokens += tokens - self.tokens
                gate.tokens += tokens - self.tokens
        if leases.watchers:
            leases.tell()

    def refund(self) -> None:
        """See `Lease.refund`."""
        leases, entry = self._leases, self._entry
        with leases.lock:
            gate, self._gate = self._gate, None
            if gate is None:
                return
            gate.in_flight -= 1
            if not entry.gone:
                entry.requests -= 1
                entry.tokens -= self.tokens
                gate.requests -= 1
                gate.tokens -= self.tokens
        leases.tell()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Settled, unless it was before."""
        self.settle()

    def __del__(self) -> None:
        """It may come at any moment, in the middle of counting too: so it takes no lock, and is counted later."""
        if self._gate is not None:
            self._leases.dropped.append(self._gate)
            self._leases.tell()


class Watched:
    """Tells those who wait when something was given back."""

    def __init__(self) -> None:
        self.watchers: tuple[Callable[[], object], ...] = ()
        # What is collected in the middle of it may want it, too.
        self._watching = threading.RLock()

    def watch(self, told: Callable[[], object]) -> None:
        """See `Leases.watch`."""
        with self._watching:
            self.watchers = (*self.watchers, told)

    def unwatch(self, told: Callable[[], object]) -> None:
        """Do not call it any more."""
        with self._watching:
            self.watchers = tuple([other for other in self.watchers if other != told])

    def tell(self) -> None:
        """Something was given back."""
        for told in self.watchers:
            try:  # noqa: SIM105 - quicker than suppress, and every call comes here
                told()
            except RuntimeError:
                pass  # an event loop that is closed waits for nothing


class MemoryLeases(Watched):
    """Leases by a key word for each deployment; for any thread and event loop. clock gives seconds by a clock that
    nobody sets.

    >>> leases = MemoryLeases()
    >>> lease = leases.take("a", Limits(concurrency=1), tokens=100)
    >>> leases.take("a", Limits(concurrency=1)).why
    'as many calls are in flight as may be: 1'
    >>> lease.settle(tokens=80)
    >>> leases.used("a")
    Used(in_flight=0, requests=1, tokens=80)
    """

    waits = False
    """Whether `take` must be awaited."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        # A call that was left behind may be found in the middle of counting, and gives back what it has.
        self.lock: threading.RLock = threading.RLock()
        self.dropped: deque[_Gate] = deque()
        self._clock = clock
        self._gates: dict[str, _Gate] = {}
        self._many = _MANY
        watch_forks(self)

    def take(self, key: str, limits: Limits = NO_LIMITS, tokens: int = 0) -> MemoryLease | Full:
        """Room for one call that takes about so many tokens in all, or what there is none of."""
        if tokens < 0:
            raise InputError(f"tokens={tokens} cannot be taken", hint="give an estimate from 0")
        concurrency, requests, most = limits.concurrency, limits.requests_per_minute, limits.tokens_per_minute
        with self.lock:
            # Inside, so that entries of the log stand in order.
            now = self._clock()
            gate = self._gates.get(key)
            if gate is None or self.dropped or (gate.entries and gate.entries[0].last + WINDOW <= now):
                gate = self._gate(key, now)
            # Asked here and not there, because nearly always there is room.
            if (
                (concurrency is not None and gate.in_flight >= concurrency)
                or (requests is not None and gate.requests >= requests)
                or (most is not None and gate.tokens + tokens > most)
            ):
                full = gate.full(limits, tokens, now)
                if full is not None:
                    return full
            return MemoryLease(self, gate, gate.add(tokens, now), tokens)

    def _gate(self, key: str, now: float) -> _Gate:
        while self.dropped:
            self.dropped.popleft().in_flight -= 1
        gate = self._gates.get(key)
        if gate is None:
            if len(self._gates) >= self._many:
                self._sweep(now)
            gate = self._gates[key] = _Gate()
        elif gate.entries and gate.entries[0].last + WINDOW <= now:
            gate.forget(now)
        return gate

    def _sweep(self, now: float) -> None:
        """Forget deployments of which nothing is known any more."""
        for gate in self._gates.values():
            gate.forget(now)
        self._gates = {key: gate for key, gate in self._gates.items() if gate.in_flight or gate.entries}
        self._many = max(_MANY, 2 * len(self._gates))

    def used(self, key: str) -> Used:
        """See `Leases.used`."""
        with self.lock:
            gate = self._gates.get(key)
            if gate is None:
                return Used(0, 0, 0)
            gate = self._gate(key, self._clock())
            return Used(gate.in_flight, gate.requests, gate.tokens)

    def health(self) -> LimitsHealth:
        """Nothing can be wrong."""
        return LimitsHealth()

    async def close(self) -> None:
        """Nothing was opened."""

    def after_fork(self) -> None:
        """In a child: what is in flight is the parent's, and nobody of the child's waits for it."""
        self.lock, self._watching = threading.RLock(), threading.RLock()
        self.dropped, self._gates = deque(), {}
        self.watchers: tuple[Callable[[], object], ...] = ()
