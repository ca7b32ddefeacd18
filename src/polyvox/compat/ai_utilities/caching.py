"""Answers of any provider, given again: the core's cache, kept in a `CacheBackend` under the key of the document. It
asks nobody itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from polyvox import portal
from polyvox.cache import CachedRun, CacheKey, ResponseCache
from polyvox.client.keeping import use_of
from polyvox.client.streams import AsyncStream, Stream
from polyvox.compat.ai_utilities.cache import CacheBackend, _generate_cache_key
from polyvox.compat.ai_utilities.results import AskResult, response_of
from polyvox.errors import InputError
from polyvox.stores import StoreStats
from polyvox.stores.tally import watch_forks
from polyvox.types import Event, Response, TextDelta

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings
    from polyvox.compat.ai_utilities.streams import AsyncTextStream, TextStream

T = TypeVar("T")

log: logging.Logger = logging.getLogger("polyvox.compat.ai_utilities")

_SPACE = "ai_utilities"
_THREADS = 32
_SHAPES_NOTHING = frozenset({"timeout", "tags", "project", "session", "concurrency", "on_progress", "cached"})
"""Keywords of a call that do not change its answer."""


class Answers:
    """The answers that one client gives again; ttl is seconds. Equal questions that are asked at once are one call,
    and only whole answers are kept."""

    def __init__(self, backend: CacheBackend, ttl: int) -> None:
        self.backend = backend
        self._cache = ResponseCache(_Backed(backend), ttl=ttl)
        self._threads: ThreadPoolExecutor | None = None
        watch_forks(self)

    def key(self, prompt: str, settings: AiSettings, provider: Any, kwargs: dict[str, Any]) -> CacheKey | None:
        """The key of a question; None for one that cannot have one, which is asked each time."""
        said = {"max_tokens": settings.max_tokens, "base_url": settings.base_url, **kwargs}
        model = said.pop("model", None) or getattr(provider, "model", None) or settings.model or ""
        temperature = said.pop("temperature", settings.temperature)
        name = getattr(provider, "provider", None) or type(provider).__name__
        shaping = {word: value for word, value in said.items() if word not in _SHAPES_NOTHING}
        try:
            digest = _generate_cache_key(prompt, str(name), str(model), temperature, **shaping)
        except (InputError, TypeError) as error:
            log.debug("this question has no key, and its answer is not kept: %s", error)
            return None
        return CacheKey(_SPACE, digest)

    @staticmethod
    def wanted(kwargs: dict[str, Any]) -> str:
        """How a call wants the cache used, taken out of its keywords; see `polyvox.Client.ask`."""
        return use_of(kwargs.pop("cached", True))

    def ask(self, key: CacheKey | None, use: str, make: Callable[[], AskResult]) -> AskResult:
        """The answer kept under a key, or the one that `make` gets; from ordinary code."""
        apart = self._apart()
        return portal.run(self.ask_async(key, use, lambda: apart(make)))

    def _apart(self) -> Callable[[Callable[[], T]], Awaitable[T]]:
        """Runs ordinary code where it may wait, in the context variables of whoever asks."""
        # A thread of our own: those of the loop also look up the addresses that the call needs.
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "polyvox-asked")
        threads, context = self._threads, copy_context()
        return lambda work: asyncio.get_running_loop().run_in_executor(threads, context.copy().run, work)

    async def ask_async(self, key: CacheKey | None, use: str, make: Callable[[], Awaitable[AskResult]]) -> AskResult:
        """The same, awaited."""
        made: list[AskResult] = []

        async def call() -> Response:
            made.append(await make())
            return response_of(made[0])

        given = await self._cache.whole(key, call, use=use)  # type: ignore[arg-type]  # checked by use_of
        return made[0] if given.how == "made" else AskResult.of(given.response, cached=True)

    def stream(self, key: CacheKey | None, use: str, begin: Callable[[], TextStream]) -> KeptStream:
        """The same as a stream: an answer that was streamed comes again in the pieces in which it came. NotFoundError
        where no other is wanted."""
        if use == "only":
            self.ask(key, use, _nobody)
        apart = self._apart()
        return KeptStream(self._cache, key, use, lambda: _ThreadRun(begin, apart))

    def stream_async(self, key: CacheKey | None, use: str, begin: Callable[[], AsyncTextStream]) -> AsyncKeptStream:
        """The same, awaited; nothing is looked up before its first read."""
        return AsyncKeptStream(self._cache, key, use, lambda: _Run(begin))

    def after_fork(self) -> None:
        """A child has none of these threads, and makes its own."""
        self._threads = None

    async def close_async(self) -> None:
        """Keep what has come, and cut what has not."""
        await self._cache.close()
        self._threads = None  # those at work end with what they do, those who ask all the same get others

    def close(self) -> None:
        """See `close_async`."""
        portal.run(self.close_async())


def _nobody() -> AskResult:
    raise AssertionError("a call that wants what is kept asks nobody")


# ---- streams ------------------------------------------------------------------------------------

_OVER: Any = object()


class _Run:
    """The texts that a provider streams as the core reads streams; begun with the first read."""

    response: Response | None = None

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self.texts: Any = None

    async def batch(self) -> list[Event]:
        """See `polyvox.cache.flights.Run`."""
        text = await self._next()
        if text is _OVER:
            self.response = response_of(self.texts.result)
            return []
        return [TextDelta(text)]

    async def close(self) -> None:
        """See `polyvox.cache.flights.Run`."""
        if self.texts is not None:
            await self.texts.close()

    async def _next(self) -> Any:
        self.texts = self.texts or self._begin()
        return await anext(self.texts, _OVER)


class _ThreadRun(_Run):
    """The same for a provider that is no coroutine's: its code runs apart from the loop."""

    def __init__(self, begin: Callable[[], Any], apart: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        super().__init__(begin)
        self._apart = apart

    async def close(self) -> None:
        if self.texts is not None:
            # A generator in the middle of a read cannot be closed from here; it ends with that read.
            with contextlib.suppress(ValueError):
                await self._apart(self.texts.close)

    async def _next(self) -> Any:
        return await self._apart(self._pulled)

    def _pulled(self) -> Any:
        self.texts = self.texts or self._begin()
        return next(self.texts, _OVER)


class _Kept:
    """A stream that the cache gives or keeps, and its result at the end."""

    def __init__(self, cache: ResponseCache, key: CacheKey | None, use: str, make: Callable[[], _Run]) -> None:
        runs: list[_Run] = []

        def made() -> _Run:
            # Whoever makes the call must not hold the reader: one that is forgotten would never be cut.
            runs[:] = [make()]
            return runs[0]

        self._runs = runs
        self._cached: CachedRun = cache.stream(key, made, use=use)  # type: ignore[arg-type]  # checked by use_of
        cached = self._cached
        super().__init__(lambda: cached)  # type: ignore[call-arg]  # beside a stream of the core's

    @property
    def result(self) -> AskResult | None:
        """The whole answer; None before the end."""
        response = self._cached.response
        if response is None:
            return None
        if self._cached.how == "made":
            result: AskResult = self._runs[0].texts.result
            return result
        return AskResult.of(response, cached=True)


class KeptStream(_Kept, Stream):
    """The synchronous one."""


class AsyncKeptStream(_Kept, AsyncStream):
    """The asynchronous one."""


# ---- what keeps them ----------------------------------------------------------------------------

_FAILED = object()


class _Backed:
    """A `CacheBackend` as a store of the core: what it does is done in threads, and where it fails nothing is kept."""

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend

    async def get(self, space: str, key: str) -> bytes | None:
        value = await self._tried(self._backend.get, key)
        return None if value is None or value is _FAILED else json.dumps(value).encode()

    async def put(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        seconds = math.ceil(ttl) if ttl is not None else 0
        return await self._tried(self._backend.set, key, json.loads(value), seconds) is not _FAILED

    async def delete(self, space: str, key: str) -> bool:
        return await self._tried(self._backend.delete, key) is not _FAILED

    async def clear(self, space: str | None = None) -> int:
        await self._tried(self._backend.clear)
        return 0

    async def stats(self) -> StoreStats:
        return StoreStats(kind=type(self._backend).__name__)

    async def spaces(self) -> tuple[str, ...]:
        return ()

    async def clean(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing: whoever made the cache closes it."""

    async def add(self, space: str, key: str, value: bytes, ttl: float | None = None) -> bool:
        return await self.put(space, key, value, ttl)

    async def swap(self, space: str, key: str, old: bytes, new: bytes, ttl: float | None = None) -> bool:
        return await self.put(space, key, new, ttl)

    async def _tried(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(method, *arguments)
        except Exception:
            # One that somebody else wrote may raise, and the answer is worth more than the cache.
            log.warning("the cache failed", exc_info=True)
            return _FAILED
