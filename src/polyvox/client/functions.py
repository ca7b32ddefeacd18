"""ask, stream, chat and their async forms: the default client of the process, made on first use."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Unpack

from polyvox.client import AsyncClient, AsyncStream, Chat, Client, Progress, Prompt, Stream
from polyvox.client.chats import AsyncChat
from polyvox.client.inputs import Options, Said
from polyvox.client.operations import SaidOfCall
from polyvox.errors import PolyvoxError
from polyvox.types import Embeddings, Response

_lock = threading.Lock()
_client: Client | None = None


def _default() -> Client:
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


def _default_async() -> AsyncClient:
    return _default()._async


def ask(prompt: Prompt, **said: Unpack[Said]) -> Response:
    """Ask a model and wait for its answer; takes what `AsyncClient.ask` takes.

    >>> from polyvox import ask
    >>> print(ask("hello", model="demo").model)
    demo
    """
    return _default().ask(prompt, **said)


def stream(prompt: Prompt, **said: Unpack[Said]) -> Stream:
    """Ask a model and iterate over its answer as it comes.

    >>> from polyvox import stream
    >>> pieces = list(stream("hello", model="demo"))
    >>> len(pieces) > 1
    True
    """
    return _default().stream(prompt, **said)


def chat(
    *, model: str | None = None, system: str | None = None, messages: Iterable[Any] = (), **options: Unpack[Options]
) -> Chat:
    """Begin a conversation: each question takes along what was said before.

    >>> from polyvox import chat
    >>> talk = chat(model="demo")
    >>> _ = talk.ask("hello")
    >>> len(talk.messages)
    2
    """
    return _default().chat(model=model, system=system, messages=messages, **options)


def embed(
    inputs: str | Iterable[str],
    *,
    dimensions: int | None = None,
    purpose: str | None = None,
    truncate: bool | None = None,
    on_progress: Progress | None = None,
    **said: Unpack[SaidOfCall],
) -> Embeddings:
    """A vector for each text; takes what `AsyncClient.embed` takes.

    >>> from polyvox import embed
    >>> len(embed("hello", model="demo").vectors[0])
    256
    """
    return _default().embed(
        inputs, dimensions=dimensions, purpose=purpose, truncate=truncate, on_progress=on_progress, **said
    )


async def embed_async(
    inputs: str | Iterable[str],
    *,
    dimensions: int | None = None,
    purpose: str | None = None,
    truncate: bool | None = None,
    on_progress: Progress | None = None,
    **said: Unpack[SaidOfCall],
) -> Embeddings:
    """`embed`, awaited."""
    return await _default_async().embed(
        inputs, dimensions=dimensions, purpose=purpose, truncate=truncate, on_progress=on_progress, **said
    )


async def ask_async(prompt: Prompt, **said: Unpack[Said]) -> Response:
    """`ask`, awaited."""
    return await _default_async().ask(prompt, **said)


def stream_async(prompt: Prompt, **said: Unpack[Said]) -> AsyncStream:
    """`stream`, for `async for`."""
    return _default_async().stream(prompt, **said)


def achat(
    *, model: str | None = None, system: str | None = None, messages: Iterable[Any] = (), **options: Unpack[Options]
) -> AsyncChat:
    """`chat`, whose turns are awaited."""
    return _default_async().chat(model=model, system=system, messages=messages, **options)


def ask_batch(
    prompts: Iterable[Prompt], *, concurrency: int = 8, on_progress: Progress | None = None, **said: Unpack[Said]
) -> list[Response | PolyvoxError]:
    """Ask many prompts, a few at a time; answers in order, a failure is the error in its place."""
    return _default().ask_batch(prompts, concurrency=concurrency, on_progress=on_progress, **said)
