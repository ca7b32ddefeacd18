"""Leases counted in a Redis server, for all processes that use it. A process that dies is forgotten, and one whose
server is away counts for itself until it is back, or refuses, as was said. Redis' client is loaded on first use."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import quote

from polyvox.errors import InputError
from polyvox.keys import Secret, redact
from polyvox.limits.memory import MemoryLease, MemoryLeases, Watched
from polyvox.limits.redis_script import GRAIN, SCRIPT
from polyvox.limits.values import NO_LIMITS, WINDOW, Full, Limits, LimitsAwayError, LimitsHealth, Used
from polyvox.stores.redis import RedisStore
from polyvox.stores.tally import Tally, watch_forks

if TYPE_CHECKING:
    from redis.asyncio import Redis

LASTS = 30.0
"""Seconds for which a lease holds that nobody renews: its process is gone."""
POLL = 0.1
"""Seconds after which to ask again for a place among calls at a time: another process tells nobody that it left one."""
_AGAIN = 1.0
"""Seconds between attempts to give back what could not be given back."""
_MOST_OWED = 10_000
_AT_ONCE = 500
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

log: logging.Logger = logging.getLogger("polyvox.limits")


class RedisLease:
    """See `Lease`. As a context it is settled at the end."""

    __slots__ = ("__weakref__", "_id", "_keeper", "_key", "_local")

    def __init__(self, keeper: _Keeper, key: str, lease: str, local: MemoryLease) -> None:
        self._keeper: _Keeper | None = keeper
        self._key, self._id, self._local = key, lease, local

    def settle(self, tokens: int | None = None) -> None:
        """See `Lease.settle`. The server hears of it soon; nobody waits for that."""
        self._local.settle(tokens)
        self._give_back("" if tokens is None or tokens < 0 else str(int(tokens)))

    def refund(self) -> None:
        """See `Lease.refund`."""
        self._local.refund()
        self._give_back("back")

    def _give_back(self, took: str) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.give_back(self._key, self._id, took)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Settled, unless it was before."""
        self.settle()

    def __del__(self) -> None:
        """Left behind."""
        if self._keeper is not None:
            self._keeper.give_back(self._key, self._id, "", soon=True)


