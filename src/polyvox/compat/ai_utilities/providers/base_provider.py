"""The interface of all providers. What a provider of somebody else's leaves out has a default here; only `ask` must be
written."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from polyvox.compat.ai_utilities.results import AskResult
from polyvox.compat.ai_utilities.streams import chunks_of
from polyvox.compat.errors import named
from polyvox.compat.foreign import NotSupportedError, told
from polyvox.errors import InputError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings

CONCURRENCY = 8
"""Calls of a batch that are under way at once, unless it says otherwise."""

T = TypeVar("T")

_OVER = object()


class BaseProvider(ABC):
    """A provider, made from settings. To add one, inherit from it, write `ask`, and give it a name with
    `register_provider`.

    The methods that end in _async are what AsyncAiClient awaits; without ones of its own, a provider is asked in
    threads.
    """

    required_settings: ClassVar[tuple[str, ...]] = ()
    """The settings that must have a value; whoever makes a provider from settings by its name checks them."""

    def __init__(self, settings: AiSettings) -> None:
        self.settings = settings
        self._configure_client()

    def _configure_client(self) -> None:  # noqa: B027 - nothing is what most do
        """What a provider does once when it is made; nothing, unless it says otherwise."""

    @classmethod
    def problems_of(cls, settings: AiSettings) -> Iterable[str]:  # noqa: ARG003 - for those who have any
        """What is wrong with settings for this provider, beside what `required_settings` says."""
        return ()

    # ---- asking -------------------------------------------------------------------------------

    @abstractmethod
    def ask(self, prompt: str, **kwargs: Any) -> AskResult:
        """The answer to a prompt; keywords go before what the settings say."""

    def ask_batch(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """An answer for each prompt, in order; for one that fails a result without text, whose `error` says why.
        concurrency=8 bounds the calls under way."""
        concurrency = checked_concurrency(kwargs)
        asked = checked_prompts(prompts)
        return in_threads(lambda prompt: guarded(self, self.ask, prompt, **kwargs), asked, concurrency)

    def ask_stream(self, prompt: str, **kwargs: Any) -> Iterator[str]:
        """The answer as it comes."""
        raise named(NotSupportedError("Streaming not supported", sent="no"))

    def list_models(self) -> list[str]:
        """The names of its models."""
        raise named(NotSupportedError("Model listing not supported", sent="no"))

    # ---- the same, awaited --------------------------------------------------------------------

    async def ask_async(self, prompt: str, **kwargs: Any) -> AskResult:
        """See `ask`."""
        return await asyncio.to_thread(partial(guarded, self, self.ask, prompt, **kwargs))

    async def ask_batch_async(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """See `ask_batch`."""
        return await asyncio.to_thread(partial(guarded, self, self.ask_batch, prompts, **kwargs))

    def ask_stream_async(self, prompt: str, **kwargs: Any) -> AsyncIterator[str]:
        """See `ask_stream`."""
        return _in_a_thread(chunks_of(self.ask_stream(prompt, **kwargs), name_of(self)))

    async def list_models_async(self) -> list[str]:
        """See `list_models`."""
        return await asyncio.to_thread(guarded, self, self.list_models)

    # ---- the end ------------------------------------------------------------------------------

    def close(self) -> None:  # noqa: B027 - many hold nothing
        """Let go of connections."""

    async def close_async(self) -> None:
        """See `close`."""
        await asyncio.to_thread(self.close)


def name_of(provider: Any) -> str:
    """The name of a provider, for messages: its own, that of its settings, or that of its class."""
    said = getattr(provider, "provider", None) or getattr(getattr(provider, "settings", None), "provider", None)
    return said if isinstance(said, str) else type(provider).__name__


def guarded(provider: Any, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What a method of a provider gives. What it raises is an error of ours here already: a StopIteration would never
    come out of the thread of a loop."""
    with told(name_of(provider)):
        return method(*args, **kwargs)


async def _in_a_thread(chunks: Iterator[str]) -> AsyncIterator[str]:
    try:
        while (chunk := await asyncio.to_thread(next, chunks, _OVER)) is not _OVER:
            yield chunk  # type: ignore[misc]  # a text, as it is not the end
    finally:
        close = getattr(chunks, "close", None)
        if callable(close):
            await asyncio.to_thread(close)


def checked_concurrency(kwargs: dict[str, Any]) -> int:
    """How many calls a batch may have under way, taken out of its keywords; InputError for what is no number."""
    concurrency = kwargs.pop("concurrency", CONCURRENCY)
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise named(InputError(f"concurrency is a whole number from 1 up, not {concurrency!r}", param="concurrency"))
    return concurrency


def checked_prompts(prompts: Any) -> list[Any]:
    """The prompts of a batch; InputError for a single text, and for a table, of which half would be dropped."""
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        raise named(InputError("prompts are a list of texts", hint="for one prompt there is ask()", param="prompts"))
    return list(prompts)


def in_threads(ask: Callable[[str], AskResult], prompts: list[str], concurrency: int) -> list[AskResult]:
    """Ask each prompt, so many at a time, in the caller's context variables; an error of ours is told in its place."""

    def one(prompt: str) -> AskResult:
        try:
            return ask(prompt)
        except PolyvoxError as error:
            return AskResult.failed(error)

    if not prompts:
        return []
    with ThreadPoolExecutor(min(concurrency, len(prompts)), "polyvox-batch") as pool:
        running = [pool.submit(copy_context().run, one, prompt) for prompt in prompts]
        try:
            return [future.result() for future in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
