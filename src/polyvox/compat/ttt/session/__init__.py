"""TTT's conversations: each question takes along what was said before. The core keeps the turns; here they are only
told as TTT does. Kept in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from polyvox.compat.errors import speaking
from polyvox.compat.ttt.responses import AIResponse
from polyvox.compat.ttt.stepping import stepped, waited

if TYPE_CHECKING:
    from polyvox.compat.ttt.routing import Selection
    from polyvox.types import Message, Response

__all__ = ["AsyncChatSession", "ChatSession"]


def __getattr__(name: str) -> Any:
    """What comes later says so (PEP 562)."""
    if name == "PersistentChatSession":
        from polyvox.compat.ttt.later import NAMES

        NAMES[name](name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class AsyncChatSession:
    """`await session.ask(...)` and `session.stream(...)`; `achat` makes one."""

    def __init__(
        self,
        chosen: Selection,
        *,
        messages: Iterable[Any] = (),
        asked: str | None = None,
        system: str | None = None,
        **options: Any,
    ) -> None:
        self._chosen = chosen
        self._asked = asked
        self._talk = chosen.backend.chat(chosen.model, system, messages, options)

    def __repr__(self) -> str:
        named = f" of {self._asked}" if self._asked else ""
        return f"<{type(self).__name__}{named} at {self.backend!r}, {len(self.history)} messages>"

    @property
    def model(self) -> str | None:
        """The model as it was asked for."""
        return self._asked

    @property
    def backend(self) -> str:
        """The name of the backend that is asked."""
        return self._chosen.backend.name

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said, in order."""
        return self._talk.messages

    def clear(self) -> None:
        """Forget what was said."""
        self._talk.clear()

    def undo(self) -> None:
        """Take back the last question and its answer."""
        self._talk.undo()

    async def ask(self, prompt: Any, **options: Any) -> AIResponse:
        """The answer to the next turn; a turn that fails leaves the conversation as it was."""
        began = time.perf_counter()
        with speaking():
            await self._chosen.backend.ready(self._chosen.model)
            response = await self._talk.ask(prompt, **options)
        return self._told(response, began)

    async def stream(self, prompt: Any, **options: Any) -> AsyncIterator[str]:
        """The answer to the next turn as it comes; at its end it joins the conversation."""
        with speaking():
            await self._chosen.backend.ready(self._chosen.model)
            async with self._talk.stream(prompt, **options) as pieces:
                async for piece in pieces:
                    yield piece

    def _told(self, response: Response, began: float) -> AIResponse:
        chosen = self._chosen
        seconds = time.perf_counter() - began
        return chosen.backend.told(response, self._asked or chosen.model, chosen.model, seconds, chosen.reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to let go of: connections are the backend's."""


class ChatSession:
    """`session.ask(...)` and `session.stream(...)`; `chat` makes one."""

    def __init__(self, session: AsyncChatSession) -> None:
        self._async = session

    def __repr__(self) -> str:
        return repr(self._async).replace("Async", "", 1)

    @property
    def model(self) -> str | None:
        """See `AsyncChatSession.model`."""
        return self._async.model

    @property
    def backend(self) -> str:
        """See `AsyncChatSession.backend`."""
        return self._async.backend

    @property
    def history(self) -> tuple[Message, ...]:
        """See `AsyncChatSession.history`."""
        return self._async.history

    def clear(self) -> None:
        """Forget what was said."""
        self._async.clear()

    def undo(self) -> None:
        """Take back the last question and its answer."""
        self._async.undo()

    def ask(self, prompt: Any, **options: Any) -> AIResponse:
        """See `AsyncChatSession.ask`."""
        return waited(self._async.ask(prompt, **options))

    def stream(self, prompt: Any, **options: Any) -> Iterator[str]:
        """See `AsyncChatSession.stream`."""
        return stepped(lambda: self._async.stream(prompt, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of: connections are the backend's."""
