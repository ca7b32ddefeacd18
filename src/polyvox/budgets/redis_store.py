"""Budgets counted in a Redis server, for all processes that use it: each step is one run of one script, by the server's
clock. While the server is away hard budgets refuse and soft ones let calls through. Redis and its driver are loaded on
first use."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from polyvox.budgets.faults import BudgetsAwayError
from polyvox.budgets.memory import ESTIMATED, UNPRICED
from polyvox.budgets.redis_script import SCRIPT
from polyvox.budgets.values import (
    KEPT,
    LEASE,
    REMEMBERED,
    Answer,
    Change,
    Claim,
    Lapse,
    Order,
    Settled,
    Standing,
    free_after,
)
from polyvox.errors import ConfigError, InputError, MissingExtraError, PolyvoxError
from polyvox.keys import Secret, redact, remember

_PIECES = 20
_SHY = 1.0
"""Seconds for which a server that was away is not asked again: one that answers slowly would hold up every call."""


class RedisStore:
    """Accounts in Redis.

    url is redis://, rediss:// or unix://. prefix begins the name of every key and must be this application's own; the
    keys share one hash slot. lease is how many seconds a reservation may stay unsettled, lapsed what becomes of it
    then: "count", because the request may have been sent and be charged for, or "release". timeout is the longest
    wait for the server, seconds. clock takes the place of the server's, for tests.

    The server must keep what it has: with an eviction policy other than noeviction, or without a file of its own
    across restarts, it forgets what was spent.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "polyvox:budgets",
        lease: float = LEASE,
        lapsed: Lapse = "count",
        timeout: float = 0.5,
        clock: Callable[[], float] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        if not prefix or any(sign in prefix for sign in "{}"):
            raise InputError(f"{prefix!r} is no prefix of keys", hint="give text without braces")
        self._url = url if isinstance(url, Secret) else Secret(url)
        _remember_password(self._url)
        self.prefix: str = f"{{{prefix}}}:"
        self.timeout: float = timeout
        self.clock: Callable[[], float] | None = clock
        self.steady: Callable[[], float] = steady
        self._terms = (str(int(lease * 1_000_000)), lapsed, str(KEPT), str(REMEMBERED))
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._script: Any = None
        self._client: Any = None
        self._not_before: float | None = None
        self._why = ""

    def __repr__(self) -> str:
        """Where its keys are; the URL may hold a password."""
        return f"RedisStore(prefix={self.prefix!r})"

    async def reserve(self, order: Order) -> Answer:
        """See `Store.reserve`."""
        sure = ESTIMATED if order.known else UNPRICED
        words = [order.id, str(order.amount), str(sure), *_claims(order.claims, order.need)]
        asked = _Asked(self, order, words)
        try:
            answer = await asyncio.to_thread(asked.run)
            # What is left of a window that was not looked at for long is forgotten piece by piece.
            for _ in range(_PIECES):
                if answer[0] == "granted" or not _has_more(answer):
                    break
                answer = await asyncio.to_thread(asked.run)
        except asyncio.CancelledError:
            asked.leave()
            raise
        changes = _changes(order.claims, answer[1])
        if answer[0] == "granted":
            return Answer(changes)
        claim, found = order.claims[int(answer[2])], answer[3]
        too_much = int(found[0]) + order.need - claim.ceiling
        entries = sorted((int(due), int(amount)) for due, amount in answer[4])
        wait = free_after(entries, too_much, int(answer[5]))
        return Answer(changes, refused=claim, standing=_standing([claim.account, *found]), wait=wait)

    async def settle(self, order: Order, actual: int | None) -> Settled:
        """See `Store.settle`."""
        words = [order.id, "" if actual is None else str(actual), *_claims(order.claims)]
        done, changes = await asyncio.to_thread(self.run, "settle", words)
        return Settled(bool(done), _changes(order.claims, changes))

    async def refund(self, order: Order) -> Settled:
        """See `Store.refund`."""
        done, changes = await asyncio.to_thread(self.run, "refund", [order.id, *_claims(order.claims)])
        return Settled(bool(done), _changes(order.claims, changes))

    async def standings(self, claims: Sequence[Claim], most: int) -> list[Standing]:
        """See `Store.standings`."""
        found = await asyncio.to_thread(self.run, "look", [str(most), *_claims(claims)])
        return sorted((_standing(row) for row in found), key=lambda standing: standing.account)

    def there(self) -> bool:
        """Whether the server answered the last step. Where it did not, it is asked again in a thread, once a second at
        most and only while somebody wants to know."""
        not_before = self._not_before
        if not_before is not None and self.steady() >= not_before and self._looking.acquire(blocking=False):
            threading.Thread(target=self._ask_again, name="polyvox-budgets-look", daemon=True).start()
        return not_before is None

    def _ask_again(self) -> None:
        try:
            with contextlib.suppress(PolyvoxError):
                self.run("look", ["0"])
        finally:
            self._looking.release()

    async def close(self) -> None:
        """Close the connections."""
        client, self._client, self._script = self._client, None, None
        if client is not None:
            await asyncio.to_thread(client.close)

    # ---- in a thread --------------------------------------------------------------------------

    def run(self, step: str, words: list[str]) -> Any:
        """One step of the script, in this thread. BudgetsAwayError where the server cannot be used."""
        not_before = self._not_before  # other threads change it
        if not_before is not None and self.steady() < not_before:
            raise BudgetsAwayError(self._why)
        redis = _driver()
        now = "" if self.clock is None else str(int(self.clock() * 1_000_000))
        try:
            result = self._ready(redis)(keys=[self.prefix], args=[step, now, *self._terms, *words])
        except (redis.exceptions.RedisError, OSError) as error:
            text = redact(str(error).partition("\n")[0]) or type(error).__name__
            self._why = f"Redis cannot be used: {text}"
            self._not_before = self.steady() + _SHY
            raise BudgetsAwayError(self._why, perhaps=True) from error
        self._not_before = None
        return result

    def _ready(self, redis: Any) -> Any:
        with self._lock:
            if self._script is None:
                self._client = self._connected(redis)
                self._script = self._client.register_script(SCRIPT)
            return self._script

    def _connected(self, redis: Any) -> Any:
        try:
            return redis.Redis.from_url(
                self._url.reveal(),
                decode_responses=True,
                socket_timeout=self.timeout,
                socket_connect_timeout=self.timeout,
                # Once more at most, for a connection that the server closed meanwhile: every step may be repeated.
                retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1, (redis.exceptions.ConnectionError,)),
            )
        except ValueError as error:
            text = f"the URL of Redis cannot be read: {redact(str(error))}"
            raise ConfigError(text, hint="write redis://host:6379/0") from None


