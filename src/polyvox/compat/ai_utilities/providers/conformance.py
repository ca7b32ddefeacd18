"""What every provider promises, as a check that anybody can run on one of their own. It asks the provider it is given,
so a test gives it one whose server is not real."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from polyvox.compat.ai_utilities.providers.base_provider import BaseProvider
from polyvox.compat.ai_utilities.results import AskResult, UsageData

_METHODS = ("ask", "ask_batch", "ask_stream", "list_models")


def check_provider(provider: BaseProvider, *, prompt: str = "Say hello.") -> tuple[str, ...]:
    """Asks a provider in all ways of the interface, and says which of them it has; AssertionError, which says what is
    wrong, where one does not do what it should. Streaming and lists of models may be left out.

    >>> class Echo(BaseProvider):
    ...     def ask(self, prompt, **kwargs):
    ...         return AskResult(prompt, UsageData(prompt_tokens=1, completion_tokens=1))
    >>> check_provider(Echo(settings=None))
    ('ask', 'ask_batch')
    """
    _check(isinstance(provider, BaseProvider), f"{type(provider).__name__} does not inherit from BaseProvider")
    _check(hasattr(provider, "settings"), "it has no settings: call super().__init__(settings)")
    for name in _METHODS:
        wanted = list(inspect.signature(getattr(BaseProvider, name)).parameters)[1:2]
        has = list(inspect.signature(getattr(provider, name)).parameters)[:1]
        _check(has == wanted, f"{name} takes {has}, not {wanted}")
    _check_result("ask", provider.ask(prompt))
    prompts = [f"{prompt} {number}" for number in range(3)]
    results = provider.ask_batch(list(prompts))
    _check(isinstance(results, list) and len(results) == len(prompts), "ask_batch gives no result for each prompt")
    for result in results:
        _check_result("ask_batch", result)
    _check(provider.ask_batch([]) == [], "ask_batch of nothing is not nothing")
    return ("ask", "ask_batch", *(name for name in _METHODS[2:] if _has(provider, name, prompt)))


def _has(provider: BaseProvider, name: str, prompt: str) -> bool:
    """Whether a provider has an optional method, which then does what it should."""
    try:
        if name == "ask_stream":
            chunks = provider.ask_stream(prompt)
            _check(isinstance(chunks, Iterator), "ask_stream gives no iterator")
            given = list(chunks)
        else:
            given = provider.list_models()
    except NotImplementedError:
        return False
    _check(bool(given), f"{name} gives nothing")
    _check(all(isinstance(one, str) for one in given), f"{name} gives something else than texts")
    return True


def _check_result(name: str, result: object) -> None:
    _check(isinstance(result, AskResult), f"{name} gives {type(result).__name__}, not AskResult")
    assert isinstance(result, AskResult)
    _check(result.error is None, f"{name} failed: {result.error}")
    _check(isinstance(result.text, str) and str(result) == result.text, f"{name} gives a result without text")
    _check(isinstance(result.usage, UsageData), f"{name} gives a result without usage")
    usage = result.usage
    _check(min(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) >= 0, f"{name} counts below 0")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
