"""`AsyncAiClient`: the same client, awaited. All it asks at once goes over the same connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Self

from polyvox.compat.ai_utilities.client import BaseClient
from polyvox.compat.ai_utilities.providers.base_provider import (
    checked_concurrency,
    checked_prompts,
    guarded,
    name_of,
)
from polyvox.compat.ai_utilities.results import AskResult
from polyvox.compat.ai_utilities.streams import AsyncTextStream, End
from polyvox.compat.errors import speaking
from polyvox.compat.foreign import told
from polyvox.errors import PolyvoxError


class AsyncAiClient(BaseClient):
    """Asks models, asynchronously; takes what `AiClient` takes.

    >>> async def main():
    ...     async with AsyncAiClient(provider="demo") as client:
    ...         return (await client.ask("hello")).finish_reason
    >>> asyncio.run(main())
    'stop'
    """

    async def ask(self, prompt: str, **kwargs: Any) -> AskResult:
        """See `AiClient.ask`."""
        with speaking():
            return self._tracked(await self._asked(prompt, kwargs))

    async def _asked(self, prompt: str, kwargs: dict[str, Any]) -> AskResult:
        if self._answers is None:
            return await self._provided(prompt, kwargs)
        use = self._answers.wanted(kwargs)
        return await self._answers.ask_async(self._key(prompt, kwargs), use, partial(self._provided, prompt, kwargs))

    async def _provided(self, prompt: str, kwargs: dict[str, Any]) -> AskResult:
        with told(name_of(self.provider)):
            given = await self.provider.ask_async(prompt, **kwargs)
        return self._checked(given)

    async def ask_batch(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """See `AiClient.ask_batch`."""
        with speaking():
            if self._answers is None:
                with told(name_of(self.provider)):
                    results: list[AskResult] = await self.provider.ask_batch_async(prompts, **kwargs)
            else:
                results = await self._batch(checked_prompts(prompts), checked_concurrency(kwargs), kwargs)
            results = [self._checked(result) for result in results]
        for result in results:
            if getattr(result, "error", None) is None:
                self._tracked(result)
        return results

    async def _batch(self, prompts: list[str], concurrency: int, kwargs: dict[str, Any]) -> list[AskResult]:
        turns = asyncio.Semaphore(concurrency)

        async def one(prompt: str) -> AskResult:
            async with turns:
                try:
                    return await self._asked(prompt, dict(kwargs))
                except PolyvoxError as error:  # whatever a provider raises is one by here
                    return AskResult.failed(error)

        return list(await asyncio.gather(*map(one, prompts)))

    def ask_stream(self, prompt: str, **kwargs: Any) -> AsyncIterator[str]:
        """See `AiClient.ask_stream`; for `async for`."""
        with speaking():
            if self._answers is None:
                return self._texts(prompt, kwargs, self._told)
            use, key = self._answers.wanted(kwargs), self._key(prompt, kwargs)
            kept = self._answers.stream_async(key, use, partial(self._texts, prompt, kwargs))
        return AsyncTextStream(kept, partial(self._streamed, kept), self._told, name_of(self.provider))

    def _texts(self, prompt: str, kwargs: dict[str, Any], end: End | None = None) -> AsyncTextStream:
        source = guarded(self.provider, self.provider.ask_stream_async, prompt, **kwargs)
        return AsyncTextStream(source, partial(self._streamed, source), end, name_of(self.provider))

    async def list_models(self) -> list[str]:
        """See `AiClient.list_models`."""
        with told(name_of(self.provider)):
            names: list[str] = await self.provider.list_models_async()
            return names

    async def close(self) -> None:
        """See `AiClient.close`."""
        if self._answers is not None:
            await self._answers.close_async()
            if self._own_cache and self.cache is not None:
                await asyncio.to_thread(self.cache.close)
        close = getattr(self.provider, "close_async", None)
        if close is not None:
            await close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