class _Asked:
    """A reservation that is being made in a thread, and is given back where nobody waits for it any more."""

    def __init__(self, store: RedisStore, order: Order, words: list[str]) -> None:
        self.store, self.order, self.words = store, order, words
        self._lock = threading.Lock()
        self._gone = self._granted = False

    def run(self) -> Any:
        answer = self.store.run("reserve", self.words)
        with self._lock:
            self._granted = answer[0] == "granted"
            orphaned = self._granted and self._gone
        if orphaned:
            self._refund()
        return answer

    def leave(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._gone = True
            granted = self._granted
        if granted:
            threading.Thread(target=self._refund, daemon=True).start()

    def _refund(self) -> None:
        # Where this fails, the lease ends it.
        with contextlib.suppress(PolyvoxError):
            self.store.run("refund", [self.order.id, *_claims(self.order.claims)])


def _has_more(answer: Any) -> bool:
    """Whether a refusal came with entries that are due already."""
    return any(int(due) <= int(answer[5]) for due, _ in answer[4])


def _remember_password(url: Secret) -> None:
    """What an error of the driver may quote is made unreadable in it."""
    with contextlib.suppress(ValueError):
        password = urlsplit(url.reveal()).password
        if password:
            remember(Secret(password))
            remember(Secret(unquote(password)))


def _driver() -> Any:
    try:
        import redis
        import redis.backoff
        import redis.retry
    except ImportError as error:
        raise MissingExtraError(
            "budgets in Redis need a driver that is not installed", hint="pip install 'polyvox[redis]'"
        ) from error
    return redis


def _claims(claims: Sequence[Claim], need: int = 0) -> list[str]:
    words: list[str] = []
    for claim in claims:
        span = "" if claim.span is None else str(claim.span)
        until = "" if claim.until is None else str(claim.until)
        words += (claim.account, claim.family, str(claim.ceiling - need), span, until)
    return words


def _changes(claims: Sequence[Claim], told: Any) -> tuple[Change, ...]:
    changes = []
    by_account = {claim.account: claim for claim in claims}
    for account, used, reserved, used_after, reserved_after in told:
        before, after = int(used) - int(reserved), int(used_after) - int(reserved_after)
        if before != after:
            changes.append(Change(by_account[account], before, after))
    return tuple(changes)


def _standing(row: Sequence[Any]) -> Standing:
    account, used, reserved, estimated, unpriced = row
    return Standing(account, int(used) - int(reserved), int(reserved), int(estimated), int(unpriced))