class RedisLeases(Watched):
    """Leases by a key word for each deployment; for any thread and event loop.

    url is redis://, rediss:// or unix://. prefix begins every key; those of one deployment share one hash slot. lasts
    is how many seconds a lease holds that is not renewed, which happens by itself while its event loop runs. failure
    says what to do while the server is away: "open" lets each process count for itself, against the same limits,
    "closed" refuses with LimitsAwayError. What a process has counted itself holds in any case.

    The server's clock counts. Set forward, it forgets what it should not; set back, it forgets too late.
    """

    waits = True
    """Whether `take` must be awaited."""

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "polyvox:limits:",
        lasts: float = LASTS,
        failure: Literal["open", "closed"] = "open",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        if lasts < 1:
            raise InputError(f"lasts={lasts} leaves no time to renew a lease", hint="give seconds from 1")
        if failure not in ("open", "closed"):
            raise InputError(f"failure={failure!r} is not known", hint='say "open" or "closed"')
        self.lasts: float = lasts
        self.failure = failure
        self.server: _Server = _Server(url, prefix=prefix, clock=clock)
        self._memory = MemoryLeases(clock=clock)
        self._keepers: dict[asyncio.AbstractEventLoop, _Keeper] = {}
        self._count, self._name = itertools.count(), secrets.token_hex(8)
        watch_forks(self)

    def __repr__(self) -> str:
        """Where they are, without a password."""
        return f"RedisLeases({self.server!r})"

    async def take(self, key: str, limits: Limits = NO_LIMITS, tokens: int = 0) -> RedisLease | Full:
        """Room for one call that takes about so many tokens in all, or what there is none of."""
        local = self._memory.take(key, limits, tokens)
        if isinstance(local, Full):
            # Nobody is told either when what fills this process was only asked for, and the server has no room for it.
            return local if local.wait is not None else local._replace(wait=POLL)
        keeper, lease = self._keeper(), f"{self._name}-{next(self._count)}"
        words = (lease, tokens, limits.concurrency, limits.requests_per_minute, limits.tokens_per_minute)
        try:
            answer = await self.server.run(key, "take", self.lasts, ["" if word is None else word for word in words])
        except BaseException:
            local.refund()
            keeper.give_back(key, lease, "back")
            raise
        if answer is not None and answer.what != "taken":
            local.refund()
            return Full(answer.what, answer.limit, POLL if answer.left < 0 else answer.left / 1000)
        if answer is None and self.failure == "closed":
            local.refund()
            keeper.give_back(key, lease, "back")  # it may have been taken all the same
            raise LimitsAwayError(f"limits cannot be counted: {self.server.why or 'the store is closed'}")
        # Where the server is away it hears of the lease when it is back: when it is renewed.
        keeper.hold(key, lease)
        return RedisLease(keeper, key, lease, local)

    def used(self, key: str) -> Used:
        """What this process uses of a deployment."""
        return self._memory.used(key)

    async def counted(self, key: str) -> Used | None:
        """What all processes use of a deployment, as the server has it; None where it does not answer. Takes and
        changes nothing."""
        return await self.server.counted(key)

    def health(self) -> LimitsHealth:
        """Whether the server counts."""
        why = self.server.why
        return LimitsHealth() if why is None else LimitsHealth("degraded", why)

    async def close(self) -> None:
        """Give back what can be given back, and close the connections."""
        here = asyncio.get_running_loop()
        keepers, self._keepers = self._keepers, {}
        for loop, keeper in keepers.items():
            if loop is here:
                await keeper.close()
            else:
                with suppress(RuntimeError):  # closed meanwhile
                    loop.call_soon_threadsafe(keeper.stop)
        await self.server.close()

    def after_fork(self) -> None:
        """In a child: what is in flight is the parent's."""
        for keeper in self._keepers.values():
            keeper.gone = True
        self._keepers, self._watching = {}, threading.RLock()
        self.watchers: tuple[Callable[[], object], ...] = ()
        self._name = secrets.token_hex(8)

    def _keeper(self) -> _Keeper:
        loop = asyncio.get_running_loop()
        keeper = self._keepers.get(loop)
        if keeper is None:
            for other in [loop for loop in list(self._keepers) if loop.is_closed()]:
                self._keepers.pop(other, None)
            keeper = self._keepers[loop] = _Keeper(self, loop)
        return keeper


class _Owed(NamedTuple):
    """A lease to give back, what it took, and until when the server may still hold it."""

    lease: str
    took: str
    until: float


class _Keeper:
    """Renews the leases of one event loop and gives them back, many at a time. Its task runs while there are any."""

    def __init__(self, leases: RedisLeases, loop: asyncio.AbstractEventLoop) -> None:
        self.leases: RedisLeases = leases
        self.loop: asyncio.AbstractEventLoop = loop
        self.gone = False
        self._held: dict[str, str] = {}
        self._owed: dict[str, list[_Owed]] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def hold(self, key: str, lease: str) -> None:
        """A lease was taken."""
        self._held[lease] = key
        self._start()

    def give_back(self, key: str, lease: str, took: str, *, soon: bool = False) -> None:
        """A lease is over; from any thread. soon for when nothing may be begun here and now."""
        if self.gone:
            return
        if not soon and asyncio._get_running_loop() is self.loop:
            self._put(key, lease, took)
        else:
            # Where the loop is closed nobody renews it, and it ends by itself.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._put, key, lease, took)

    def _put(self, key: str, lease: str, took: str) -> None:
        self._held.pop(lease, None)
        self._owe(key, [_Owed(lease, took, self.loop.time() + self.leases.lasts)])
        self._news.set()
        self._start()

    def _owe(self, key: str, more: list[_Owed]) -> None:
        if sum(map(len, self._owed.values())) + len(more) <= _MOST_OWED:
            self._owed.setdefault(key, []).extend(more)

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._run(), name="polyvox-leases")

    async def _run(self) -> None:
        every = self.leases.lasts / 3
        renew_at = self.loop.time() + every
        while True:
            self._news.clear()
            renews = self.loop.time() >= renew_at
            if renews:
                renew_at = self.loop.time() + every
            if self._owed or renews:
                await self._deliver(renews)
            if not self._held and not self._owed:
                return
            wait = renew_at - self.loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(wait, _AGAIN) if self._owed else wait):
                    await self._news.wait()

    async def _deliver(self, renews: bool) -> None:
        owed, self._owed = self._owed, {}
        told = bool(owed)
        try:
            while owed:
                key, leases = owed.popitem()
                for start in range(0, len(leases), _AT_ONCE):
                    await self._change(key, leases[start : start + _AT_ONCE])
        finally:
            for key, leases in owed.items():
                self._owe(key, leases)
        if told:
            self.leases.tell()
        if renews:
            held: dict[str, list[str]] = {}
            for lease, key in self._held.items():
                held.setdefault(key, []).append(lease)
            for key, names in held.items():
                for start in range(0, len(names), _AT_ONCE):
                    # Without those that were given back meanwhile.
                    await self._change(
                        key, held=[name for name in names[start : start + _AT_ONCE] if name in self._held]
                    )

    async def _change(self, key: str, owed: Sequence[_Owed] = (), held: Sequence[str] = ()) -> None:
        words = [word for one in owed for word in one[:2]]
        done = None
        try:
            done = await self.leases.server.run(key, "change", self.leases.lasts, [*words, "renew", *held])
        finally:
            if done is None:
                now = self.loop.time()
                self._owe(key, [one for one in owed if one.until > now])

    def stop(self) -> None:
        """No more of it."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Give back what is over, once."""
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._owed:
            await self._deliver(False)


