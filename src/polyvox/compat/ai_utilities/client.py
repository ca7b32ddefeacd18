"""`AiClient`, the synchronous client of AI Utilities: settings, a provider, a cache and a tracker of usage, each in its
turn. Retries, limits and the wire are the core's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from polyvox.compat.ai_utilities.providers.base_provider import (
    BaseProvider,
    checked_concurrency,
    checked_prompts,
    guarded,
    in_threads,
    name_of,
)
from polyvox.compat.ai_utilities.providers.factory import create_provider
from polyvox.compat.ai_utilities.results import AskResult, UsageData
from polyvox.compat.ai_utilities.streams import End, TextStream
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, ServerError

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.cache import CacheBackend
    from polyvox.compat.ai_utilities.caching import Answers
    from polyvox.compat.ai_utilities.settings import AiSettings
    from polyvox.compat.ai_utilities.usage import Observer

log: logging.Logger = logging.getLogger("polyvox.compat.ai_utilities")


class BaseClient:
    """What both clients are made of.

    Attributes:
        settings: what was given, else `AiSettings()` as it is at this moment.
        provider: who is asked, the same one each time; another may be put in its place.
        usage_tracker: told of the usage of each request that was answered.
        cache: where answers are kept; None keeps none.
    """

    def __init__(
        self,
        settings: AiSettings | None = None,
        *,
        usage_tracker: Observer | None = None,
        cache: CacheBackend | None = None,
        provider: BaseProvider | str | None = None,
    ) -> None:
        """Everything is optional. cache is used whether or not the settings switch one on; provider is one that is
        made already, or a name that goes before the settings'. ConfigError for settings that cannot work."""
        from polyvox.compat.ai_utilities.cache import CacheBackend as AnyCache
        from polyvox.compat.ai_utilities.cache import create_cache
        from polyvox.compat.ai_utilities.config_models import AiSettings as Made

        if settings is not None and not isinstance(settings, Made):
            raise named(InputError(
                f"settings are AiSettings, not {type(settings).__name__}", param="settings",
                hint='say AiSettings(provider=..., model=...), or create_client("openai", ...)',
            ))  # fmt: skip
        if usage_tracker is not None and not callable(getattr(usage_tracker, "track_request", None)):
            raise named(InputError("a usage_tracker has a method track_request(usage)", param="usage_tracker"))
        if cache is not None and not isinstance(cache, AnyCache):
            raise named(InputError(
                f"cache is a CacheBackend, not {type(cache).__name__}", hint="for example cache=MemoryCache()",
                param="cache",
            ))  # fmt: skip
        with speaking():
            self.settings: AiSettings = Made() if settings is None else settings
            made = isinstance(provider, BaseProvider)
            self.provider: Any = provider if made else create_provider(self.settings, provider)  # type: ignore[arg-type]
            self._own_cache = cache is None
            self.cache: CacheBackend | None = create_cache(self.settings) if cache is None else cache
        self._answers = None if self.cache is None else _answers_in(self.cache, self.settings.cache_ttl_s)
        self._tracker = usage_tracker

    def __repr__(self) -> str:
        return f"<{type(self).__name__} provider={self.provider!r} model={self.settings.model!r}>"

    @property
    def usage_tracker(self) -> Any:
        """What was given, else a tracker of its own, made when it is first needed."""
        if self._tracker is None:
            from polyvox.compat.ai_utilities.usage import create_usage_tracker

            self._tracker = create_usage_tracker()
        return self._tracker

    @usage_tracker.setter
    def usage_tracker(self, tracker: Observer) -> None:
        self._tracker = tracker

    def _tracked(self, result: AskResult) -> AskResult:
        self._told(result)
        return result

    def _checked(self, given: Any) -> AskResult:
        """What a provider gave, where it is a result; a class of somebody else's may do, if it tells its usage."""
        if hasattr(given, "usage") and (self._answers is None or isinstance(given, AskResult)):
            result: AskResult = given
            return result
        raise named(ServerError(
            f"the provider gave {type(given).__name__}, where an AskResult is due", provider=name_of(self.provider),
            retryable=False, hint="return AskResult(text=..., usage=UsageData(...)) from its ask",
        ))  # fmt: skip

    def _told(self, result: AskResult) -> None:
        try:
            self.usage_tracker.track_request(result.usage)
        except Exception:
            # An answer is not lost because somebody could not count it.
            log.warning("the tracker of usage failed", exc_info=True)

    def _key(self, prompt: str, kwargs: dict[str, Any]) -> Any:
        assert self._answers is not None
        return self._answers.key(prompt, self.settings, self.provider, kwargs)

    def _streamed(self, source: Any, text: str) -> AskResult:
        """The result of a stream; of one that has none of its own only the text is known."""
        result = getattr(source, "result", None)
        if isinstance(result, AskResult):
            return result
        name = name_of(self.provider)
        return AskResult(text, UsageData(source="missing", provider=name), provider=name)


