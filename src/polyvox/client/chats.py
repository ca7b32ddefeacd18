"""A conversation kept in memory: what was said goes along with the next question. A turn that fails
leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self, Unpack

from msgspec.structs import replace

from polyvox.client.check import shown
from polyvox.client.inputs import Options, Prompt, as_messages
from polyvox.client.streams import AsyncStream, Stream
from polyvox.errors import InputError
from polyvox.types import Message, Response

if TYPE_CHECKING:
    from polyvox.client import AsyncClient, Client


class _Talk:
    """What both faces share: the turns so far and the settings of every turn."""

    def __init__(self, *, model: str | None, system: str | None, messages: Iterable[Any], options: Options) -> None:
        self.model = model
        self.system = system
        self.options = options
        if isinstance(messages, str | bytes) or not isinstance(messages, Iterable):
            raise InputError(f"messages must be a sequence of messages, not {shown(messages)}")
        before = list(messages)
        self.messages: tuple[Message, ...] = as_messages(before, whole=False) if before else ()

    def clear(self) -> None:
        """Forget what was said; model and system stay."""
        self.messages = ()

    def undo(self) -> None:
        """Take back the last question and its answer."""
        kept = list(self.messages)
        while kept and kept.pop().role != "user":
            pass
        self.messages = tuple(kept)

    def _keep(self, turn: tuple[Message, ...], response: Response) -> Response:
        # Of turns that are asked at once each joins what is there when it ends.
        self.messages = (*self.messages, *turn, replace(response.message, role="assistant"))
        return response

    def _facts(self, options: Options) -> dict[str, Any]:
        return {"model": self.model, "system": self.system, **self.options, **options}


class AsyncChat(_Talk):
    """`await chat.ask(...)` and `chat.stream(...)`, each with all that was said before."""

    def __init__(self, client: AsyncClient, **facts: Any) -> None:
        super().__init__(**facts)
        self._client = client

    async def ask(self, prompt: Prompt, *, attachments: Iterable[Any] = (), **options: Unpack[Options]) -> Response:
        """The answer to the next turn."""
        turn = as_messages(prompt, None, attachments, whole=False)
        return self._keep(turn, await self._client.ask(self.messages + turn, **self._facts(options)))

    def stream(self, prompt: Prompt, *, attachments: Iterable[Any] = (), **options: Unpack[Options]) -> AsyncStream:
        """The answer to the next turn, streamed; it joins the conversation at its end."""
        turn = as_messages(prompt, None, attachments, whole=False)
        stream = self._client.stream(self.messages + turn, **self._facts(options))
        stream.on_response = lambda response: _discard(self._keep(turn, response))
        return stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to let go of: the client owns the connections."""


class Chat(_Talk):
    """`chat.ask(...)` and `chat.stream(...)`, each with all that was said before."""

    def __init__(self, client: Client, **facts: Any) -> None:
        super().__init__(**facts)
        self._client = client

    def ask(self, prompt: Prompt, *, attachments: Iterable[Any] = (), **options: Unpack[Options]) -> Response:
        """The answer to the next turn."""
        turn = as_messages(prompt, None, attachments, whole=False)
        return self._keep(turn, self._client.ask(self.messages + turn, **self._facts(options)))

    def stream(self, prompt: Prompt, *, attachments: Iterable[Any] = (), **options: Unpack[Options]) -> Stream:
        """The answer to the next turn, streamed; it joins the conversation at its end."""
        turn = as_messages(prompt, None, attachments, whole=False)
        stream = self._client.stream(self.messages + turn, **self._facts(options))
        stream.on_response = lambda response: _discard(self._keep(turn, response))
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to let go of: the client owns the connections."""


def _discard(_: object) -> None:
    return None
