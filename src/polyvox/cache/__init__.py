"""Answers that were paid for once: keys, what may be kept, and equal calls under way that share one answer. It sends
nothing, and knows no engine: whoever makes the call says how."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from polyvox.cache import records
from polyvox.cache.flights import Flight, Owner, Run, StreamFlight, Where, WholeFlight
from polyvox.cache.keys import CacheKey, Fingerprint, fingerprint, key_of, space_of, tenant_spaces
from polyvox.cache.runs import Awaited, CachedRun, Direct, Following, How, Replayed, Source
from polyvox.errors import CallTimeoutError, InputError, NotFoundError
from polyvox.stores import Store, StoreStats, open_store
from polyvox.stores.frame import seconds
from polyvox.types import Event, Request, Response

__all__ = [
    "CacheKey", "CacheStats", "CacheUse", "CachedRun", "Fingerprint", "Given", "ResponseCache", "fingerprint",
]  # fmt: skip

log: logging.Logger = logging.getLogger("polyvox.cache")

CacheUse = Literal["use", "off", "refresh", "only"]
"""How one call uses the cache: as it is · not at all · ask anew and keep that · never ask."""
USES = ("use", "off", "refresh", "only")

TTL_SECONDS = 3600.0
MAX_ENTRIES = 1000
MAX_BYTES = 8 * 1024 * 1024
"""The largest answer that is kept, and how much of a live stream is held for those who read it together."""

FlightT = TypeVar("FlightT", bound=Flight)


class Given(Struct, frozen=True):
    """An answer, where it comes from, and how many seconds ago it was kept. Only a "made" one is the caller's own:
    others have the same object."""

    response: Response
    how: How = "made"
    age: float | None = None


class CacheStats(Struct, frozen=True, kw_only=True):
    """What a cache did since it was made. misses are look-ups that found nothing; shared calls got the answer of an
    equal one under way; left are those who stopped waiting before its end, cancelled the calls that nobody waited for
    any more. refused counts by why an answer was not kept. saved are the tokens of hits and shared answers that
    somebody had counted. store is None where it cannot be asked."""

    hits: int = 0
    misses: int = 0
    stored: int = 0
    shared: int = 0
    left: int = 0
    cancelled: int = 0
    damaged: int = 0
    saved_input: int = 0
    saved_output: int = 0
    refused: dict[str, int] = {}
    store: StoreStats | None = None


class ResponseCache:
    """Answers by what was asked, exactly. Usable from any thread; equal calls under way share one within an event loop.

    store is a `Store`, or what `open_store` takes; None keeps so many entries in memory, which max_entries is for.
    ttl is seconds; None keeps an answer until it is evicted. tenant and namespace are those of calls that name none.

    >>> from polyvox.types import Message, Request, Response, Text
    >>> async def twice():
    ...     cache = ResponseCache()
    ...     of = fingerprint("demo", "small", "openai.chat")
    ...     key = cache.key(Request("small", (Message("user", (Text("Hi"),)),)), of)
    ...     async def make():
    ...         return Response(Message("assistant", (Text("Hello!"),)), "stop")
    ...     return [(await cache.whole(key, make)).how for _ in range(2)]
    >>> asyncio.run(twice())
    ['made', 'hit']
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | None = None,
        *,
        ttl: float | None = TTL_SECONDS,
        namespace: str = "default",
        max_entries: int | None = None,
        max_bytes: int = MAX_BYTES,
        tenant: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._owned = store is None or isinstance(store, str | os.PathLike)
        if store is None:
            store = open_store("memory", max_entries=MAX_ENTRIES if max_entries is None else max_entries)
        elif max_entries is not None:
            raise InputError(
                "max_entries is for the store that a cache makes itself",
                hint="say it to the store: SQLiteStore(path, max_entries=1000)",
            )
        self.store: Store = open_store(store) if isinstance(store, str | os.PathLike) else store
        self.ttl: float | None = seconds(ttl)
        self.namespace = namespace
        self.tenant = tenant
        self.max_bytes = max_bytes
        space_of(tenant, namespace)
        self._wall = wall
        self._flights: dict[Where, Flight] = {}
        self._tasks: set[Flight] = set()
        self._owner = Owner(self._kept_of, self._over, self._tasks.discard, self._abandoned)
        self._counts: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed = False

    # ---- calls --------------------------------------------------------------------------------

    def key(
        self,
        request: Request,
        of: Fingerprint,
        *,
        tenant: str | UnsetType | None = UNSET,
        namespace: str | UnsetType = UNSET,
        headers: Mapping[str, str] | None = None,
    ) -> CacheKey | None:
        """The key of a request to a deployment; headers are those the caller adds. None, which every method takes, for
        a request that cannot have one."""
        found = key_of(
            request,
            of,
            tenant=self.tenant if tenant is UNSET else tenant,
            namespace=self.namespace if namespace is UNSET else namespace,
            headers=headers,
        )
        if found is None:
            self._refuse("no key")
        return found

    async def whole(
        self,
        key: CacheKey | None,
        make: Callable[[], Awaitable[Response]],
        *,
        use: CacheUse = "use",
        ttl: float | UnsetType | None = UNSET,
        timeout: float | None = None,
    ) -> Given:
        """The whole answer: kept, from an equal call under way, or made. make starts the call; what it raises is
        raised to all who wait, each time as an object of its own.

        timeout is how many seconds to wait for an equal call that somebody else began: CallTimeoutError. One that ends
        because the time of whoever began it was over is begun anew, once. NotFoundError with use="only".
        """
        life = self._life(use, ttl)
        if key is None or use == "off" or self._closed:
            return Given(await self._unkept(make, use))
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            return await self._whole(key, make, use, life, until)
        except _LateError as late:
            if until is not None and asyncio.get_running_loop().time() >= until:
                raise late.error from None
        try:
            return await self._whole(key, make, use, life, until)
        except _LateError as late:
            raise late.error from None

    def stream(
        self,
        key: CacheKey | None,
        make: Callable[[], Run],
        *,
        use: CacheUse = "use",
        ttl: float | UnsetType | None = UNSET,
        timeout: float | None = None,
    ) -> CachedRun:
        """The same as a stream; nothing is looked up or begun before its first `batch`. make gives a stream that has
        not begun. A kept answer comes with the events it came with, all at once."""
        life = self._life(use, ttl)
        until: list[float | None] = []

        async def begin() -> Source:
            if not until:
                until.append(None if timeout is None else asyncio.get_running_loop().time() + timeout)
            if key is None or use == "off" or self._closed:
                self._refuse_absent(use)
                return Direct(make())
            return await self._source(key, make, use, life, until[0])

        return CachedRun(begin, begin)

    async def _unkept(self, make: Callable[[], Awaitable[Response]], use: CacheUse) -> Response:
        self._refuse_absent(use)
        return await make()

    async def _whole(
        self,
        key: CacheKey,
        make: Callable[[], Awaitable[Response]],
        use: CacheUse,
        life: float | None,
        until: float | None,
    ) -> Given:
        where = self._where(key, use)
        flight = self._flights.get(where) if use != "only" else None
        if flight is None:
            record = await self._looked_up(key, use)
            if record is not None:
                return Given(record.response, "hit", self._age(record))
            flight = self._flights.get(where)
        if flight is None:
            return Given(await self._waited(self._took_off(WholeFlight(make, self._owner, where, life)), None))
        if isinstance(flight, StreamFlight):
            return Given(await self._followed(flight, until), "shared")
        assert isinstance(flight, WholeFlight)
        return Given(await self._shared(flight, until), "shared")

    async def _source(
        self, key: CacheKey, make: Callable[[], Run], use: CacheUse, life: float | None, until: float | None
    ) -> Source:
        where = self._where(key, use)
        flight = self._flights.get(where) if use != "only" else None
        if flight is None:
            record = await self._looked_up(key, use)
            if record is not None:
                return Replayed(record.told(), record.response, self._age(record))
            flight = self._flights.get(where)
        if flight is None:
            began = self._took_off(StreamFlight(make, self.max_bytes, self._owner, where, life))
            return Following(began, "made", None, self._left, _nothing)
        if isinstance(flight, StreamFlight):
            return self._follow(flight, until)
        assert isinstance(flight, WholeFlight)
        self._count("shared")
        return Awaited(flight, until, self._saved)

    # ---- equal calls --------------------------------------------------------------------------

    def _where(self, key: CacheKey, use: CacheUse) -> Where:
        return id(asyncio.get_running_loop()), key.space, key.digest, use == "refresh"

    def _took_off(self, flight: FlightT) -> FlightT:
        self._flights[flight.where] = flight
        self._tasks.add(flight)
        return flight

    async def _kept_of(self, flight: Flight, response: Response, events: bytes | None) -> None:
        await self._kept(flight.where[1], flight.where[2], response, events, flight.life)

    def _over(self, flight: Flight) -> None:
        if self._flights.get(flight.where) is flight:
            del self._flights[flight.where]

    def _abandoned(self) -> None:
        self._count("cancelled")

    async def _shared(self, flight: WholeFlight, until: float | None) -> Response:
        self._count("shared")
        try:
            response = await self._waited(flight, until)
        except CallTimeoutError as error:
            raise _LateError(error) from None
        self._saved(response)
        return response

    async def _waited(self, flight: WholeFlight, until: float | None) -> Response:
        try:
            return await flight.wait(until)
        except BaseException:
            if not flight.landed:
                self._left()
            raise

    async def _followed(self, flight: StreamFlight, until: float | None) -> Response:
        source = self._follow(flight, until)
        try:
            while source.response is None:
                await source.batch()
        except CallTimeoutError as error:
            raise _LateError(error) from None
        finally:
            await source.leave()
        return source.response

    def _follow(self, flight: StreamFlight, until: float | None) -> Following:
        self._count("shared")
        return Following(flight, "shared", until, self._left, self._saved)

    def _left(self) -> None:
        self._count("left")

    # ---- one entry ----------------------------------------------------------------------------

    async def get(self, key: CacheKey | None) -> Response | None:
        """The answer kept under a key, as it was given then but without its attempts; None where there is none."""
        record = None if key is None else await self._found(key)
        return None if record is None else record.response

    async def set(
        self,
        key: CacheKey | None,
        response: Response,
        *,
        events: Iterable[Event] | None = None,
        ttl: float | UnsetType | None = UNSET,
    ) -> bool:
        """Keep an answer, and the events it came with if it was streamed; whether it is kept. `stats` tells why not."""
        if key is None:
            return False
        try:
            told = None if events is None else records.as_json(events)
        except (TypeError, ValueError, RecursionError):
            self._refuse("not JSON")
            return False
        return await self._kept(key.space, key.digest, response, told, self._life("use", ttl))

    async def delete(self, key: CacheKey | None) -> bool:
        """Forget an answer, and one that is under way; whether there was one."""
        if key is None:
            return False
        self._forget(lambda space, digest: (space, digest) == (key.space, key.digest))
        return await self.store.delete(key.space, key.digest)

    async def clear(self, tenant: str | UnsetType | None = UNSET) -> int:
        """Forget all answers of a tenant, those under way too; how many were kept."""
        start = tenant_spaces(self.tenant if tenant is UNSET else tenant)
        self._forget(lambda space, _: space.startswith(start))
        return sum([await self.store.clear(space) for space in await self.store.spaces() if space.startswith(start)])

    async def clear_namespace(self, namespace: str, tenant: str | UnsetType | None = UNSET) -> int:
        """The same for one namespace of a tenant."""
        space = space_of(self.tenant if tenant is UNSET else tenant, namespace)
        self._forget(lambda other, _: other == space)
        return await self.store.clear(space)

    async def clean(self) -> int:
        """Remove what has outlived its time; how many entries that were. Stores also do so by themselves."""
        return await self.store.clean()

    async def stats(self) -> CacheStats:
        """What it did, and how its store is."""
        try:
            store = await self.store.stats()
        except Exception:
            log.warning("the store of the cache cannot say how it is", exc_info=True)
            store = None
        with self._lock:
            counts: dict[str, Any] = dict(self._counts)
            return CacheStats(refused=dict(self._refused), store=store, **counts)

    async def settle(self, timeout: float | None = None) -> None:
        """Wait until the calls of this event loop that are under way have come, and are kept; at most so many
        seconds. An answer is given before it is kept."""
        if flights := self._here():
            await asyncio.wait([flight.task for flight in flights], timeout=timeout)

    def _here(self) -> list[Flight]:
        here = asyncio.get_running_loop()
        return [flight for flight in list(self._tasks) if flight.loop is here]

    async def close(self) -> None:
        """Cancel the calls of this event loop that are under way, keep what has come, and close the store if this cache
        made it. From then on nothing is kept."""
        self._closed = True
        for flight in self._here():
            if not flight.landed:
                flight.task.cancel()
        await self.settle(5)
        if self._owned:
            await self.store.close()

    # ---- within -------------------------------------------------------------------------------

    async def _looked_up(self, key: CacheKey, use: CacheUse) -> records.Record | None:
        if use == "refresh":
            return None
        record = await self._found(key)
        if record is None:
            self._count("misses")
            self._refuse_absent(use)
        else:
            self._count("hits")
            self._saved(record.response)
        return record

    async def _found(self, key: CacheKey) -> records.Record | None:
        """A record that is sound; one that is not is forgotten. A store that fails has nothing."""
        try:
            kept = await self.store.get(key.space, key.digest)
            record = None if kept is None else records.read(kept)
            if kept is not None and record is None:
                self._count("damaged")
                await self.store.delete(key.space, key.digest)
        except Exception:
            # One that somebody else wrote may raise.
            log.warning("the store of the cache failed", exc_info=True)
            return None
        return record

    async def _kept(
        self, space: str, digest: str, response: Response, events: bytes | None, life: float | None
    ) -> bool:
        why = records.refused(response)
        if why is None:
            try:
                record = records.written(response, events, self._wall())
            except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
                why = "not JSON"
            else:
                why = "too large" if len(record) > self.max_bytes else await self._put(space, digest, record, life)
        if why is not None:
            self._refuse(why)
        else:
            self._count("stored")
        return why is None

    async def _put(self, space: str, digest: str, record: bytes, life: float | None) -> str | None:
        try:
            return None if await self.store.put(space, digest, record, life) else "store"
        except Exception:
            log.warning("the store of the cache failed", exc_info=True)
            return "store"

    def _forget(self, which: Callable[[str, str], bool]) -> None:
        """What is under way is not kept, and nobody joins it: it was asked before."""
        for place, flight in list(self._flights.items()):
            if which(place[1], place[2]):
                flight.keeps = False
                self._flights.pop(place, None)

    def _age(self, record: records.Record) -> float:
        return max(0.0, self._wall() - record.at)

    def _life(self, use: str, ttl: float | UnsetType | None) -> float | None:
        if use not in USES:
            raise InputError(f"a call cannot use the cache as {use!r}", hint=f"ways are {', '.join(USES)}")
        return self.ttl if ttl is UNSET else seconds(ttl)

    def _refuse_absent(self, use: CacheUse) -> None:
        if use == "only":
            raise NotFoundError(
                "no answer to this is kept, and the call may use nothing else",
                hint="ask with cached=True to have it answered",
                sent="no",
                billed=False,
            )

    def _saved(self, response: Response) -> None:
        self._count("saved_input", response.usage.input or 0)
        self._count("saved_output", response.usage.output or 0)

    def _count(self, what: str, many: int = 1) -> None:
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + many

    def _refuse(self, why: str) -> None:
        with self._lock:
            self._refused[why] = self._refused.get(why, 0) + 1


def _nothing(_: Response) -> None:
    """Whoever made the call saved nothing."""


class _LateError(Exception):
    """An equal call ended because a time was over: whoever waited for it looks whether it was their own."""

    def __init__(self, error: CallTimeoutError) -> None:
        super().__init__()
        self.error = error