def _answers_in(cache: CacheBackend, ttl: int) -> Answers:
    from polyvox.compat.ai_utilities.caching import Answers  # loaded only where something is cached

    return Answers(cache, ttl)


class AiClient(BaseClient):
    """Asks models, from ordinary code.

    >>> with AiClient(provider="demo") as client:
    ...     client.ask("hello").finish_reason
    'stop'
    """

    def ask(self, prompt: str, **kwargs: Any) -> AskResult:
        """The answer to a prompt: out of the cache where it is there, else the provider's.

        Keywords go before the settings, for this call: model, temperature, max_tokens, system, tools and whatever else
        the provider takes; cached=False, "refresh" or "only" says how the cache is used. Raises the errors of the
        document.
        """
        with speaking():
            return self._tracked(self._asked(prompt, kwargs))

    def _asked(self, prompt: str, kwargs: dict[str, Any]) -> AskResult:
        if self._answers is None:
            return self._provided(prompt, kwargs)
        use = self._answers.wanted(kwargs)
        return self._answers.ask(self._key(prompt, kwargs), use, partial(self._provided, prompt, kwargs))

    def _provided(self, prompt: str, kwargs: dict[str, Any]) -> AskResult:
        return self._checked(guarded(self.provider, self.provider.ask, prompt, **kwargs))

    def ask_batch(self, prompts: list[str], **kwargs: Any) -> list[AskResult]:
        """An answer for each prompt, in order; for one that fails a result without text, whose `error` says why.
        concurrency=8 bounds the calls under way."""
        with speaking():
            if self._answers is None:
                results = guarded(self.provider, self.provider.ask_batch, prompts, **kwargs)
            else:
                concurrency, asked = checked_concurrency(kwargs), checked_prompts(prompts)
                results = in_threads(lambda prompt: self._asked(prompt, dict(kwargs)), asked, concurrency)
            results = [self._checked(result) for result in results]
        for result in results:
            if getattr(result, "error", None) is None:
                self._tracked(result)
        return results

    def ask_stream(self, prompt: str, **kwargs: Any) -> Iterator[str]:
        """The answer as it comes; close() cuts it, and at its end it has a `result`. An answer that was streamed before
        comes out of the cache in the pieces in which it came then."""
        with speaking():
            if self._answers is None:
                return self._texts(prompt, kwargs, self._told)
            use, key = self._answers.wanted(kwargs), self._key(prompt, kwargs)
            kept = self._answers.stream(key, use, partial(self._texts, prompt, kwargs))
        return TextStream(kept, partial(self._streamed, kept), self._told, name_of(self.provider))

    def _texts(self, prompt: str, kwargs: dict[str, Any], end: End | None = None) -> TextStream:
        source = guarded(self.provider, self.provider.ask_stream, prompt, **kwargs)
        return TextStream(source, partial(self._streamed, source), end, name_of(self.provider))

    def list_models(self) -> list[str]:
        """The names of the provider's models, as it tells them."""
        names: list[str] = guarded(self.provider, self.provider.list_models)
        return names

    def close(self) -> None:
        """Let go of connections; a tracker or a cache that was given is its owner's."""
        if self._answers is not None:
            self._answers.close()
            if self._own_cache and self.cache is not None:
                self.cache.close()
        close = getattr(self.provider, "close", None)
        if callable(close):
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_client(
    provider: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    *,
    usage_tracker: Observer | None = None,
    cache: CacheBackend | None = None,
    **settings: Any,
) -> AiClient:
    """A client from a few words; without any, from the environment. settings are further fields of `AiSettings`.

    >>> create_client("demo").ask("hello").provider
    'demo'
    """
    from polyvox.compat.ai_utilities.config_models import AiSettings as Made

    given = {"provider": provider, "model": model, "api_key": api_key, **settings}
    said = {name: value for name, value in given.items() if value is not None or name in settings}
    return AiClient(Made(**said), usage_tracker=usage_tracker, cache=cache)
