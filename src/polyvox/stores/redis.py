"""A store in a Redis server, which machines share. The server is never waited for long: after some failures nobody
asks it for a while, and there is nothing to get meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from msgspec.structs import replace

from polyvox.errors import ConfigError, MissingExtraError
from polyvox.keys import Secret, redact, remember
from polyvox.stores.breaker import Breaker
from polyvox.stores.contract import StoreStats
from polyvox.stores.frame import HEAD, framed, seconds, unframed
from polyvox.stores.tally import Tally, watch_forks

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECT_SECONDS = 0.25
OPERATION_SECONDS = 0.25
CONNECTIONS = 16
MAX_BYTES = 64 * 1024 * 1024
_PAGE = 500

_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
elseif ARGV[3] == '0' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class Line(NamedTuple):
    """The connections of one event loop, a place for each who may use one, and what closes them with the loop."""

    client: Redis
    places: asyncio.Semaphore
    ending: AsyncGenerator[None, None]


class RedisStore:
    """See `Store`. Bounds are the server's own (maxmemory, maxmemory-policy), and so is the clock by which time to
    live is counted; a value of more than max_bytes is not kept, and none is read.

    url is redis://, rediss:// or unix://, as redis-py takes it; prefix begins every key. ConfigError for a URL that
    cannot be read; MissingExtraError without redis-py. Entries are not counted, because counting would read them all.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "polyvox:",
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url if isinstance(url, Secret) else Secret(url)
        self._shown = _shown(self._url)
        self._prefix = prefix
        self.max_bytes = max_bytes
        self._tally = Tally("redis", f"the store at {self._shown}")
        self._breaker = Breaker(clock=clock)
        self._lines: dict[asyncio.AbstractEventLoop, Line] = {}
        self._refusal: str | None = None
        self._closed = False
        _loaded()
        self._new_client()  # a URL that cannot be read is told now
        watch_forks(self)

    def __repr__(self) -> str:
        """Where it is, without a password."""
        return f"RedisStore({self._shown!r}, prefix={self._prefix!r})"

    # ---- one key ------------------------------------------------------------------------------

    async def get(self, space: str, key: str) -> bytes | None:
        """See `Store`."""
        name, most = self._name(space, key), HEAD + self.max_bytes
        # GETRANGE, so that a value of any size costs no more than the bound.
        kept = await self._try(lambda client: client.getrange(name, 0, most), b"")
        value = None
        if kept != b"":  # which is how it says that there is nothing
            value = unframed(space, key, kept)
            if value is None:
                self._tally.count("damaged")
                self._tally.odd("damaged", "an entry was damaged, too large or none of ours; it is left out")
        self._tally.count("misses" if value is None else "hits")
        return value

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = _milliseconds(ttl)
        if life == 0 or len(value) > self.max_bytes:
            await self.delete(space, key)
            return False
        name, frame = self._name(space, key), framed(space, key, value)
        return self._stored(await self._try(lambda client: client.set(name, frame, px=life), None, writes=True))

    async def add(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = _milliseconds(ttl)
        if life == 0 or len(value) > self.max_bytes:
            return False
        name, frame = self._name(space, key), framed(space, key, value)
        return self._stored(
            await self._try(lambda client: client.set(name, frame, px=life, nx=True), None, writes=True)
        )

    async def swap(self, space: str, key: str, old: bytes, new: bytes, ttl: float | None = None) -> bool:
        """See `Store`."""
        life = _milliseconds(ttl)
        if len(new) > self.max_bytes:
            return False
        name, was, now = self._name(space, key), framed(space, key, old), framed(space, key, new)
        end = "" if life is None else str(life)
        done = await self._try(lambda client: client.eval(_SWAP, 1, name, was, now, end), 0, writes=True)
        return self._stored(done == 1) and life != 0

    async def delete(self, space: str, key: str) -> bool:
        """See `Store`."""
        name = self._name(space, key)
        done = await self._try(lambda client: client.delete(name), 0)
        return bool(done == 1)

    # ---- many ---------------------------------------------------------------------------------

    async def clear(self, space: str | None = None) -> int:
        """See `Store`. What is put meanwhile may stay."""
        cleared = 0
        async for names in self._pages(space):
            done = await self._try(functools.partial(_unlink, names), 0)
            cleared += done if type(done) is int else 0
        return cleared

    async def spaces(self) -> tuple[str, ...]:
        """See `Store`. It goes through all keys of the server."""
        found = set()
        start = len(self._prefix)
        async for names in self._pages(None):
            found |= {name.decode("utf-8", "replace")[start:].partition(":")[0] for name in names}
        return tuple(sorted([unquote(space) for space in found]))

    async def stats(self) -> StoreStats:
        """See `Store`."""
        stats = self._tally.stats()
        if self._refusal is not None and stats.state == "ok":
            return replace(stats, state="degraded", why=self._refusal)
        return stats

    async def clean(self) -> int:
        """See `Store`. The server does so itself."""
        return 0

    async def _pages(self, space: str | None) -> AsyncIterator[list[bytes]]:
        start = self._prefix if space is None else f"{self._prefix}{quote(space, safe='')}:"
        pattern = "".join(f"\\{sign}" if sign in "*?[]^\\" else sign for sign in start) + "*"
        cursor: Any = 0
        while True:
            at = cursor
            page = await self._try(lambda client: client.scan(at, match=pattern, count=_PAGE), None)  # noqa: B023 - awaited here
            if not isinstance(page, tuple | list) or len(page) != 2 or type(page[1]) is not list:
                return
            cursor, names = page
            if names:
                yield names
            if cursor == 0:
                return

    def _name(self, space: str, key: str) -> str:
        # Without a colon in the space, so that none begins like another.
        return f"{self._prefix}{quote(space, safe='')}:{key}"

    def _stored(self, done: Any) -> bool:
        if done is True:
            self._tally.count("stored")
            self._refusal = None
        return done is True

    # ---- the server ---------------------------------------------------------------------------

    async def _try(self, ask: Callable[[Redis], Awaitable[Any]], otherwise: Any, *, writes: bool = False) -> Any:
        """What the server says, or otherwise where it says nothing sensible in time."""
        if self._closed or self._breaker.open_now():
            return otherwise
        line = await self._line()
        # Whoever waits for a free connection waits for other callers, not for the server: its time begins behind.
        async with line.places:
            if self._closed or not self._breaker.allows():
                return otherwise
            return await self._asked(line.client, ask, otherwise, writes=writes)

    async def _asked(
        self, client: Redis, ask: Callable[[Redis], Awaitable[Any]], otherwise: Any, *, writes: bool
    ) -> Any:
        from redis import ResponseError

        try:
            async with asyncio.timeout(CONNECT_SECONDS + OPERATION_SECONDS):
                answer = await ask(client)
        except ResponseError as error:
            # It is there, and will not: full, a replica, another type under the key.
            self._breaker.well()
            self._tally.count("errors")
            self._tally.odd(str(error).partition(" ")[0], f"it refused an operation: {error}")
            if writes:
                self._refusal = redact(str(error))
            return otherwise
        except asyncio.CancelledError:
            self._breaker.unknown()
            raise
        except Exception as error:  # noqa: BLE001 - a server may say anything, and no call fails for it
            self._breaker.failed()
            self._tally.trouble(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return otherwise
        self._breaker.well()
        self._tally.well()
        return answer

    async def _line(self) -> Line:
        """The client of the running event loop: its connections work in no other."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            for other in [loop for loop in list(self._lines) if loop.is_closed()]:
                self._lines.pop(other, None)
            client = self._new_client()
            line = self._lines[loop] = Line(client, asyncio.Semaphore(CONNECTIONS), _closing(client))
            await anext(line.ending)
        return line

    def _new_client(self) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            pool = BlockingConnectionPool.from_url(
                self._url.reveal(),
                max_connections=CONNECTIONS,
                timeout=OPERATION_SECONDS,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=OPERATION_SECONDS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
            )
        except (ValueError, TypeError):
            # Without the words of the error, which may hold the URL.
            raise ConfigError(
                "the URL of the Redis server cannot be read", hint="write redis://user:password@host:6379/0"
            ) from None
        return Redis.from_pool(pool)

    async def close(self) -> None:
        """See `Store`."""
        self._closed = True
        here = asyncio.get_running_loop()
        lines, self._lines = self._lines, {}
        for loop, line in lines.items():
            with contextlib.suppress(Exception):
                if loop is here:
                    await _end(line)
                elif loop.is_running():
                    # In another thread: its loop closes them when it comes to it.
                    asyncio.run_coroutine_threadsafe(_end(line), loop)

    def after_fork(self) -> None:
        """A child makes connections of its own."""
        _carried.extend(self._lines.values())
        self._lines = {}
        self._tally.after_fork()
        self._breaker.unknown()


_carried: list[Line] = []
"""What a child got from the process it was forked from: kept, because to close it would end the other's connections."""


async def _closing(client: Redis) -> AsyncGenerator[None, None]:
    """Closes a client when it is closed itself: an event loop does so to the generators begun in it before it ends."""
    try:
        yield
    finally:
        await client.aclose()


async def _end(line: Line) -> None:
    await line.ending.aclose()


async def _unlink(names: list[bytes], client: Redis) -> Any:
    return await client.unlink(*names)


def _loaded() -> None:
    try:
        import_module("redis.asyncio")
    except ImportError as error:
        raise MissingExtraError(
            "Redis needs a client that is not installed", hint="pip install 'polyvox[redis]'"
        ) from error


def _milliseconds(ttl: float | None) -> int | None:
    life = seconds(ttl)
    return None if life is None else math.ceil(life * 1000)


def _shown(url: Secret) -> str:
    """The URL without what may be secret in it."""
    try:
        parts = urlsplit(url.reveal())
        password, host, port = parts.password, parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(
            "the URL of the Redis server cannot be read", hint="write redis://user:password@host:6379/0"
        ) from None
    if password:
        remember(Secret(password))
        remember(Secret(unquote(password)))
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return f"{parts.scheme}://{where}{parts.path}"