# ---- the server -------------------------------------------------------------------------------


class _Answer(NamedTuple):
    what: Any
    limit: int
    left: int


_WHATS = {what.encode(): what for what in ("taken", "changed", "concurrency", "requests", "tokens")}


class _Said(Tally):
    """What it means for limits that the server does not work."""

    def trouble(self, why: str) -> None:
        self.count("errors")
        first, self.why = self.why is None, redact(why)
        if first:
            log.warning("%s does not work: %s", self.name, self.why)


class _Server(RedisStore):
    """The connections, time limits and breaker of a store, for a script in the place of keys."""

    def __init__(self, url: str | Secret, *, prefix: str, clock: Callable[[], float]) -> None:
        super().__init__(url, prefix=prefix, clock=clock)
        self._tally = _Said("redis", f"counting limits at {self._shown}")

    @property
    def why(self) -> str | None:
        """What is wrong, or None."""
        return self._tally.why or self._refusal

    def _tag(self, key: str) -> str:
        return f"{self._prefix}{{{quote(key, safe='') or '-'}}}:"

    async def counted(self, key: str) -> Used | None:
        """What the script has counted and not forgotten yet."""
        tag = self._tag(key)

        async def ask(client: Redis) -> Used:
            seconds, micros = await client.time()
            now = seconds * 1000 + micros // 1000
            held = await client.zcount(f"{tag}leases", f"({now}", "+inf")
            sums = {b"r": 0, b"t": 0}
            window: dict[Any, Any] = await client.hgetall(f"{tag}window")
            for field, number in window.items():
                bucket = field[1:]
                if field[:1] in sums and bucket and int(bucket) >= (now - WINDOW * 1000) // GRAIN:
                    sums[field[:1]] += int(number)
            return Used(held, sums[b"r"], sums[b"t"])

        found: Used | None = await self._try(ask, None)
        return found

    async def run(self, key: str, step: str, lasts: float, words: Iterable[object]) -> _Answer | None:
        """What a step of the script says; None where the server says nothing sensible in time."""
        tag = self._tag(key)
        args = [f"{tag}leases", f"{tag}notes", f"{tag}window", step, str(int(lasts * 1000)), *map(str, words)]

        async def ask(client: Redis) -> Any:
            from redis.exceptions import NoScriptError

            try:
                return await client.evalsha(_SHA, 3, *args)
            except NoScriptError:
                return await client.eval(SCRIPT, 3, *args)

        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        told = await self._try(ask, None, writes=True)
        if task is not None and task.cancelling() > before:
            # Python 3.11's wait_for, with which the client sends, drops one that comes when what it waits for is done.
            raise asyncio.CancelledError
        if told is None:
            return None
        if isinstance(told, list) and len(told) == 3 and isinstance(told[0], bytes) and told[0] in _WHATS:
            if type(told[1]) is int and type(told[2]) is int:
                self._refusal = None
                return _Answer(_WHATS[told[0]], told[1], told[2])
        self._refusal = "the server answers what its script never does"
        self._tally.odd("answer", self._refusal)
        return None
