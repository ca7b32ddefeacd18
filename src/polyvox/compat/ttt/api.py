"""TTT's functions: ask, stream and chat, and the same awaited. The router chooses a backend, the backend asks through
the core; the answer is a text with what is known of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from polyvox.compat.ttt.backends.asking import Model
from polyvox.compat.ttt.config import get_config
from polyvox.compat.ttt.responses import AIResponse
from polyvox.compat.ttt.routing import Selection, select
from polyvox.compat.ttt.session import AsyncChatSession, ChatSession
from polyvox.compat.ttt.stepping import close, stepped, waited

_USUAL = ("system", "temperature", "max_tokens")


def _said(chosen: Selection, options: dict[str, Any]) -> dict[str, Any]:
    """What a call says: its own words, and what is configured for every call."""
    config = get_config()
    usual = {name: value for name in _USUAL if (value := config.get(name)) is not None}
    tier = {} if chosen.tier is None else {"tier": chosen.tier}
    return {**usual, **tier, **{name: value for name, value in options.items() if value is not None}}


async def ask_async(prompt: Any, *, model: Model = None, backend: Any = None, **options: Any) -> AIResponse:
    """`ask`, awaited."""
    chosen = select(model, prompt, backend, options.get("tier"))
    return await chosen.backend.answer(
        prompt,
        chosen.model,
        _said(chosen, options),
        asked=model if isinstance(model, str) else None,
        reason=chosen.reason,
    )


async def stream_async(prompt: Any, *, model: Model = None, backend: Any = None, **options: Any) -> AsyncIterator[str]:
    """`stream`, for `async for`; leaving it early ends it at the provider, at the latest when it is closed."""
    chosen = select(model, prompt, backend, options.get("tier"))
    pieces = chosen.backend.astream(prompt, model=chosen.model, **_said(chosen, options))
    try:
        async for piece in pieces:
            yield piece
    finally:
        await close(pieces)


def achat(
    *,
    model: Model = None,
    backend: Any = None,
    system: str | None = None,
    messages: Iterable[Any] = (),
    **options: Any,
) -> AsyncChatSession:
    """A conversation whose turns are awaited; takes what `chat` takes.

    `async with achat() as session: await session.ask(...)`
    """
    chosen = select(model, None, backend, options.get("tier"))
    said = _said(chosen, {**options, "system": system})
    return AsyncChatSession(chosen, messages=messages, asked=model if isinstance(model, str) else None, **said)


def ask(prompt: Any, *, model: Model = None, backend: Any = None, **options: Any) -> AIResponse:
    """Ask, and wait for the whole answer.

    Args:
        prompt: text, or whatever `polyvox.ask` takes: parts, messages.
        model: a model's name, an alias, a deployment, "auto" (by what the prompt says), or a list of which each is
            asked when those before it fail; without it what is configured.
        backend: "cloud", "local", the name of a registered one, or an object that is one; without it the model says.
        options: tier in the place of a model; system, temperature, max_tokens and all else that `polyvox.ask` takes.
            What is not said is not sent.

    Raises an error of TTT's tree, under `AIError`.

    >>> answer = ask("hello", model="demo")
    >>> answer.model, answer.backend
    ('demo', 'cloud')
    """
    return waited(ask_async(prompt, model=model, backend=backend, **options))


def stream(prompt: Any, *, model: Model = None, backend: Any = None, **options: Any) -> Iterator[str]:
    """The answer as it comes, in pieces of text; takes what `ask` takes. Leaving the loop ends it at the provider.

    >>> len(list(stream("hello", model="demo"))) > 1
    True
    """
    return stepped(lambda: stream_async(prompt, model=model, backend=backend, **options))


def chat(
    *,
    model: Model = None,
    backend: Any = None,
    system: str | None = None,
    messages: Iterable[Any] = (),
    **options: Any,
) -> ChatSession:
    """A conversation: each question takes along what was said before.

    >>> with chat(model="demo") as session:
    ...     _ = session.ask("My name is Ada.")
    ...     len(session.history)
    2
    """
    return ChatSession(achat(model=model, backend=backend, system=system, messages=messages, **options))
